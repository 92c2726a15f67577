"""Packs as tensors: ids, mixtures of two embeddings for stream slots, and targets on replies only."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from earnest.pocket.curriculum import Pack
from earnest.pocket.tokenizer import ASSISTANT, AUDIO_END, AUDIO_START, END, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORE = -100


@dataclass(frozen=True)
class Sequence:
    """One training sequence before padding.

    Attributes:
        ids: token ids, length T.
        others: second component of each position's mixture (equal to `ids` where nothing is mixed).
        shares: share of the second component in [0, 1].
        learned: True where the token is a target.
        streamed: True for the slots of a stream (they get embedding noise).
    """

    ids: list[int]
    others: list[int]
    shares: list[float]
    learned: list[bool]
    streamed: list[bool]


@dataclass(frozen=True)
class Batch:
    """Right-padded tensors: ids, others, targets [B, T] int64; shares [B, T]; streamed, mask [B, T] bool."""

    ids: torch.Tensor
    others: torch.Tensor
    shares: torch.Tensor
    streamed: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor


class PackEncoder:
    """Turns packs into sequences of ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = tokenizer.get_vocab()
        names = (USER, ASSISTANT, END, AUDIO_START, AUDIO_END)
        self.user, self.assistant, self.end, self.start, self.stop = (self.vocabulary[name] for name in names)

    def encode(self, packs: list[Pack]) -> list[Sequence]:
        """Encodes all texts of all packs in one call of the tokenizer."""
        texts: list[str] = []
        for pack in packs:
            if isinstance(pack.surrogate, str):
                texts.append(pack.surrogate)
            for number, exchange in enumerate(pack.exchanges):
                below_audio = number == 0 and pack.surrogate is not None and exchange.user
                texts += [f"\n\n{exchange.user}" if below_audio else exchange.user, exchange.reply]
        encoded = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"])
        return [self._sequence(pack, encoded) for pack in packs]

    def _sequence(self, pack: Pack, encoded: object) -> Sequence:
        texts = encoded
        ids: list[int] = [self.user]
        others: list[int] = [self.user]
        shares: list[float] = [0.0]
        learned: list[bool] = [False]
        streamed: list[bool] = [False]

        def extend(tokens: list[int], *, learn: bool = False) -> None:
            ids.extend(tokens)
            others.extend(tokens)
            shares.extend([0.0] * len(tokens))
            learned.extend([learn] * len(tokens))
            streamed.extend([False] * len(tokens))

        if isinstance(pack.surrogate, str):
            extend([self.start, *next(texts), self.stop])  # type: ignore[call-overload]
        elif pack.surrogate is not None:
            extend([self.start])
            for slot in pack.surrogate:
                ids.append(self.vocabulary[slot.piece])
                others.append(self.vocabulary[slot.other])
                shares.append(slot.share)
                learned.append(False)
                streamed.append(not slot.piece.startswith("▁["))
            extend([self.stop])
        for number in range(len(pack.exchanges)):
            if number:
                extend([self.user])
            extend(next(texts))  # type: ignore[call-overload]
            extend([self.assistant])
            extend([*next(texts), self.end], learn=True)  # type: ignore[call-overload]
        return Sequence(ids, others, shares, learned, streamed)


def collate(sequences: list[Sequence], device: str = "cpu") -> Batch:
    """Pads sequences to the right and shifts the targets by one."""
    length = max(len(sequence.ids) for sequence in sequences)
    rows = len(sequences)
    ids = torch.zeros(rows, length, dtype=torch.long)
    others = torch.zeros(rows, length, dtype=torch.long)
    shares = torch.zeros(rows, length)
    streamed = torch.zeros(rows, length, dtype=torch.bool)
    mask = torch.zeros(rows, length, dtype=torch.bool)
    targets = torch.full((rows, length), IGNORE)
    for row, sequence in enumerate(sequences):
        size = len(sequence.ids)
        ids[row, :size] = torch.tensor(sequence.ids)
        others[row, :size] = torch.tensor(sequence.others)
        shares[row, :size] = torch.tensor(sequence.shares)
        streamed[row, :size] = torch.tensor(sequence.streamed)
        mask[row, :size] = True
        learned = torch.tensor(sequence.learned[1:])
        targets[row, : size - 1] = torch.where(learned, ids[row, 1:size], torch.tensor(IGNORE))
    tensors = (ids, others, shares, streamed, mask, targets)
    return Batch(*(tensor.to(device) for tensor in tensors))


def by_length(sequences: list[Sequence], batch_size: int, rng: random.Random) -> list[list[Sequence]]:
    """Batches of similar length, in random order: little padding without a length curriculum."""
    ordered = sorted(sequences, key=lambda sequence: len(sequence.ids))
    batches = [ordered[k : k + batch_size] for k in range(0, len(ordered), batch_size)]
    rng.shuffle(batches)
    return batches
