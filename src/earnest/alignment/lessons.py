"""Targets as a training takes them: clips that lie encoded on disk, and packs of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from earnest.alignment.features import Features, HeardClip
from earnest.alignment.packs import Lesson, Pack, packed
from earnest.alignment.rephrase import surrogate_conversation
from earnest.alignment.rows import Target
from earnest.audio import Clip
from earnest.conversation import Audio, Conversation
from earnest.engines.families.fused import FusedFamily
from earnest.errors import EarnestError
from earnest.fused.configuration import SAMPLE_RATE_HZ
from earnest.training.lora_trainer import prompt_of


@dataclass(frozen=True)
class Lessons:
    """Targets as a training takes them.

    Attributes:
        packs: sequences.
        clips: of each number in them.
        teachers: for each target the request with the surrogate in the clip's place, where it is distilled.
    """

    packs: list[Pack]
    clips: list[HeardClip]
    teachers: list[Lesson]

    @property
    def key(self) -> str:
        """Content hash of all tokens and clips."""
        digest = hashlib.sha256("".join(clip.key for clip in self.clips).encode())
        for pack in self.packs:
            digest.update(np.array([pack.clip, *pack.ids, *pack.labels], np.int64).tobytes())
        return digest.hexdigest()[:32]


def lessons_of(
    family: FusedFamily,
    rows: Sequence[Target],
    features: Features,
    *,
    targets_per_clip: int = 8,
    distilled: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Lessons:
    """Encodes the clips that are not on disk, and packs the targets.

    Args:
        family: the model.
        rows: of which those without a target are left out.
        features: of it.
        targets_per_clip: most of one clip in one sequence.
        distilled: whether the requests with surrogates are needed.
        progress: of the encoding.

    Raises:
        AudioError: clips that cannot be heard.
        EarnestError: no row has a target, or the model cannot take a clip.
    """
    taken = [row for row in rows if row.target is not None]
    if not taken:
        raise EarnestError(f"none of {len(rows)} rows has a target: there is nothing to learn from")
    heard = features.prepare((row.audio for row in taken), progress)
    numbers: dict[str, int] = {}
    clips: list[HeardClip] = []
    of: list[int] = []
    lessons: list[Lesson] = []
    teachers: list[Lesson] = []
    for row in taken:
        clip = heard[row.audio]
        if clip.key not in numbers:
            numbers[clip.key] = len(clips)
            clips.append(clip)
        of.append(numbers[clip.key])
        reply = tuple(family.continuation_ids(row.target or ""))
        if not row.cut:
            reply = (*reply, family.turn_end_id)
        lessons.append(Lesson(prompt_ids(family, asked_of(row, clip)), reply))
        if distilled:
            teachers.append(Lesson(prompt_ids(family, surrogate_conversation(row)), reply))
    return Lessons(packed(lessons, of, family.audio_token_id, targets_per_clip), clips, teachers)


def asked_of(row: Target, clip: HeardClip) -> Conversation:
    """The request; of its clip only the length matters here."""
    silent = Clip(np.zeros(clip.samples, np.float32), SAMPLE_RATE_HZ)
    return Conversation().user(Audio(silent), *([f"\n\n{row.question}"] if row.question else []))


def prompt_ids(family: FusedFamily, asked: Conversation) -> tuple[int, ...]:
    """Tokens of a request, placeholders in the clip's place.

    Raises:
        EarnestError: the model cannot take it.
    """
    return prompt_of(family, asked).token_ids
