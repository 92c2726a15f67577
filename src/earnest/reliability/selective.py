"""Selective prediction: if only the surest answers counted, how good would they be, and is the confidence honest?

Confidence is the answer's own probability (white-box) or how many of several samples agree with it (black-box). Equal
confidences are no order: within them the expected value over all orders is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earnest.finding import Curve, Metric
from earnest.grading.options import words
from earnest.statistics import bootstrap

Array = NDArray[np.float64]
BINS = 10


def risks(confidence: ArrayLike, correct: ArrayLike) -> Array:
    """Share of errors [N] among the 1, 2, ... N surest answers.

    Args:
        confidence: [N]; an item without an answer has 0.
        correct: [N] flags.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    assert sure.shape == right.shape, f"{sure.shape} confidences for {right.shape} answers"
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], 1.0 - right[order]
    # The mean within equal confidences stands at each of their places.
    _, first, count = np.unique(-sure, return_index=True, return_counts=True)
    even = np.repeat(np.add.reduceat(wrong, first) / count, count) if len(wrong) else wrong
    return np.cumsum(even) / np.arange(1, len(even) + 1)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean of `risks`; nan for no items."""
    found = risks(confidence, correct)
    return float(found.mean()) if len(found) else math.nan


def accuracy_at(coverage: float, confidence: ArrayLike, correct: ArrayLike) -> float:
    """Accuracy of the surest answers.

    Args:
        coverage: their share of all items, above 0 and at most 1; rounded up to whole items.
        confidence: [N].
        correct: [N] flags.
    """
    assert 0 < coverage <= 1, f"a coverage of {coverage}"
    found = risks(confidence, correct)
    # 0.8 * 10 is above 8 by rounding.
    return 1.0 - float(found[math.ceil(coverage * len(found) - 1e-9) - 1]) if len(found) else math.nan


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighed by their items."""
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if not len(sure):
        return math.nan
    place = np.minimum((sure * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(place, weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance of confidence and correctness."""
    difference = np.asarray(confidence, np.float64) - np.asarray(correct, np.float64)
    return float(np.mean(difference**2)) if len(difference) else math.nan


def selective_metrics(
    confidence: Sequence[float | None],
    correct: Sequence[bool],
    *,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> dict[str, Metric]:
    """`aurc`, `accuracy_at_80`, `ece` and `brier` with bootstrap intervals.

    Args:
        confidence: [N], 0 to 1; None for an item without an answer: it ranks last and is not right, and it does not
            take part in `ece` and `brier`, whose n says so.
        correct: [N].
        seed: of the bootstrap.
        clusters: [N] name of each item's cluster (its clip).
    """
    answered = [place for place, sure in enumerate(confidence) if sure is not None]
    everyone = np.array(
        [(sure or 0.0, right and sure is not None) for sure, right in zip(confidence, correct, strict=True)]
    )
    rows = everyone.reshape(-1, 2).astype(np.float64)
    of_answered = None if clusters is None else [clusters[place] for place in answered]
    ranked: dict[str, Callable[[Array], float]] = {
        "aurc": lambda drawn: aurc(drawn[:, 0], drawn[:, 1]),
        "accuracy_at_80": lambda drawn: accuracy_at(0.8, drawn[:, 0], drawn[:, 1]),
    }
    honest: dict[str, Callable[[Array], float]] = {
        "ece": lambda drawn: expected_calibration_error(drawn[:, 0], drawn[:, 1]),
        "brier": lambda drawn: brier(drawn[:, 0], drawn[:, 1]),
    }
    found = {name: bootstrap(rows, what, seed=seed, clusters=clusters) for name, what in ranked.items()}
    return found | {
        name: bootstrap(rows[answered], what, seed=seed, clusters=of_answered) for name, what in honest.items()
    }


def risk_coverage(confidence: Sequence[float | None], correct: Sequence[bool], label: str) -> Curve:
    """The risk-coverage curve, at most 200 points of it."""
    right = [flag and sure is not None for sure, flag in zip(confidence, correct, strict=True)]
    found = risks([sure or 0.0 for sure in confidence], right)
    places = np.unique(np.linspace(0, len(found) - 1, min(len(found), 200)).round().astype(np.intp))
    return Curve(
        "errors among the surest answers",
        label,
        "coverage",
        "share of errors",
        tuple(float(place + 1) / len(found) for place in places),
        tuple(float(found[place]) for place in places),
    )


def agreement(answers: Sequence[str], answer: str) -> float | None:
    """Share of sampled answers that are this one, but for case and articles: the confidence of a black box.

    None if there is no sample.
    """
    own = words(answer)
    return sum(words(other) == own for other in answers) / len(answers) if answers else None
