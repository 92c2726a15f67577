"""What a citation asks for: a stretch of the clip that can be heard again, or one of the ways in which it is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from earnest.errors import EarnestError
from earnest.grading.tags import Cited, parse_segments

CLOSING = "</seg>"
_SLACK_S = 1e-6
"""Times are sums of floats: 0.3 - 0.1 is a little less than 0.2."""


class Fault(StrEnum):
    """Why a citation is not heard again. The tag stays, nothing is added, and the reply goes on."""

    MALFORMED = "malformed"
    """No pair of times."""
    INVERTED = "inverted"
    """The end lies before the start."""
    EMPTY = "empty"
    """Start and end are equal."""
    SHORT = "short"
    """Less than the shortest segment remains within the clip."""
    OUTSIDE = "outside"
    """It starts past the end of the clip."""
    SPENT = "spent"
    """The seconds that a reply may hear again, or its generations, are used up."""


@dataclass(frozen=True)
class Bounds:
    """How often and how much a reply may hear again.

    Attributes:
        turns: generations of one reply, at most (8 in the paper).
        shortest_s: segments below are not heard again.
        longest_s: of a segment; what lies beyond is cut, and said so.
        total_s: of all segments of a reply (the paper has no bound).
    """

    turns: int = 8
    shortest_s: float = 0.2
    longest_s: float = 30.0
    total_s: float = 60.0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            EarnestError: one is out of its range.
        """
        if self.turns < 1:
            raise EarnestError(f"turns is {self.turns}: a reply needs at least 1")
        if not 0 < self.shortest_s <= self.longest_s:
            raise EarnestError(
                f"segments are {self.shortest_s} to {self.longest_s} s: the shortest must be above 0, and at most the "
                "longest"
            )
        if self.total_s < 0:
            raise EarnestError(f"total_s is {self.total_s}: it must be 0 (nothing is heard again) or more")


@dataclass(frozen=True)
class Segment:
    """A citation, and what came of it.

    Attributes:
        text: between its tags.
        start_s: in seconds of the clip; None if it is no pair of times.
        end_s: at most the clip's end; None if it is no pair of times.
        fault: why it is not heard; None if it is.
        cut: whether the longest or the total bound shortened it.
    """

    text: str
    start_s: float | None
    end_s: float | None
    fault: Fault | None = None
    cut: bool = False

    @property
    def heard_s(self) -> float:
        """Seconds that are heard again."""
        if self.fault or self.start_s is None or self.end_s is None:
            return 0.0
        return self.end_s - self.start_s


def last_segment(text: str, duration_s: float, bounds: Bounds, spent_s: float = 0.0) -> Segment:
    """The citation with which a text ends.

    Args:
        text: ends in `</seg>`.
        duration_s: of the clip.
        bounds: see there.
        spent_s: what the reply has heard again so far.
    """
    found = parse_segments(text)
    cited = found[-1] if found else Cited("", None, None)
    start_s, end_s = cited.start_s, cited.end_s
    if start_s is None or end_s is None:
        return Segment(cited.text, None, None, Fault.MALFORMED)
    fault = None
    if end_s < start_s:
        fault = Fault.INVERTED
    elif end_s == start_s:
        fault = Fault.EMPTY
    elif start_s >= duration_s:
        fault = Fault.OUTSIDE
    if fault:
        return Segment(cited.text, start_s, end_s, fault)
    end_s = min(end_s, duration_s)
    wanted_s = end_s - start_s
    if wanted_s < bounds.shortest_s - _SLACK_S:
        return Segment(cited.text, start_s, end_s, Fault.SHORT)
    allowed_s = min(bounds.longest_s, bounds.total_s - spent_s)
    if allowed_s < bounds.shortest_s - _SLACK_S:
        return Segment(cited.text, start_s, end_s, Fault.SPENT)
    if wanted_s > allowed_s + _SLACK_S:
        return Segment(cited.text, start_s, start_s + allowed_s, cut=True)
    return Segment(cited.text, start_s, end_s)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two segments in seconds, 0 to 1."""
    common = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    whole = (a[1] - a[0]) + (b[1] - b[0]) - common
    return common / whole if whole > 0 else 0.0
