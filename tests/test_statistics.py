import math

import numpy as np
import pytest

from earnest.grading.outcomes import Outcome
from earnest.statistics import (
    EndState,
    bootstrap,
    end_state_metrics,
    macro,
    micro,
    paired_bootstrap,
    wilson,
)


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263 and 15 of 148, 95 %.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        metric = wilson(successes, n)
        assert (metric.low, metric.high) == pytest.approx((low, high), abs=1e-4)
    assert (wilson(0, 20).low, wilson(20, 20).high) == (0.0, 1.0)
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    nothing = wilson(0, 0)
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.n) == (0.0, 1.0, 0)


def test_reliability_vectors():
    # spec: N_c 194, N_r 60, N 333 -> Acc 0.5826, Tru 0.7628, Rel 0.7303; 521 and 150 of 1000 -> Rel 0.6485.
    state = EndState(194, 60, 333)
    assert state.accuracy == pytest.approx(0.5826, abs=5e-5)
    assert state.truthfulness == pytest.approx(0.7628, abs=5e-5)
    assert state.rejection == pytest.approx(60 / 333)
    assert state.reliability == pytest.approx(0.7303, abs=5e-5)
    state = EndState(521, 150, 1000)
    assert state.reliability == pytest.approx(0.6485, abs=5e-5)
    assert state.reliability == pytest.approx(state.accuracy + state.rejection - state.rejection**2)
    assert math.isnan(EndState(0, 0, 0).reliability)


