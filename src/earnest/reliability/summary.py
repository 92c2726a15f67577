"""What the reliability audit found, as tables, metrics and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from earnest.accuracy import UNREAD, hearing_account
from earnest.finding import Curve, Finding, Metric, Table
from earnest.grading import Outcome, Record
from earnest.reliability.fine_tuned import ALL, FINE_TUNED, cross_metrics
from earnest.reliability.gain import gain_metrics, random_refusal
from earnest.reliability.selective import risk_coverage, selective_metrics
from earnest.statistics import EndState, clusters_of, end_state_metrics, wilson

UNTOUCHED, FORCED = "untouched", "forced"
TOTAL = "all"

Asked = dict[str, tuple[list[Record], list[float | None]]]
"""Method to its records and how sure each answer was; "idk_sft/sound" is what one adapter said about all items."""

_GAINS = ("conservativeness", "humbleness", "rgi_total", "rgi_group")
_COLUMNS = (
    "method", "accuracy", "truthfulness", "rejection", "unread", "reliability", "random refusal in %", "above it",
    "right lost", "wrong removed", "RGI (of all)", "RGI (of each group)",
)  # fmt: skip
_NOTE = (
    "Unread: refused, malformed, unfinished or failed, which counts as wrong. "
    "Random refusal: the reliability of whoever refuses as many questions at random and else answers as if forced. "
    "Right lost and wrong removed are shares of all items against the untouched model; RGI is the log10 of their "
    "ratio, above 0 where the method is worth it."
)


def summarise(
    asked: Mapping[str, tuple[list[Record], list[float | None]]],
    clips: Sequence[str],
    shown: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
) -> Finding:
    """The finding "reliability" of what was said.

    Args:
        asked: with both baselines; see `Asked`.
        clips: the key of its clip for each item; questions about one clip are not independent.
        shown: names of the methods with the ids of their words.
        seed: of the bootstrap.
    """
    metrics: dict[str, Metric] = {}
    tables: list[Table] = []
    rows = {name: found for name, found in asked.items() if "/" not in name}
    outcomes = {name: [record.outcome for record in records] for name, (records, _) in asked.items()}
    for group, members in _groups(rows[UNTOUCHED][0]).items():
        own_clips = [clips[place] for place in members]
        of = {name: [outcomes[name][place] for place in members] for name in rows}
        table, found = _compared(group, of, clusters_of(own_clips), shown or {}, seed)
        metrics |= found
        tables.append(table)
    curves: list[Curve] = []
    for name, (records, sure) in rows.items():
        right = [record.outcome is Outcome.CORRECT for record in records]
        answered = [
            confidence if record.outcome in (Outcome.CORRECT, Outcome.WRONG) else None
            for record, confidence in zip(records, sure, strict=True)
        ]
        if any(confidence is not None for confidence in answered):
            found = selective_metrics(answered, right, seed=seed, clusters=clusters_of(clips))
            metrics |= {f"{name}.{key}": metric for key, metric in found.items()}
            curves.append(risk_coverage(answered, right, name))
    crossed = {
        name.removeprefix(f"{FINE_TUNED}/"): found
        for name, found in outcomes.items()
        if name.startswith(f"{FINE_TUNED}/")
    }
    if crossed and ALL not in crossed:
        modality = [record.groups["modality"] for record in rows[UNTOUCHED][0]]
        found, matrices = cross_metrics(outcomes[UNTOUCHED], crossed, modality, seed=seed, clusters=clusters_of(clips))
        metrics |= found
        tables += matrices
    known = [place for place, record in enumerate(rows[UNTOUCHED][0]) if record.outcome is Outcome.CORRECT]
    for name in rows:
        abstained = sum(outcomes[name][place] is Outcome.ABSTAINED for place in known)
        metrics[f"{name}.abstention_on_known"] = wilson(abstained, len(known))
    metrics["accuracy"] = metrics[f"{UNTOUCHED}.accuracy"]
    records = tuple({"method": name, **record.to_json()} for name, (said, _) in asked.items() for record in said)
    notes = (hearing_account(rows[UNTOUCHED][0]), "The headline is the untouched model's accuracy.")
    return Finding("reliability", metrics, tuple(tables), tuple(curves), records, notes)


def _compared(
    group: str,
    of: Mapping[str, Sequence[Outcome]],
    clusters: Sequence[str] | None,
    shown: Mapping[str, str],
    seed: int,
) -> tuple[Table, dict[str, Metric]]:
    """Every method against both baselines, on the items of a group."""
    metrics: dict[str, Metric] = {}
    rows: list[tuple[str | int | float | Metric | None, ...]] = []
    suffix = "" if group == TOTAL else f".{group}"
    for name, outcomes in of.items():
        state = end_state_metrics(outcomes, seed=seed, clusters=clusters)
        gains = gain_metrics(of[UNTOUCHED], outcomes, seed=seed, clusters=clusters)
        line = "over_random_refusal"
        over = gain_metrics(of[FORCED], outcomes, seed=seed, clusters=clusters, only=line)[line]
        metrics |= {f"{name}.{key}{suffix}": metric for key, metric in (state | gains).items()}
        metrics[f"{name}.over_random_refusal_of_forced{suffix}"] = over
        refused = random_refusal(EndState.of(of[FORCED]).accuracy, EndState.of(outcomes).rejection)
        rows.append(
            (
                shown.get(name, name),
                state["accuracy"],
                state["truthfulness"],
                state["rejection"],
                sum(outcome in UNREAD for outcome in outcomes),
                state["reliability"],
                100 * refused,
                over,
                *(None if name == UNTOUCHED else gains[key] for key in _GAINS),
            )
        )
    n = len(of[UNTOUCHED])
    return Table(f"Reliability: {group}, n = {n}", _COLUMNS, tuple(rows), _NOTE), metrics


def _groups(records: Sequence[Record]) -> dict[str, list[int]]:
    """All items, then those of each modality."""
    found: dict[str, list[int]] = {TOTAL: list(range(len(records)))}
    for place, record in enumerate(records):
        if "modality" in record.groups:
            found.setdefault(record.groups["modality"], []).append(place)
    return found
