"""The rule that chooses K, and the plots of both dials."""

from __future__ import annotations

from pathlib import Path

import pytest

from earnest.files import write_json
from earnest.finding import Metric
from earnest.grading import Outcome
from earnest.reliability.choice import CARD, DIAL, card, chosen_k, dial_curves, measured

RIGHT, WRONG, IDK = Outcome.CORRECT, Outcome.WRONG, Outcome.ABSTAINED


def numbers(accuracy_change: float, over: float) -> dict[str, Metric]:
    values = {"accuracy_change": accuracy_change, "over_random_refusal": over}
    return {name: Metric(value, value, value, 10, "exact") for name, value in values.items()}


def test_k_is_chosen_by_the_rule() -> None:
    found = {1: numbers(-0.01, 0.05), 2: numbers(-0.03, 0.07), 3: numbers(-0.031, 0.2), 5: numbers(-0.3, 0.4)}
    assert chosen_k(found) == 2
    assert chosen_k({1: numbers(-0.06, 0.05), 2: numbers(-0.05, 0.01)}) == 2


def test_the_least_accuracy_is_not_lost_to_rounding() -> None:
    # 27 of 900 are exactly 3 points, and 793 / 900 - 820 / 900 is a little less than -0.03.
    before = [RIGHT] * 820 + [WRONG] * 80
    after = [RIGHT] * 793 + [IDK] * 27 + [IDK] * 80
    exact = measured(before, after, ["sound"] * 450 + ["music"] * 450)
    assert exact["accuracy_change"].value < -0.03
    assert exact["rgi_group.sound"].n == 450
    more = measured(before, [*after[:792], IDK, *after[793:]])
    assert chosen_k({1: measured(before, before), 2: exact, 3: more}) == 2


def test_the_sweeps_read_back_as_plots(tmp_path: Path) -> None:
    before = [RIGHT, RIGHT, WRONG, WRONG]
    by_k = {1: measured(before, [RIGHT, RIGHT, IDK, WRONG]), 2: measured(before, [RIGHT, IDK, IDK, IDK])}
    dial = dict.fromkeys(DIAL, by_k[1])
    assert by_k[2]["rejection"].value == 0.75
    write_json(tmp_path / CARD, card("key", 1, by_k, dial))
    curves = dial_curves(tmp_path / "chosen", "key")
    assert curves[0].x == (0.25, 0.75)
    assert curves[0].y == (0.5, 0.25)
    assert {curve.label for curve in curves[1:]} == {"conservativeness", "humbleness", "accuracy", "rgi_total"}
    assert all(curve.x == DIAL for curve in curves[1:])
    assert curves[1].y[0] == pytest.approx(0.0)
    # Neither without a card nor about other adapters, nor of another model.
    assert dial_curves(tmp_path / "elsewhere" / "chosen", "key") == []
    assert dial_curves(tmp_path / "k5", "key") == dial_curves(tmp_path / "chosen", "another") == []
