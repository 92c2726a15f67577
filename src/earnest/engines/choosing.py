"""Which token comes next: greedy, or drawn with each item's own random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from earnest.completion import Sampling


def item_seed(seed: int, key: str) -> int:
    """The seed of one item's draws, from the sampling seed and the conversation's key."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


class TokenChooser:
    """Chooses a token for every row of a batch at once.

    Each sampled item has its uniform numbers drawn up front by its own generator, and a token is the inverse of
    the cumulative distribution over token ids at that number. So neither the other rows nor the order of the
    batch can change an item's answer.

    Args:
        samplings: one for each row.
        keys: conversation keys, one for each row.
        banned: token ids that are never chosen; those beyond the vocabulary need no ban.
        vocabulary: V, the width of the logits.
        device: where the logits are.
        repetition_penalty: logits of tokens that were there before are divided by it, negative ones multiplied.
        prompts: token ids that stand before each row's reply.
    """

    def __init__(
        self,
        samplings: Sequence[Sampling],
        keys: Sequence[str],
        banned: Iterable[int],
        vocabulary: int,
        device: torch.device,
        repetition_penalty: float = 1.0,
        prompts: Sequence[Sequence[int]] = (),
    ) -> None:
        self._penalty = repetition_penalty
        self._seen: Tensor | None = None
        if repetition_penalty != 1.0:
            seen = torch.zeros(len(samplings), vocabulary, dtype=torch.bool)
            for row, prompt in enumerate(prompts):
                seen[row, [index for index in set(prompt) if index < vocabulary]] = True
            self._seen = seen.to(device)
        inside = sorted(index for index in banned if index < vocabulary)
        self._banned = torch.tensor(inside, dtype=torch.long, device=device)
        self._temperature = torch.tensor([s.temperature for s in samplings], dtype=torch.float64, device=device)
        self._top_p = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=device)
        self._draws: Tensor | None = None
        self._sampled = self._temperature.nonzero()[:, 0]
        if len(self._sampled):
            steps = max(s.max_new_tokens for s in samplings)
            draws = torch.zeros(len(samplings), steps, dtype=torch.float64)
            for row, (sampling, key) in enumerate(zip(samplings, keys, strict=True)):
                if sampling.temperature > 0:
                    generator = torch.Generator().manual_seed(item_seed(sampling.seed, key))
                    count = sampling.max_new_tokens
                    draws[row, :count] = torch.rand(count, generator=generator, dtype=torch.float64)
            self._draws = draws.to(device)

    def choose(self, logits: Tensor, step: int) -> Tensor:
        """Tokens [B] for logits [B, V] of the given step; the banned logits are overwritten."""
        logits.index_fill_(1, self._banned, float("-inf"))
        scores = logits
        if self._seen is not None:
            penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            scores = torch.where(self._seen, penalised, logits)
        tokens = scores.argmax(-1)
        if self._draws is not None and len(self._sampled):
            rows = self._sampled
            tokens[rows] = _draw(scores[rows], self._temperature[rows], self._top_p[rows], self._draws[rows, step])
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)
        return tokens

    def keep_rows(self, rows: Tensor) -> None:
        """Drops all rows except `rows` [R]."""
        self._temperature, self._top_p = self._temperature[rows], self._top_p[rows]
        if self._draws is not None:
            self._draws = self._draws[rows]
        if self._seen is not None:
            self._seen = self._seen[rows]
        self._sampled = self._temperature.nonzero()[:, 0]


def _draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sampling: logits [B, V], temperature, nucleus and uniform numbers [B] -> tokens [B]."""
    probabilities = torch.softmax(logits.double() / temperature[:, None], dim=-1)
    if bool((top_p < 1).any()):
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ranked.cumsum(-1) - ranked >= top_p[:, None]  # the token that crosses the limit stays in
        probabilities = probabilities.masked_fill(torch.zeros_like(outside).scatter_(1, order, outside), 0.0)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Strictly below the total, so that the token found always has a share of its own.
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True)[:, 0]
