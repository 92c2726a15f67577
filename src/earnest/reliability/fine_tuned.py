"""Models fine-tuned to abstain: adapters, one for each modality or one for all, and the cross-modality matrix.

The paper trains one adapter on each of sound, music and speech, and asks what each is worth on the two others
(arXiv 2505.19294, section 5.3: "meta ability").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from earnest.engines.lora import CONFIG, adapters_in
from earnest.errors import ModelError
from earnest.example import Example
from earnest.finding import Metric, Table
from earnest.grading import Outcome
from earnest.reliability.gain import gain_metrics

FINE_TUNED = "idk_sft"
ALL = "all"
"""Name of an adapter that serves every modality."""


def find_adapters(folder: Path) -> dict[str, Path]:
    """What an adapter was trained on, to its folder.

    Args:
        folder: an adapter as peft saves it, for all modalities; or one such folder for each: `sound/`, `music/` ...

    Raises:
        ModelError: it holds neither.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}: give one with adapters that peft saved")
    found = adapters_in(folder, ALL)
    if not found:
        raise ModelError(f"{folder} holds no adapter: give a folder with {CONFIG}, or with one such folder a modality")
    return found


def require_own(adapters: Mapping[str, Path], examples: Sequence[Example]) -> None:
    """Checks that every question has its adapter.

    Raises:
        ModelError: a modality has none.
    """
    if ALL in adapters:
        return
    without = [example for example in examples if example.groups.get("modality", "") not in adapters]
    if without:
        named = ", ".join(sorted({example.groups.get("modality", "none") for example in without}))
        raise ModelError(
            f"{len(without)} of {len(examples)} questions have a modality without an adapter ({named}), such as "
            f"{without[0].id}: name one of {', '.join(sorted(adapters))} in a column 'modality', or give the folder "
            "of a single adapter, which then answers everything"
        )


def own_adapter(adapters: Mapping[str, Path], example_groups: Mapping[str, str]) -> str:
    """Name of the adapter of a question's modality."""
    return ALL if ALL in adapters else example_groups["modality"]


def cross_metrics(
    before: Sequence[Outcome],
    after: Mapping[str, Sequence[Outcome]],
    modality: Sequence[str],
    *,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> tuple[dict[str, Metric], tuple[Table, ...]]:
    """What each adapter is worth on each modality.

    Args:
        before: [N] outcomes of the untouched model.
        after: modality that an adapter was trained on, to [N] outcomes of the same items.
        modality: [N] of each item.
        seed: of the bootstrap.
        clusters: [N] name of each item's cluster (its clip).

    Returns:
        Metrics `cross.A_to_B` (RGI, of each group), `cross_total.A_to_B` and `cross_accuracy.A_to_B`, and a table each.
    """
    tested = list(dict.fromkeys(modality))
    metrics: dict[str, Metric] = {}
    for trained, outcomes in after.items():
        for name in tested:
            places = [place for place, each in enumerate(modality) if each == name]
            own = None if clusters is None else [clusters[place] for place in places]
            gains = gain_metrics(
                [before[place] for place in places], [outcomes[place] for place in places], seed=seed, clusters=own
            )
            for kind, key in _CROSS.items():
                metrics[f"{kind}.{trained}_to_{name}"] = gains[key]
    tables = tuple(
        Table(
            f"Trained on one modality, asked about each: {title}",
            ("trained on", *(f"on {name}" for name in tested)),
            tuple((trained, *(metrics[f"{kind}.{trained}_to_{name}"] for name in tested)) for trained in after),
        )
        for kind, title in _TITLES.items()
    )
    return metrics, tables


_CROSS = {"cross": "rgi_group", "cross_total": "rgi_total", "cross_accuracy": "accuracy_change"}
_TITLES = {"cross": "RGI (of each group)", "cross_total": "RGI (of all)", "cross_accuracy": "change of accuracy"}
