"""Which citations are heard again, how much of them, and why the others are not."""

from __future__ import annotations

import pytest

from earnest.errors import EarnestError
from earnest.relistening.segments import Bounds, Fault, last_segment, overlap

DURATION_S = 20.0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<seg>the start</seg>", Fault.MALFORMED),
        ("<seg>3</seg>", Fault.MALFORMED),
        ("<seg>-1, 3</seg>", Fault.MALFORMED),
        ("3, 5</seg>", Fault.MALFORMED),
        ("<seg>1, <seg>3, 5</seg>", Fault.MALFORMED),
        ("<seg>5, 3</seg>", Fault.INVERTED),
        ("<seg>25, 22</seg>", Fault.INVERTED),
        ("<seg>5, 5</seg>", Fault.EMPTY),
        ("<seg>5, 5.19</seg>", Fault.SHORT),
        ("<seg>19.9, 30</seg>", Fault.SHORT),
        ("<seg>20, 22</seg>", Fault.OUTSIDE),
        ("<seg>00:21, 00:24</seg>", Fault.OUTSIDE),
        ("<seg>3, 5</seg>", None),
        ("<SEG> 3.0 s, 5 s </seg>", None),
        ("<seg>00:03, 00:05</seg>", None),
    ],
)
def test_every_fault_has_a_name_of_its_own(text: str, fault: Fault | None) -> None:
    segment = last_segment(f"<think> it is {text}", DURATION_S, Bounds())
    assert segment.fault is fault
    assert segment.heard_s == (2.0 if fault is None else 0.0)
    assert (segment.start_s is None) == (fault is Fault.MALFORMED)
    assert not segment.cut


def test_the_last_citation_of_a_text_counts() -> None:
    segment = last_segment("<seg>1, 2</seg> and <seg>4, 7</seg>", DURATION_S, Bounds())
    assert (segment.text, segment.start_s, segment.end_s) == ("4, 7", 4.0, 7.0)


def test_the_end_is_clipped_to_the_clip_and_that_is_no_cut() -> None:
    segment = last_segment("<seg>18.5, 90</seg>", DURATION_S, Bounds())
    assert (segment.start_s, segment.end_s, segment.cut, segment.fault) == (18.5, 20.0, False, None)
    assert segment.text == "18.5, 90"


def test_the_shortest_segment_is_heard() -> None:
    assert last_segment("<seg>5, 5.5</seg>", DURATION_S, Bounds(shortest_s=0.5)).fault is None
    assert last_segment("<seg>5, 5.4</seg>", DURATION_S, Bounds(shortest_s=0.5)).fault is Fault.SHORT


def test_a_segment_of_exactly_the_shortest_length_is_heard_wherever_it_lies() -> None:
    for start in range(100):
        said = f"<seg>{start / 10:.1f}, {start / 10 + 0.2:.1f}</seg>"
        assert last_segment(said, DURATION_S, Bounds()).fault is None, said


def test_the_longest_segment_is_a_bound_that_is_said() -> None:
    segment = last_segment("<seg>2, 12</seg>", DURATION_S, Bounds(longest_s=4.0))
    assert (segment.start_s, segment.end_s, segment.cut) == (2.0, 6.0, True)
    assert segment.heard_s == 4.0


def test_the_budget_cuts_and_is_then_spent() -> None:
    bounds = Bounds(total_s=10.0)
    within = last_segment("<seg>2, 6</seg>", DURATION_S, bounds, spent_s=6.0)
    assert (within.heard_s, within.cut) == (4.0, False)
    cut = last_segment("<seg>2, 6</seg>", DURATION_S, bounds, spent_s=7.0)
    assert (cut.heard_s, cut.end_s, cut.cut) == (3.0, 5.0, True)
    for spent_s in (9.9, 10.0):
        assert last_segment("<seg>2, 6</seg>", DURATION_S, bounds, spent_s).fault is Fault.SPENT
    assert last_segment("<seg>2, 6</seg>", DURATION_S, Bounds(total_s=0.0)).fault is Fault.SPENT


def test_what_is_wrong_with_a_citation_is_told_before_the_budget() -> None:
    assert last_segment("<seg>6, 2</seg>", DURATION_S, Bounds(total_s=0.0)).fault is Fault.INVERTED


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"turns": 0}, "turns is 0"),
        ({"shortest_s": 0.0}, "0.0 to 30.0 s"),
        ({"shortest_s": 31.0}, "31.0 to 30.0 s"),
        ({"total_s": -1.0}, "total_s is -1.0"),
    ],
)
def test_bounds_out_of_range_are_named(change: dict[str, float], text: str) -> None:
    with pytest.raises(EarnestError, match=text):
        Bounds(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ((2.0, 4.0), (2.0, 4.0), 1.0),
        ((0.0, 2.0), (1.0, 3.0), 1 / 3),
        ((0.0, 8.0), (2.0, 4.0), 0.25),
        ((0.0, 2.0), (2.0, 4.0), 0.0),
        ((0.0, 1.0), (5.0, 6.0), 0.0),
        ((3.0, 3.0), (3.0, 3.0), 0.0),
    ],
)
def test_overlap_is_intersection_over_union(one: tuple[float, float], other: tuple[float, float], share: float) -> None:
    assert overlap(one, other) == overlap(other, one) == pytest.approx(share)
