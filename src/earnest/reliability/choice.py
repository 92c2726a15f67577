"""Which K, and how strong: what adapters change on validation items, the rule that chooses, and both dials' plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earnest.finding import Curve, Metric
from earnest.grading import Outcome
from earnest.reliability.gain import gain_metrics
from earnest.statistics import end_state_metrics

MOST_ACCURACY_LOST = 0.03
DIAL = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Strengths that are swept."""
CHOSEN = "chosen"
"""Folder of the adapters that were chosen."""
CARD = "idk.json"
"""What was chosen and why, beside the folder of the chosen adapters."""

Measured = Mapping[str, Metric]


def measured(
    before: Sequence[Outcome], after: Sequence[Outcome], groups: Sequence[str] | None = None
) -> dict[str, Metric]:
    """Accuracy, rejection and gains of the same items [N]; with the group of each, `rgi_group.GROUP` of every one."""
    state = end_state_metrics(after)
    found = {"accuracy": state["accuracy"], "rejection": state["rejection"], **gain_metrics(before, after)}
    for group in dict.fromkeys(groups or ()):
        one, two = (
            [outcome for outcome, own in zip(outcomes, groups or (), strict=True) if own == group]
            for outcomes in (before, after)
        )
        found[f"rgi_group.{group}"] = gain_metrics(one, two, only="rgi_group")["rgi_group"]
    return found


def chosen_k(found: Mapping[int, Measured]) -> int:
    """K by a rule that was fixed before anything was measured.

    Of those that lose at most 3 points of accuracy, the one with the most reliability above a random refusal's; if all
    lose more, the one that loses least.
    """
    kept = [k for k, metrics in found.items() if metrics["accuracy_change"].value >= -MOST_ACCURACY_LOST - 1e-9]
    if not kept:
        return max(found, key=lambda k: found[k]["accuracy_change"].value)
    return max(kept, key=lambda k: found[k]["over_random_refusal"].value)


def said(metrics: Measured) -> str:
    """In a line."""
    return (
        f"accuracy {100 * metrics['accuracy_change'].value:+.1f} points, rejection "
        f"{100 * metrics['rejection'].value:.1f} %, RGI of each group {metrics['rgi_group'].value:.2f}, above random "
        f"refusal {100 * metrics['over_random_refusal'].value:+.1f} points"
        + "".join(
            f"; {name.removeprefix('rgi_group.')} {metric.value:.2f}"
            for name, metric in metrics.items()
            if name.startswith("rgi_group.")
        )
        + (f"; abstains at silence {100 * metrics['silence'].value:.1f} %" if "silence" in metrics else "")
    )


def card(key: str, k: int, by_k: Mapping[int, Measured], dial: Mapping[float, Measured]) -> dict[str, Any]:
    """What is noted of a choice.

    Args:
        key: content key of the model that the adapters are for.
        k: the chosen one.
        by_k: what each K changed.
        dial: what each strength of the chosen one changed.
    """
    return {
        "key": key,
        "k": k,
        "by_k": {str(each): _row(metrics) for each, metrics in by_k.items()},
        "dial": {f"{strength:g}": _row(metrics) for strength, metrics in dial.items()},
    }


def dial_curves(adapters: Path, key: str) -> list[Curve]:
    """K's and the dial's sweeps as plots.

    None if no card lies beside the adapters, if they are not those that were chosen (the card is not about the paper's
    K = 5 beside them), or if they were chosen for another model.

    Args:
        adapters: folder of the chosen ones.
        key: content key of the model that wears them.
    """
    file = adapters.parent / CARD
    if adapters.name != CHOSEN or not file.is_file():
        return []
    choice = json.loads(file.read_text("utf-8"))
    if choice["key"] != key:
        return []
    by_k = {at: _metrics(row) for at, row in choice["by_k"].items()}
    dial = {float(at): _metrics(row) for at, row in choice["dial"].items()}
    n = next(iter(by_k.values()))["accuracy"].n
    when = f"when the adapters were chosen, validation, n = {n}"
    x, y = ([metrics[name] for metrics in by_k.values()] for name in ("rejection", "accuracy"))
    title = f"accuracy against rejection, K = 1 to {len(by_k)} ({when})"
    found = [Curve.of(title, "K of N samples", "rejection", "accuracy", [metric.value for metric in x], y)]
    for name, axis in (
        ("conservativeness", "share"),
        ("humbleness", "share"),
        ("accuracy", "share"),
        ("rgi_total", "RGI"),
    ):
        title = f"adapter dial at K = {choice['k']} ({when})"
        own = title if axis == "share" else f"RGI (of all) along the {title}"
        found.append(Curve.of(own, name, "strength", axis, list(dial), [metrics[name] for metrics in dial.values()]))
    return found


def _row(metrics: Measured) -> dict[str, Any]:
    return {name: metric.to_json() for name, metric in metrics.items()}


def _metrics(row: Mapping[str, Any]) -> dict[str, Metric]:
    return {name: Metric.from_json(metric) for name, metric in row.items()}
