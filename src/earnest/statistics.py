"""Rates, intervals and paired comparisons. Every number comes as a `Metric`: value, interval, n, method.

Intervals are Wilson's for a rate of independent items, else percentile bootstraps: seeded, over items, or
over clusters (all questions about one clip) where items are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earnest.finding import Metric
from earnest.grading.outcomes import Outcome

Array = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
_DRAWS_AT_ONCE = 4_000_000
"""Bound on the indices that are held at a time (32 MB)."""


def wilson(successes: float, n: int, *, level: float = LEVEL, unit: str = "fraction") -> Metric:
    """A rate with Wilson's score interval (1927); nan with the interval [0, 1] for n = 0."""
    assert 0 <= successes <= n, f"{successes} successes of {n}"
    method = f"wilson {level:.0%}"
    if n == 0:
        return Metric(math.nan, 0.0, 1.0, 0, method, unit)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate, square = successes / n, z * z
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    # At 0 and n successes the ends are exactly 0 and 1; rounding would miss them by 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Metric(rate, low, high, n, method, unit)


def rate(flags: Sequence[bool], clusters: Sequence[str], *, seed: int = 0) -> Metric:
    """A rate with its interval: Wilson's for independent items, else over clusters.

    Where all clusters are alike, or there is only one, their resamples are equal and would claim certainty: the
    interval is then Wilson's for as many items as there are clusters.

    Args:
        flags: [N] one per item.
        clusters: [N] name of each item's cluster (its clip).
        seed: of the bootstrap.
    """
    n, successes, independent = len(flags), sum(flags), len(set(clusters))
    if independent == n:
        return wilson(successes, n)
    drawn = bootstrap([float(flag) for flag in flags], seed=seed, clusters=clusters)
    if drawn.low < drawn.high:
        return drawn
    alike = wilson(successes / n * independent, independent)
    return Metric(drawn.value, alike.low, alike.high, n, f"{alike.method} over {independent} clusters", drawn.unit)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[Array], float] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    clusters: Sequence[str] | None = None,
    unit: str = "fraction",
) -> Metric:
    """A statistic with its percentile bootstrap interval.

    Args:
        values: [N] or [N, K], one row per item.
        statistic: of the drawn rows, [M] or [M, K], to a number; the mean of [N] if None. Infinite values
            take part in the interval; resamples on which it is nan are left out, and counted in the method.
        seed: of the draws.
        resamples: number of draws.
        level: of the interval.
        clusters: [N] name of each item's cluster (its clip); whole clusters are drawn then.
        unit: of the value.

    Returns:
        The metric; `n` is the number of items.
    """
    rows = np.asarray(values, dtype=np.float64)
    n = len(rows)
    members = None if clusters is None else _members(clusters, n)
    method = f"bootstrap over {'items' if clusters is None else 'clusters'} {level:.0%}, seed {seed}"
    if n == 0:
        return Metric(math.nan, math.nan, math.nan, 0, method, unit)
    if statistic is None:
        assert rows.ndim == 1, "the mean is of one value per item"
        sums = rows if members is None else np.array([rows[items].sum() for items in members])
        sizes = np.ones(n) if members is None else np.array([len(items) for items in members], np.float64)
        value = float(rows.mean())
        drawn = np.concatenate(
            [sums[draw].sum(axis=1) / sizes[draw].sum(axis=1) for draw in _draws(len(sums), seed, resamples)]
        )
    else:
        value = float(statistic(rows))
        drawn = np.array(
            [
                statistic(rows[one if members is None else np.concatenate([members[index] for index in one])])
                for draw in _draws(n if members is None else len(members), seed, resamples)
                for one in draw
            ]
        )
    return _metric(value, drawn, n, method, level, unit)


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    statistic: Callable[[Array, Array], float] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    clusters: Sequence[str] | None = None,
    unit: str = "fraction",
) -> Metric:
    """Compares two runs on the same items: both values of an item are drawn together.

    Where a mean difference of fractions is the same in all items or clusters, their resamples are equal and would
    claim certainty: the interval then allows for as many unlike ones as Wilson's does.

    Args:
        before: [N] or [N, K], one row per item.
        after: of the same shape, in the same order of items.
        statistic: of the drawn (before, after) to a number; mean(after) - mean(before) if None.
        seed: of the draws.
        resamples: number of draws.
        level: of the interval.
        clusters: [N] name of each item's cluster; whole clusters are drawn then.
        unit: of the value.
    """
    one, two = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    assert one.shape == two.shape, f"items must be paired: {one.shape} against {two.shape}"
    if statistic is None:
        metric = bootstrap(two - one, seed=seed, resamples=resamples, level=level, clusters=clusters, unit=unit)
        if unit == "fraction" and metric.low == metric.high:
            metric = _with_unlike(metric, level, clusters)
    else:
        pairs = np.stack([one, two], axis=1)
        metric = bootstrap(
            pairs,
            lambda rows: statistic(rows[:, 0], rows[:, 1]),
            seed=seed,
            resamples=resamples,
            level=level,
            clusters=clusters,
            unit=unit,
        )
    return Metric(metric.value, metric.low, metric.high, metric.n, f"paired {metric.method}", unit)


def _with_unlike(metric: Metric, level: float, clusters: Sequence[str] | None) -> Metric:
    """A mean of values in [-1, 1], all alike, with the interval if as many as may be unseen were -1, or 1."""
    alike = metric.n if clusters is None else len(set(clusters))
    unseen = wilson(0, alike, level=level).high
    kept = (1 - unseen) * metric.value
    method = f"wilson {level:.0%} over {alike} {'items' if clusters is None else 'clusters'} that are alike"
    return replace(metric, low=kept - unseen, high=kept + unseen, method=method)


