"""The Reliability Gain Index on the published numbers, at its edges, and with its intervals."""

import math
import random

import pytest

from earnest.grading import Outcome
from earnest.reliability.gain import gain, gain_metrics, random_refusal
from earnest.statistics import EndState

RIGHT, WRONG, ABSTAINED = Outcome.CORRECT, Outcome.WRONG, Outcome.ABSTAINED


def pairs(**counts: int) -> tuple[list[Outcome], list[Outcome]]:
    """Outcomes before and after, by name such as right_abstained=3."""
    named = {"right": RIGHT, "wrong": WRONG, "abstained": ABSTAINED}
    before: list[Outcome] = []
    after: list[Outcome] = []
    for name, count in counts.items():
        one, two = name.split("_")
        before += [named[one]] * count
        after += [named[two]] * count
    return before, after


def test_published_numbers() -> None:
    before, after = pairs(right_right=167, right_abstained=36, wrong_wrong=63, wrong_right=7, wrong_abstained=60)
    found = gain(before, after)
    assert found.conservativeness == pytest.approx(0.1081, abs=5e-5)
    assert found.humbleness == pytest.approx(0.2012, abs=5e-5)
    assert found.rgi == pytest.approx(0.2698, abs=2e-4)
    grouped = gain(before, after, "group")
    # The paper divides rounded rates.
    assert grouped.rgi == pytest.approx(0.4634, abs=2e-4)
    assert (grouped.conservativeness, grouped.humbleness) == (36 / 203, 67 / 130)
    state = EndState(194, 60, 333)
    assert (round(state.accuracy, 4), round(state.truthfulness, 4), round(state.reliability, 4)) == (
        0.5826, 0.7628, 0.7303,
    )  # fmt: skip
    assert EndState(521, 150, 1000).reliability == pytest.approx(0.6485)


def test_edges() -> None:
    assert gain(*pairs(right_right=5, wrong_abstained=1)).rgi == math.inf
    assert gain(*pairs(right_wrong=1, wrong_wrong=5)).rgi == -math.inf
    assert math.isnan(gain(*pairs(right_right=5, wrong_wrong=5)).rgi)
    assert math.isnan(gain(*pairs(right_wrong=5), "group").rgi)
    assert math.isnan(gain(*pairs(wrong_right=5), "group").rgi)
    assert math.isnan(gain([], []).rgi)
    smoothed = gain(*pairs(right_right=5, wrong_abstained=1), smoothing=0.5)
    assert smoothed.rgi == pytest.approx(math.log10(3))


def test_what_had_abstained_before_is_neither_right_nor_wrong() -> None:
    before, after = pairs(abstained_right=4, abstained_wrong=4, right_right=2, wrong_abstained=2)
    assert gain(before, after).conservativeness == 0
    assert gain(before, after).humbleness == 2 / 12


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (RIGHT, ABSTAINED)])
def test_whatever_is_no_answer_counts_as_wrong(outcome: Outcome) -> None:
    assert gain([RIGHT, outcome], [outcome, ABSTAINED]) == gain([RIGHT, WRONG], [WRONG, ABSTAINED])


def test_a_random_refusal_gains_nothing_in_the_group_form_and_lies_on_its_line() -> None:
    rng = random.Random(3)
    before = [RIGHT if rng.random() < 0.556 else WRONG for _ in range(40_000)]
    after = [ABSTAINED if rng.random() < 0.222 else outcome for outcome in before]
    assert abs(gain(before, after, "group").rgi) < 0.03
    assert gain(before, after, "total").rgi < -0.05
    assert EndState.of(after).reliability == pytest.approx(random_refusal(0.556, 0.222), abs=0.005)
    assert random_refusal(0.556, 0.222) == pytest.approx(0.605, abs=5e-4)
    assert random_refusal(0.7, 0.0) == 0.7


def test_metrics_hold_their_values_and_intervals_hold_them() -> None:
    before, after = pairs(right_right=167, right_abstained=36, wrong_wrong=63, wrong_right=7, wrong_abstained=60)
    found = gain_metrics(before, after, seed=1)
    assert found["rgi_group"].value == gain(before, after, "group").rgi
    assert found["rgi_total"].value == gain(before, after).rgi
    assert found["accuracy_change"].value == pytest.approx((174 - 203) / 333)
    assert found["over_random_refusal"].value == pytest.approx(
        EndState(174, 96, 333).reliability - random_refusal(203 / 333, 96 / 333)
    )
    for metric in found.values():
        assert metric.low < metric.value < metric.high
        assert metric.n == 333
        assert metric.method.startswith("paired bootstrap")
    assert found == gain_metrics(before, after, seed=1)
    assert found["rgi_group"].low != gain_metrics(before, after, seed=2)["rgi_group"].low


def test_an_infinite_index_is_no_plain_number_in_its_interval() -> None:
    before, after = pairs(right_right=50, wrong_abstained=1, right_abstained=1, wrong_wrong=48)
    found = gain_metrics(before, after, seed=0)["rgi_total"]
    assert found.value == 0
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert "undefined" in found.method
    assert found.to_json()["high"] == "inf"
