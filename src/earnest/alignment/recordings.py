"""What a corpus says about a clip, and how it becomes a surrogate.

A reader of a corpus (see `layouts`) makes `Recording`s and hears nothing. Lengths come from the decoded file, in whole
seconds: rounded up as the world's are, but for the padding that codecs add.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from earnest.alignment.rows import Surrogate
from earnest.world.surrogates import ORDINALS, Segment, multi_surrogate, single_surrogate

MODALITIES: tuple[str, ...] = ("sound", "music", "speech", "mixed")
DETAILS: tuple[str, ...] = ("emotion", "gender", "age", "language")
"""Details that have a column of their own, in the order in which they are written."""
PADDING_S = 0.1
"""Codecs pad: a clip of 10.03 s is one of 10 s."""
TOLERANCE_S = 0.5
"""Annotations are rounded: so much may a passage end behind its clip."""
SEVERAL = "; "
"""Between the speakers of a clip that has more than one."""


class Reason(StrEnum):
    """Why a clip is no row."""

    MISSING_AUDIO = "missing_audio"
    EMPTY_AUDIO = "empty_audio"
    UNREADABLE_AUDIO = "unreadable_audio"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    NO_TEXT = "no_text"
    OUTSIDE = "passage_outside"
    TOO_MANY_SPEAKERS = "too_many_speakers"


@dataclass(frozen=True)
class Rejection:
    """A reason, and what it was in this case."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Passage:
    """One stretch of a clip.

    Attributes:
        start_s: seconds of the clip.
        end_s: behind the start.
        content: transcript, caption or tags.
        spoken: True for a transcript; anything else stands between pipes.
        speaker: who speaks, by a name that is unique over all corpora; empty where nobody does or is known.
        details: key and value pairs of this stretch.
    """

    start_s: float
    end_s: float
    content: str
    spoken: bool = False
    speaker: str = ""
    details: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


@dataclass(frozen=True)
class Recording:
    """A clip with what is known of it.

    Names of recordings, speakers and kin are unique over all corpora, as in "librispeech/1089".

    Attributes:
        id: unique in its corpus.
        corpus: where it comes from.
        audio: its file, which may be missing.
        recording: clips that were cut from one recording share it.
        content: transcript, caption or tags; empty where there are passages.
        spoken: True for a transcript; anything else stands between pipes.
        details: key and value pairs of the clip, in order.
        passages: what is heard when, where that is known.
        surrogate: the text itself, where it is known already (the world's).
        modality: sound, music, speech or mixed.
        speaker: who speaks, several with "; " between; passages may name others.
        kin: what else ties clips to one split, such as who uploaded them.
        instruction: whether the audio itself is the request.
        split: where it is decided already.
    """

    id: str
    corpus: str
    audio: Path
    recording: str
    content: str = ""
    spoken: bool = False
    details: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    passages: tuple[Passage, ...] = ()
    surrogate: str = ""
    modality: str = "mixed"
    speaker: str = ""
    kin: tuple[str, ...] = ()
    instruction: bool = False
    split: str | None = None

    @property
    def name(self) -> str:
        """Its id over all corpora."""
        return f"{self.corpus}-{self.id}"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Who speaks, in order of appearance."""
        heard = [self.speaker, *(passage.speaker for passage in self.in_order())]
        return tuple(dict.fromkeys(name for names in heard for name in names.split(SEVERAL) if name))

    def in_order(self) -> list[Passage]:
        """The passages by their start."""
        return sorted(self.passages, key=lambda passage: (passage.start_s, passage.end_s))

    def unusable(self, duration_s: float) -> Rejection | None:
        """Why no surrogate can be written for a clip of this length; None where one can."""
        if self.surrogate:
            return None
        if not self.passages and not self.content.strip():
            return Rejection(Reason.NO_TEXT, "no transcript, no caption and no tags")
        if wordless := sum(not passage.content.strip() for passage in self.passages):
            return Rejection(Reason.NO_TEXT, f"{wordless} of {len(self.passages)} segments without text")
        for passage in self.passages:
            if passage.start_s >= duration_s or passage.end_s > duration_s + TOLERANCE_S:
                return Rejection(
                    Reason.OUTSIDE,
                    f"{passage.start_s:g} to {passage.end_s:g} s reaches outside the clip ({duration_s:.2f} s)",
                )
        if (count := len(self._numbered())) > len(ORDINALS):
            return Rejection(Reason.TOO_MANY_SPEAKERS, f"{count} speakers, at most {len(ORDINALS)} can be told apart")
        return None

    def row(self, duration_s: float, split: str) -> Surrogate:
        """The clip as a row; it is usable."""
        return Surrogate(
            id=self.name,
            audio=self.audio,
            surrogate=self.surrogate or self._written(duration_s),
            duration_s=duration_s,
            corpus=self.corpus,
            modality=self.modality,
            recording=self.recording,
            speaker=SEVERAL.join(self.speakers),
            instruction=self.instruction,
            split=split,
        )

    def _numbered(self) -> list[str]:
        """The speakers of passages, the first speaker first."""
        return list(dict.fromkeys(passage.speaker for passage in self.in_order() if passage.speaker))

    def _written(self, duration_s: float) -> str:
        length_s = whole_seconds(duration_s)
        details = _said(self.details)
        if not self.passages:
            return single_surrogate(_line(self.content), length_s, spoken=self.spoken, details=details)
        order = self._numbered()
        segments: list[Segment] = []
        for passage in self.in_order():
            end_s = max(1, min(math.ceil(passage.end_s), length_s))
            segments.append(
                Segment(
                    start_s=min(math.floor(passage.start_s), end_s - 1),
                    end_s=end_s,
                    content=_line(passage.content),
                    spoken=passage.spoken,
                    speaker=order.index(passage.speaker) if passage.speaker else None,
                    details=_said(passage.details),
                )
            )
        return multi_surrogate(segments, length_s, details=details)


def whole_seconds(duration_s: float) -> int:
    """A length as a surrogate says it: rounded up, at least 1, without a codec's padding."""
    return max(1, math.ceil(duration_s - PADDING_S))


def joined(tags: list[str]) -> str:
    """Tags as one content."""
    return ", ".join(filter(None, (_line(tag) for tag in tags)))


def _said(details: Mapping[str, str]) -> dict[str, str]:
    return {key: line for key, value in details.items() if (line := _line(value))}


def _line(text: str) -> str:
    return " ".join(text.split())