def micro(groups: Mapping[str, ArrayLike], *, seed: int = 0, resamples: int = RESAMPLES) -> Metric:
    """The mean over all items of all groups, which large groups dominate."""
    return bootstrap(
        np.concatenate([np.asarray(v, np.float64) for v in groups.values()]), seed=seed, resamples=resamples
    )


def macro(
    groups: Mapping[str, ArrayLike], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Metric:
    """The mean of the groups' means, each group weighing the same; items are drawn within their groups.

    Args:
        groups: name to [N_g] values; none may be empty.
        seed: of the draws.
        resamples: number of draws.
        level: of the interval.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in groups.values()]
    assert arrays and all(len(array) for array in arrays), "a group without items has no mean"
    drawn = np.zeros(resamples)
    for number, array in enumerate(arrays):
        # A stream of its own per group: else equal groups would be drawn alike.
        means = [array[draw].mean(axis=1) for draw in _draws(len(array), (seed, number), resamples)]
        drawn += np.concatenate(means) / len(arrays)
    value = float(np.mean([array.mean() for array in arrays]))
    method = f"macro over {len(arrays)} groups, bootstrap within groups {level:.0%}, seed {seed}"
    return _metric(value, drawn, sum(len(array) for array in arrays), method, level, "fraction")


class EndState:
    """Accuracy, truthfulness, rejection and reliability of a set of outcomes (arXiv 2505.19294, section 3.2).

        Acc = N_c / N    Tru = (N_c + N_r) / N    Rej = N_r / N    Rel = Rej * Acc + (1 - Rej) * Tru

    N_c counts correct, N_r abstained; N counts all items: whatever is refused, malformed, unfinished or
    failed is as bad as wrong. Items are pooled.
    """

    def __init__(self, correct: int, abstained: int, n: int) -> None:
        """Computes the four fractions of 1; all are nan for n = 0."""
        assert correct >= 0 and abstained >= 0 and correct + abstained <= n, (correct, abstained, n)
        self.n = n
        self.accuracy = correct / n if n else math.nan
        self.rejection = abstained / n if n else math.nan
        self.truthfulness = (correct + abstained) / n if n else math.nan
        self.reliability = self.rejection * self.accuracy + (1 - self.rejection) * self.truthfulness

    @staticmethod
    def of(outcomes: Sequence[Outcome]) -> EndState:
        """From outcomes."""
        correct = sum(outcome is Outcome.CORRECT for outcome in outcomes)
        abstained = sum(outcome is Outcome.ABSTAINED for outcome in outcomes)
        return EndState(correct, abstained, len(outcomes))


def end_state_metrics(
    outcomes: Sequence[Outcome], *, seed: int = 0, clusters: Sequence[str] | None = None
) -> dict[str, Metric]:
    """`accuracy`, `truthfulness`, `rejection` and `reliability` with their intervals.

    Wilson's interval for the three rates of independent items; the bootstrap for reliability, which is no
    rate, and for all four where items share clusters.

    Args:
        outcomes: [N] one per item.
        seed: of the bootstrap.
        clusters: [N] name of each item's cluster (its clip).
    """
    correct = np.array([outcome is Outcome.CORRECT for outcome in outcomes], dtype=np.float64)
    abstained = np.array([outcome is Outcome.ABSTAINED for outcome in outcomes], dtype=np.float64)
    rates = {"accuracy": correct, "truthfulness": correct + abstained, "rejection": abstained}
    metrics = {
        name: wilson(int(values.sum()), len(values))
        if clusters is None
        else rate([bool(value) for value in values], clusters, seed=seed)
        for name, values in rates.items()
    }
    flags = np.stack([correct, abstained], axis=1)
    metrics["reliability"] = bootstrap(flags, _reliability, seed=seed, clusters=clusters)
    return metrics


def _reliability(flags: Array) -> float:
    correct, abstained = flags.sum(axis=0)
    return EndState(int(correct), int(abstained), len(flags)).reliability


def clusters_of(clips: Sequence[str]) -> Sequence[str] | None:
    """The clusters [N] of items with these clips: the clips where some are shared, None where items are independent."""
    return clips if len(set(clips)) < len(clips) else None


def _members(clusters: Sequence[str], n: int) -> list[NDArray[np.intp]]:
    """[N] names to the items of each cluster, in the order of first appearance."""
    assert len(clusters) == n, f"{len(clusters)} cluster names for {n} items"
    members: dict[str, list[int]] = {}
    for index, name in enumerate(clusters):
        members.setdefault(name, []).append(index)
    return [np.array(items, dtype=np.intp) for items in members.values()]


def _draws(size: int, seed: int | tuple[int, int], resamples: int) -> Iterator[NDArray[np.int64]]:
    """[R, size] indices with replacement, in blocks of rows."""
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWS_AT_ONCE // size)
    for start in range(0, resamples, rows):
        yield generator.integers(size, size=(min(rows, resamples - start), size))


def _metric(value: float, drawn: Array, n: int, method: str, level: float, unit: str) -> Metric:
    known = drawn[~np.isnan(drawn)]
    if len(known) < len(drawn):
        method += f", {len(drawn) - len(known)} of {len(drawn)} resamples undefined"
    if len(known) == 0:
        return Metric(value, math.nan, math.nan, n, method, unit)
    # No interpolation: between a number and infinity there is nothing.
    tail = (1 - level) / 2
    low, high = (float(end) for end in np.quantile(known, [tail, 1 - tail], method="inverted_cdf"))
    # Means of equal values differ in their last bits from resample to resample: no width is to come of that.
    if math.isclose(low, high, rel_tol=1e-12, abs_tol=1e-15):
        high = low
    return Metric(value, low, high, n, method, unit)