def test_every_other_outcome_stays_in_the_denominator():
    outcomes = [Outcome.CORRECT] * 194 + [Outcome.ABSTAINED] * 60
    others = [outcome for outcome in Outcome if outcome not in (Outcome.CORRECT, Outcome.ABSTAINED)]
    outcomes += [others[index % 5] for index in range(79)]
    metrics = end_state_metrics(outcomes)
    assert metrics["accuracy"].value == pytest.approx(0.5826, abs=5e-5)
    assert metrics["reliability"].value == pytest.approx(0.7303, abs=5e-5)
    for metric in metrics.values():
        assert metric.low < metric.value < metric.high and metric.n == 333
    assert metrics["accuracy"].method == "wilson 95%"
    clustered = end_state_metrics(outcomes, clusters=[str(index // 3) for index in range(333)])
    assert "clusters" in clustered["accuracy"].method
    assert clustered["accuracy"].value == metrics["accuracy"].value


def test_bootstrap_is_seeded_and_agrees_with_wilson():
    values = np.array([1.0] * 120 + [0.0] * 80)
    one, same, other = (bootstrap(values, seed=seed) for seed in (1, 1, 2))
    assert one == same and (one.low, one.high) != (other.low, other.high)
    interval = wilson(120, 200)
    assert (one.low, one.high) == pytest.approx((interval.low, interval.high), abs=0.015)
    by_hand = bootstrap(values, lambda rows: float(rows.mean()), seed=1)
    assert (by_hand.value, by_hand.low, by_hand.high) == pytest.approx((one.value, one.low, one.high))


def test_clusters_widen_the_interval_as_copies_should():
    generator = np.random.default_rng(0)
    clips = (generator.random(60) < 0.6).astype(float)
    copies = np.repeat(clips, 5)
    names = [str(index) for index in np.repeat(np.arange(60), 5)]
    plain, clustered, once = bootstrap(copies), bootstrap(copies, clusters=names), bootstrap(clips)
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
    assert clustered.high - clustered.low > 1.8 * (plain.high - plain.low)


def test_a_block_size_changes_nothing(monkeypatch):
    values = np.arange(7.0)
    whole = bootstrap(values, resamples=100)
    monkeypatch.setattr("earnest.statistics._DRAWS_AT_ONCE", 70)
    assert bootstrap(values, resamples=100) == whole


def test_infinite_and_undefined_resamples():
    ratio = bootstrap(
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
        lambda rows: math.inf if rows[:, 1].sum() == 0 else float(rows[:, 0].sum() / rows[:, 1].sum()),
    )
    assert ratio.value == 2.0 and ratio.high == math.inf and ratio.low == 0.0
    undefined = bootstrap([0.0, 1.0], lambda rows: math.nan if rows.sum() == 0 else 1.0, resamples=400)
    assert undefined.low == 1.0 and "of 400 resamples undefined" in undefined.method
    assert math.isnan(bootstrap([]).value) and bootstrap([]).n == 0


def test_paired_bootstrap_uses_the_pairing():
    generator = np.random.default_rng(0)
    before = (generator.random(300) < 0.5).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:15]] = 1.0
    paired = paired_bootstrap(before, after)
    assert paired.value == pytest.approx(0.05) and paired.low > 0
    apart = bootstrap(after).high - bootstrap(after).low
    assert paired.high - paired.low < apart
    by_hand = paired_bootstrap(before, after, lambda one, two: float(two.mean() - one.mean()))
    assert (by_hand.low, by_hand.high) == pytest.approx((paired.low, paired.high))
    assert paired.method.startswith("paired bootstrap over items")
    with pytest.raises(AssertionError, match="paired"):
        paired_bootstrap([1.0], [1.0, 0.0])


def test_paired_statistic_over_rows():
    before, after = np.array([[1.0, 0], [0, 1]] * 20), np.array([[1.0, 0], [1, 0]] * 20)
    metric = paired_bootstrap(before, after, lambda one, two: float(two[:, 0].sum() - one[:, 0].sum()))
    assert metric.value == 20


def test_macro_and_micro():
    groups = {"sound": [1.0] * 90 + [0.0] * 10, "speech": [0.0] * 10}
    assert micro(groups).value == pytest.approx(90 / 110) and micro(groups).n == 110
    metric = macro(groups)
    assert metric.value == pytest.approx(0.45) and metric.low < 0.45 < metric.high and metric.n == 110
    # Two equal groups vary independently: the interval is narrower than that of one of them.
    one, two = macro({"a": groups["sound"]}), macro({"a": groups["sound"], "b": groups["sound"]})
    assert two.high - two.low < 0.85 * (one.high - one.low)


def test_equal_values_have_an_interval_of_no_width_at_all() -> None:
    clusters = [str(k % 24) for k in range(520)]
    for value in (1 / 3, 0.1, 0.7):
        for found in (
            bootstrap([value] * 520, clusters=clusters),
            paired_bootstrap([0.0] * 520, [value] * 520, clusters=clusters, unit="s"),
        ):
            assert found.low == found.high == pytest.approx(value)


@pytest.mark.parametrize(("n", "clips"), [(520, 24), (100, 7), (30, 10), (12, 1), (40, 40)])
def test_equal_changes_are_no_certainty(n: int, clips: int) -> None:
    clusters = [str(k % clips) for k in range(n)]
    unseen = wilson(0, clips).high
    for value in (0.0, 1 / 3, -1 / 3, 1.0):
        found = paired_bootstrap([0.5] * n, [0.5 + value] * n, clusters=clusters)
        assert found.value == pytest.approx(value)
        # As many as may be unseen changed by -1, or by 1.
        assert found.low == pytest.approx(value - unseen * (value + 1))
        assert found.high == pytest.approx(value + unseen * (1 - value))
        assert found.low >= -1 and found.high <= 1 and f"over {clips} clusters" in found.method
    alone = paired_bootstrap([0.5] * 40, [0.5] * 40)
    assert (alone.low, alone.high) == pytest.approx((-wilson(0, 40).high, wilson(0, 40).high))


def test_the_rates_of_one_clip_are_no_certainty() -> None:
    metrics = end_state_metrics([Outcome.CORRECT] * 5, clusters=["a"] * 5)
    assert metrics["accuracy"].value == 1 and metrics["accuracy"].low == pytest.approx(wilson(1, 1).low)
    assert metrics["rejection"].value == 0 and metrics["rejection"].high == pytest.approx(wilson(0, 1).high)
