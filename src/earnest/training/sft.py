"""Supervised fine-tuning of the LLM behind the ears: only replies are learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from earnest.conversation import Audio, Conversation, Turn
from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Family, Prompt
from earnest.errors import EarnestError
from earnest.training.lora_trainer import (
    SOFT_TOKEN_BYTES,
    LoraSettings,
    last_logits,
    padded,
    prompt_of,
    train_adapter,
)

IGNORED = -100


@dataclass(frozen=True)
class Lesson:
    """A request and the reply that is to be learnt.

    Attributes:
        conversation: makes the request when it is its turn, so that not all clips are in memory at once.
        reply: as the model would write it, its tags included.
        name: tells the request from others, as an example's id does.
        begun: whether what the assistant says in the conversation is learnt as well, as where a reply goes back to the
            audio, or where several questions follow each other; audio in it never is.
    """

    conversation: Callable[[], Conversation]
    reply: str
    name: str = ""
    begun: bool = False


@dataclass(frozen=True)
class _Row:
    prompt: Prompt
    labels: tuple[int, ...]
    reply: tuple[int, ...]


class _Rows(Dataset[_Row]):
    """Lessons as tokens, made when they are asked for."""

    def __init__(self, family: Family, lessons: Sequence[Lesson]) -> None:
        self._family = family
        self._lessons = lessons

    def __len__(self) -> int:
        return len(self._lessons)

    def __getitem__(self, place: int) -> _Row:
        lesson = self._lessons[place]
        conversation = lesson.conversation()
        prompt = prompt_of(self._family, conversation)
        reply = (*self._family.continuation_ids(lesson.reply), self._family.turn_end_id)
        begun = begun_labels(self._family, conversation, prompt) if lesson.begun else ()
        return _Row(prompt, (*begun, *reply), reply)


def begun_labels(family: Family, conversation: Conversation, prompt: Prompt) -> tuple[int, ...]:
    """Labels of what the assistant has said in a conversation, from its first word to the prompt's end.

    Its text's tokens, with the token that ends each of its turns but the last; `IGNORED` at the user's turns, at audio
    and at the marks around it.

    Args:
        family: the model.
        conversation: ends in the assistant's turn, or in the user's behind earlier ones.
        prompt: of it.

    Raises:
        EarnestError: its beginning cannot be rendered.
    """
    turns = conversation.turns
    places = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    assert places, "the assistant has said nothing"
    # Up to where each reply begins, and up to where its text ends.
    beginnings = [Conversation(turns[:end]) for place in places for end in (place, place + 1)]
    rendered: list[Prompt] = []
    for own in family.render(beginnings):
        if isinstance(own, EarnestError):
            raise own
        assert prompt.token_ids[: len(own.token_ids)] == own.token_ids, "tokens do not depend on what follows"
        rendered.append(own)
    labels = [IGNORED] * len(prompt.token_ids)
    for number, place in enumerate(places):
        start, end = (len(rendered[2 * number + k].token_ids) for k in (0, 1))
        labels[start:end] = _spoken(family, turns[place], prompt.token_ids[start:end])
        if end < len(labels) and prompt.token_ids[end] in family.end_token_ids:
            labels[end] = prompt.token_ids[end]
    return tuple(labels[len(rendered[0].token_ids) :])


def _spoken(family: Family, turn: Turn, token_ids: Sequence[int]) -> list[int]:
    """Labels of one turn's tokens."""
    labels = list(token_ids)
    place = 0
    for part in turn.parts:
        if isinstance(part, Audio):
            own = family.audio_ids(part)
            while tuple(token_ids[place : place + len(own)]) != tuple(own):
                place += 1
                assert place < len(labels), "what is heard again stands in the prompt"
            labels[place : place + len(own)] = [IGNORED] * len(own)
            place += len(own)
    # Where the chat template writes the marks around a clip, they are no part of its own tokens.
    return [IGNORED if label in family.structural_token_ids else label for label in labels]


def fine_tune(
    family: Family,
    lessons: Sequence[Lesson],
    settings: LoraSettings,
    out: Path | str,
    *,
    soft: AudioCache | None = None,
    per_epoch: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Trains a LoRA adapter on replies and saves it as peft does; see `train_adapter`.

    Args:
        family: the loaded model, without an adapter.
        lessons: requests and replies.
        settings: numbers.
        out: the adapter's folder.
        soft: soft tokens of clips, shared by several trainings on one model; None for a cache of its own.
        per_epoch: whether the adapter of each epoch is kept.
        log: one line of progress.

    Raises:
        EarnestError: there are no lessons, or the model cannot take one of them.
        ModelError: it wears an adapter already, is on another GPU than the first, or peft is missing.
    """
    if not lessons:
        raise EarnestError("there is nothing to learn from: give at least one lesson")
    heard = AudioCache(SOFT_TOKEN_BYTES) if soft is None else soft

    def loss(_: Any, inputs: dict[str, Any], items: Any) -> Tensor:
        del inputs["shift_labels"]
        return reply_loss(family, **inputs) / items

    return train_adapter(
        family,
        _Rows(family, lessons),
        settings,
        Path(out),
        collate=lambda batch: collated(family, batch, heard),
        loss=loss,
        taught=[[lesson.name, lesson.reply, *([True] if lesson.begun else [])] for lesson in lessons],
        per_epoch=per_epoch,
        log=log,
    )


def collated(family: Family, batch: Sequence[_Row], soft: AudioCache) -> dict[str, Any]:
    """A batch for `reply_loss`; clips that are not in `soft` go through the ear, and into it.

    `shift_labels` are the labels: by this name the trainer counts all of them.
    """
    ids, mask, own = padded(family, [(row.prompt, row.reply) for row in batch], soft)
    longest = max(len(row.labels) for row in batch)
    labels = torch.tensor(
        [[IGNORED] * (longest - len(row.labels)) + list(row.labels) for row in batch], device=ids.device
    )
    return {"token_ids": ids, "mask": mask, "labels": labels, "shift_labels": labels, "soft": own}


def reply_loss(family: Family, token_ids: Tensor, mask: Tensor, labels: Tensor, soft: list[Tensor]) -> Tensor:
    """Sum of the cross-entropies of all replies' tokens, in nats.

    Args:
        family: the model.
        token_ids: [B, T], padded on the left.
        mask: [B, T], 1 at real tokens.
        labels: [B, n] of the last n tokens; `IGNORED` where a row's reply is shorter.
        soft: soft tokens [F, D] of each clip, in the order of their placeholders.
    """
    logits = last_logits(family, token_ids, mask, soft, labels.shape[1])
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
