"""Batched decoding: one prefill, then one token for every unfinished row at a time.

Rows are padded on the left; positions are explicit, so that a row's answer does not depend on its padding. Rows
end independently; finished ones are dropped from the batch once an eighth of it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from earnest.completion import Sampling, Stop
from earnest.engines.choosing import TokenChooser
from earnest.engines.kv_cache import growing_cache


@dataclass(frozen=True)
class Job:
    """One row of a batch.

    Attributes:
        sampling: how to draw; `max_new_tokens` is already within the model's context.
        key: the conversation's key, from which sampling is seeded.
        text_of: text of the reply so far, from its token ids.
    """

    sampling: Sampling
    key: str
    text_of: Callable[[Sequence[int]], str]


@dataclass
class Reply:
    """What a row has said so far: token ids, their log-probabilities, why it ended and its text."""

    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    stop: Stop = Stop.LENGTH
    text: str = ""


class StopFinder:
    """Finds stop strings in the text of a reply, without decoding at every step.

    A reply's text is only looked at when its newest token contains the last character of one of its stop strings.
    Which tokens do is worked out once per character. Blanks and characters outside ASCII may be spread over tokens
    in ways that single tokens do not show: for stop strings that end in one, every token is a candidate.

    Args:
        token_texts: text of every token id by itself.
    """

    def __init__(self, token_texts: Callable[[], Sequence[str]]) -> None:
        self._token_texts = token_texts
        self._texts: Sequence[str] | None = None
        self._candidates: dict[str, frozenset[int] | None] = {}

    def candidates(self, stop: tuple[str, ...]) -> frozenset[int] | None:
        """Token ids that may complete one of the stop strings; None for all."""
        found: set[int] = set()
        for string in stop:
            ids = self._completing(string[-1])
            if ids is None:
                return None
            found |= ids
        return frozenset(found)

    def _completing(self, character: str) -> frozenset[int] | None:
        if character not in self._candidates:
            plain = character.isascii() and character.isprintable() and not character.isspace()
            self._candidates[character] = self._containing(character) if plain else None
        return self._candidates[character]

    def _containing(self, character: str) -> frozenset[int]:
        if self._texts is None:
            self._texts = self._token_texts()
        return frozenset(index for index, text in enumerate(self._texts) if character in text)


def cut_after_stop(text: str, stop: tuple[str, ...]) -> str | None:
    """The text up to and with the stop string that ends first, or None if there is none."""
    ends = [start + len(string) for string in stop if (start := text.find(string)) >= 0]
    return text[: min(ends)] if ends else None


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [B, T] int64, padded on the left."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[pad_id] * (width - len(s)) + list(s) for s in sequences], device=device)
    lengths = torch.tensor([len(s) for s in sequences], device=device)
    mask = (torch.arange(width, device=device)[None] >= width - lengths[:, None]).long()
    return ids, mask


def positions_of(mask: Tensor) -> Tensor:
    """Positions [B, T] of left-padded rows: 0 at the first real token."""
    return (mask.cumsum(-1) - 1).clamp_(min=0)


def decode(
    language_model: Any,
    embeds: Tensor,
    mask: Tensor,
    jobs: Sequence[Job],
    *,
    end_ids: frozenset[int],
    banned_ids: Iterable[int],
    stops: StopFinder,
) -> list[Reply]:
    """Answers a batch.

    Args:
        language_model: maps `inputs_embeds` or `input_ids` to logits, with a transformers cache.
        embeds: [B, T, D], padded on the left.
        mask: [B, T] int64, 1 at real tokens.
        jobs: one for each row.
        end_ids: tokens that end a turn. They are part of the reply's ids, not of its text.
        banned_ids: tokens that a reply never holds.
        stops: finder of stop strings.

    Returns:
        One reply for each row. Log-probabilities are the model's own: of the softmax at temperature 1 over the
        whole vocabulary, before anything is banned.
    """
    width = mask.shape[1]
    replies = [Reply() for _ in jobs]
    limits = [job.sampling.max_new_tokens for job in jobs]
    candidates = [stops.candidates(job.sampling.stop) for job in jobs]
    lengths = mask.sum(-1, keepdim=True)
    columns = torch.cat([mask, mask.new_ones(len(jobs), max(limits))], dim=1)
    rows = list(range(len(jobs)))
    unfinished = set(rows)
    cache = growing_cache(language_model.config)
    output = language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions_of(mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    chooser = TokenChooser(
        [job.sampling for job in jobs],
        [job.key for job in jobs],
        banned_ids,
        vocabulary=output.logits.shape[-1],
        device=embeds.device,
    )
    for step in range(max(limits)):
        logits = output.logits[:, -1].float()  # [R, V]
        total = logits.logsumexp(-1)
        tokens = chooser.choose(logits, step)  # [R]
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if row not in unfinished:
                continue
            reply = replies[row]
            reply.token_ids.append(token)
            reply.logprobs.append(logprob)
            if token in end_ids:
                reply.stop = Stop.END
            elif (maybe := candidates[row]) is None or token in maybe:
                text = cut_after_stop(jobs[row].text_of(reply.token_ids), jobs[row].sampling.stop)
                if text is not None:
                    reply.stop, reply.text = Stop.STOP_STRING, text
            if reply.stop != Stop.LENGTH or step + 1 == limits[row]:
                unfinished.remove(row)
        if not unfinished:
            break
        if len(rows) - len(unfinished) >= max(1, len(rows) // 8):
            kept = [place for place, row in enumerate(rows) if row in unfinished]
            rows = [rows[place] for place in kept]
            index = torch.tensor(kept, device=embeds.device)
            cache.batch_select_indices(index)
            chooser.keep_rows(index)
            tokens, lengths, columns = tokens[index], lengths[index], columns[index]
        output = language_model(
            input_ids=tokens[:, None],
            attention_mask=columns[:, : width + step + 1],
            position_ids=lengths + step,
            past_key_values=cache,
            use_cache=True,
        )
    for job, reply in zip(jobs, replies, strict=True):
        if reply.stop != Stop.STOP_STRING:
            said = reply.token_ids[:-1] if reply.stop == Stop.END else reply.token_ids
            reply.text = job.text_of(said)
    return replies
