"""Train, validation and test by recording and speaker: clips that share one are in one split.

Clips that hang together, directly or over others, are a component. Its split is drawn by a hash of the seed and of one
of its names alone, so that further data moves a component only where it joins it to another, or brings the name that
is drawn by next.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from earnest.alignment.recordings import Recording
from earnest.errors import EarnestError


@dataclass(frozen=True)
class Shares:
    """How much of the components is held out; the rest is for training.

    Raises:
        EarnestError: a share below 0, or both together 1 or more.
    """

    validation: float = 0.02
    test: float = 0.02

    def __post_init__(self) -> None:
        """Checks the shares."""
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise EarnestError(
                f"validation {self.validation:g} and test {self.test:g}: give shares of 0 or more, together below 1"
            )

    def split(self, place: float) -> str:
        """The split of a place in [0, 1)."""
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"


def components(recordings: Sequence[Recording]) -> list[list[int]]:
    """Indices of the clips that share a file, a recording, a speaker or kin, directly or over others."""
    parents = list(range(len(recordings)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, clip in enumerate(recordings):
        ties = [
            ("file", os.path.realpath(clip.audio)),
            ("recording", clip.recording),
            *(("speaker", name) for name in clip.speakers),
            *(("kin", name) for name in clip.kin),
        ]
        for tie in ties:
            one, other = sorted((root(first.setdefault(tie, index)), root(index)))
            parents[other] = one
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(recordings)):
        members[root(index)].append(index)
    return list(members.values())


def draw_splits(
    recordings: Sequence[Recording], parts: Sequence[Sequence[int]], shares: Shares, seed: int
) -> list[str]:
    """The split of each clip; a component of which one clip's split is decided follows it.

    Args:
        recordings: the clips.
        parts: their components.
        shares: of the components that are held out.
        seed: of the draw.

    Raises:
        EarnestError: two splits are decided in one component.
    """
    splits = [""] * len(recordings)
    for part in parts:
        clips = [recordings[index] for index in part]
        split = _decided(clips) or shares.split(_place(f"{seed}/split/{_name(clips, seed)}"))
        for index in part:
            splits[index] = split
    return splits


def _name(clips: Sequence[Recording], seed: int) -> str:
    """One name stands for a component: a speaker's where somebody speaks, since speakers have many recordings."""
    speakers = {name for clip in clips for name in clip.speakers}
    names = speakers or {clip.recording for clip in clips}
    return min(names, key=lambda name: (_place(f"{seed}/name/{name}"), name))


def _decided(clips: Sequence[Recording]) -> str | None:
    by_split = {clip.split: clip for clip in reversed(clips) if clip.split}
    if len(by_split) > 1:
        (one, first), (other, second) = sorted(by_split.items())[:2]
        raise EarnestError(
            f"{first.name} is to be {one} and {second.name} {other}, but they share a recording or a speaker, directly "
            f"or over others ({len(clips)} clips hang together): give these sources one split, or none"
        )
    return next(iter(by_split), None)


def _place(text: str) -> float:
    """In [0, 1), even over texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
