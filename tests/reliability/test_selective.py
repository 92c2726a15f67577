"""Selective prediction against hand-made cases and scikit-learn's definitions written out."""

import math
from itertools import permutations

import numpy as np
import pytest

from earnest.reliability.selective import (
    accuracy_at,
    agreement,
    aurc,
    brier,
    expected_calibration_error,
    risk_coverage,
    risks,
    selective_metrics,
)


def test_risks_of_a_ranking() -> None:
    assert risks([0.2, 0.9, 0.5, 0.7], [False, True, False, True]).tolist() == [0, 0, 1 / 3, 2 / 4]
    assert aurc([0.2, 0.9, 0.5, 0.7], [False, True, False, True]) == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert accuracy_at(0.5, [0.2, 0.9, 0.5, 0.7], [False, True, False, True]) == 1.0
    assert accuracy_at(0.8, [0.2, 0.9, 0.5, 0.7], [False, True, False, True]) == 0.5
    assert accuracy_at(0.8, np.arange(10), np.arange(10) >= 2) == 1.0


def test_a_perfect_order_is_the_best_and_its_reverse_the_worst() -> None:
    right = np.array([True] * 6 + [False] * 4)
    sure = np.linspace(1, 0, 10)
    rng = np.random.default_rng(0)
    best, worst = aurc(sure, right), aurc(-sure, right)
    for _ in range(50):
        assert best <= aurc(rng.permutation(sure), right) <= worst


def test_equal_confidences_stand_for_the_mean_over_all_orders() -> None:
    sure = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    right = np.array([True, False, True, True, False])
    each = [
        risks(sure - 1e-3 * np.array([0, *order, 0]), right) for order in permutations(range(3))
    ]  # every order within the three
    assert risks(sure, right) == pytest.approx(np.mean(each, axis=0))
    assert aurc([0.5] * 8, [True, False] * 4) == 0.5


def test_calibration() -> None:
    assert expected_calibration_error([0.95] * 20, [True] * 19 + [False]) == pytest.approx(0)
    assert expected_calibration_error([0.95] * 20, [False] * 20) == pytest.approx(0.95)
    assert expected_calibration_error([1.0, 0.05], [True, True]) == pytest.approx(0.95 / 2)
    assert brier([0.8, 0.3], [True, False]) == pytest.approx((0.04 + 0.09) / 2)
    assert all(math.isnan(what([], [])) for what in (aurc, brier, expected_calibration_error))
    assert math.isnan(accuracy_at(0.8, [], []))


def test_metrics_with_items_that_have_no_answer() -> None:
    rng = np.random.default_rng(1)
    sure = rng.uniform(0, 1, 300)
    right = rng.uniform(0, 1, 300) < sure
    found = selective_metrics([*sure, None, None], [*right, True, False], seed=2)
    assert found["aurc"].n == found["accuracy_at_80"].n == 302
    assert found["ece"].n == found["brier"].n == 300
    assert found["brier"].value == pytest.approx(brier(sure, right))
    assert found["ece"].value < 0.1
    assert found["aurc"].value == pytest.approx(aurc([*sure, 0, 0], [*right, False, False]))
    assert all(metric.low < metric.value < metric.high for name, metric in found.items() if name != "ece")
    curve = risk_coverage([*sure, None, None], [*right, True, False], "pocket")
    assert (curve.x[0], curve.x[-1]) == (pytest.approx(1 / 302), 1.0)
    assert curve.y[-1] == pytest.approx(1 - right.sum() / 302)


def test_agreement_of_samples() -> None:
    assert agreement(["dog", "dog", "cat", "dog"], "dog") == 0.75
    assert agreement(["A dog.", "cat"], "dog") == 0.5
    assert agreement([], "dog") is None
