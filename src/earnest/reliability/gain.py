"""What a method changed on the same items: right answers lost, wrong ones removed, and their ratio.

    dCon = (N_c - N_cc) / N      right answers lost, to a refusal or to an error
    dHum = (N_w - N_ww) / N      wrong answers removed, by a refusal or by a correction
    RGI  = log10(dHum / dCon)    above 0: the method is worth it

N_c and N_w count what was right and wrong before, N_cc and N_ww what of it still is (arXiv 2505.19294, section 3.3).
The paper divides by all items ("total"); by their own group, N_c and N_w, a random refusal scores exactly 0 ("group").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earnest.finding import Metric
from earnest.grading.outcomes import Outcome
from earnest.statistics import EndState, paired_bootstrap

Normalize = Literal["total", "group"]
Array = NDArray[np.float64]

_WRONG, _RIGHT, _ABSTAINED = 0.0, 1.0, 2.0


@dataclass(frozen=True)
class Gain:
    """A method against its baseline; fractions of 1.

    Attributes:
        conservativeness: dCon, right answers lost.
        humbleness: dHum, wrong answers removed.
        rgi: log10 of humbleness over conservativeness. +inf if nothing right was lost and something wrong removed, -inf
            the other way round, nan if neither, or if a group is empty that is divided by.
    """

    conservativeness: float
    humbleness: float
    rgi: float


def gain(
    before: Sequence[Outcome], after: Sequence[Outcome], normalize: Normalize = "total", *, smoothing: float = 0.0
) -> Gain:
    """The Reliability Gain Index of a method.

    Args:
        before: [N] outcomes of the baseline. Whatever is neither correct nor abstained counts as wrong.
        after: [N] outcomes of the same items under the method.
        normalize: "total" divides by N, "group" by what was right and what was wrong before.
        smoothing: added to both counts of changed items, such as 0.5; 0 for none.
    """
    assert len(before) == len(after), f"items must be paired: {len(before)} against {len(after)}"
    return _gain(_coded(before), _coded(after), normalize, smoothing)


def gain_metrics(
    before: Sequence[Outcome],
    after: Sequence[Outcome],
    *,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
    only: str | None = None,
) -> dict[str, Metric]:
    """`conservativeness`, `humbleness` (of all; `..._group` of what was right, of what was wrong), `rgi_total`,
    `rgi_group`, and the changes of accuracy and of reliability.

    Intervals are paired bootstraps. An infinite index keeps its place in them; resamples without any change are left
    out, and counted in the method.

    Args:
        before: [N] outcomes of the baseline.
        after: [N] of the same items under the method.
        seed: of the bootstrap.
        clusters: [N] name of each item's cluster (its clip).
        only: one of them alone, where the others' intervals are not needed.
    """
    statistics: dict[str, tuple[Callable[[Array, Array], float], str]] = {
        "conservativeness": (lambda one, two: _gain(one, two, "total").conservativeness, "fraction"),
        "humbleness": (lambda one, two: _gain(one, two, "total").humbleness, "fraction"),
        "conservativeness_group": (lambda one, two: _gain(one, two, "group").conservativeness, "fraction"),
        "humbleness_group": (lambda one, two: _gain(one, two, "group").humbleness, "fraction"),
        "rgi_total": (lambda one, two: _gain(one, two, "total").rgi, ""),
        "rgi_group": (lambda one, two: _gain(one, two, "group").rgi, ""),
        "accuracy_change": (lambda one, two: _end_state(two).accuracy - _end_state(one).accuracy, "fraction"),
        "reliability_change": (lambda one, two: _end_state(two).reliability - _end_state(one).reliability, "fraction"),
        "over_random_refusal": (_over_random_refusal, "fraction"),
    }
    one, two = _coded(before), _coded(after)
    return {
        name: paired_bootstrap(one, two, statistic, seed=seed, clusters=clusters, unit=unit)
        for name, (statistic, unit) in statistics.items()
        if only in (None, name)
    }


def random_refusal(accuracy: float, rejection: float) -> float:
    """Reliability of whoever refuses a share of all questions at random: (1 - Rej) (Acc + Rej).

    Without knowing anything it reads 0.605 at an accuracy of 0.556 and a rejection of 0.222: a reliability means what
    it has above this line.

    Args:
        accuracy: of the baseline, before anything is refused.
        rejection: share of the questions that are refused.
    """
    return (1 - rejection) * (accuracy + rejection)


def _coded(outcomes: Sequence[Outcome]) -> Array:
    codes = {Outcome.CORRECT: _RIGHT, Outcome.ABSTAINED: _ABSTAINED}
    return np.array([codes.get(outcome, _WRONG) for outcome in outcomes], np.float64)


def _gain(before: Array, after: Array, normalize: Normalize, smoothing: float = 0.0) -> Gain:
    right, wrong = before == _RIGHT, before == _WRONG
    lost = float((right & (after != _RIGHT)).sum()) + smoothing
    removed = float((wrong & (after != _WRONG)).sum()) + smoothing
    group = normalize == "group"
    conservativeness = _share(lost, int(right.sum()) if group else len(before))
    humbleness = _share(removed, int(wrong.sum()) if group else len(before))
    return Gain(conservativeness, humbleness, _log_ratio(humbleness, conservativeness))


def _share(count: float, n: int) -> float:
    return count / n if n else math.nan


def _log_ratio(above: float, below: float) -> float:
    if math.isnan(above) or math.isnan(below) or above == below == 0:
        return math.nan
    if below == 0:
        return math.inf
    return -math.inf if above == 0 else math.log10(above / below)


def _end_state(coded: Array) -> EndState:
    return EndState(int((coded == _RIGHT).sum()), int((coded == _ABSTAINED).sum()), len(coded))


def _over_random_refusal(before: Array, after: Array) -> float:
    state = _end_state(after)
    return state.reliability - random_refusal(_end_state(before).accuracy, state.rejection)
