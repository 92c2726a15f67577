"""A trace: reasoning in pieces, each but the last ending in a citation that is heard again before it goes on.

<think> i hear dog <seg>3, 6</seg> [0:03 - 0:06 of the clip] dog [00:03], then red [00:05].</think><answer> red</answer>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earnest.audio import Clip
from earnest.conversation import Audio, Part, Text


@dataclass(frozen=True)
class Trace:
    """Reasoning with its segments.

    Attributes:
        texts: one more than segments; all but the last end in the citation of a segment.
        segments: (start, end) in seconds of the clip, in the order in which they are cited.
    """

    texts: tuple[str, ...]
    segments: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.segments) + 1, "a trace has one text more than segments"

    @property
    def text(self) -> str:
        """The whole reply, without what was heard again."""
        return "".join(self.texts)

    def parts(self, clip: Clip, *, fine: bool = True) -> tuple[Part, ...]:
        """The assistant's turn up to the last text: each text, then its segment of the clip."""
        every: list[Part] = []
        for text, (start_s, end_s) in zip(self.texts, self.segments, strict=False):
            every += [Text(text), Audio(clip.crop(start_s, min(end_s, clip.duration_s)), fine=fine)]
        return tuple(every)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"texts": list(self.texts), "segments": [list(segment) for segment in self.segments]}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Trace:
        """Inverse of `to_json`."""
        segments: Sequence[Sequence[float]] = row["segments"]
        return Trace(tuple(row["texts"]), tuple((float(start), float(end)) for start, end in segments))
