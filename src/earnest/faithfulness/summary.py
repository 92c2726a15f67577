"""What the faithfulness audit found: metrics, tables and curves of what was said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from earnest.accuracy import hearing_account
from earnest.example import Example
from earnest.faithfulness.criteria import criteria, mean, share
from earnest.faithfulness.curves import curves
from earnest.faithfulness.levels import Levels
from earnest.faithfulness.measures import Row, Rows
from earnest.faithfulness.presence import is_told
from earnest.faithfulness.probes import AGAIN, MASK, NO_REASONING, NOISE, QUESTION_ONLY, SILENCE, SNRS_DB, SWAPPED
from earnest.faithfulness.records import records_of
from earnest.faithfulness.tables import (
    attack_table,
    controls_table,
    criteria_table,
    guided_table,
    left_out_table,
    levels_table,
)
from earnest.finding import Finding, Metric
from earnest.grading import Outcome, open_at_silence
from earnest.statistics import bootstrap, clusters_of


def summarise(
    rows: Rows,
    examples: Sequence[Example],
    left_out: Mapping[tuple[str, str], int] | None = None,
    *,
    judge: bool = True,
    seed: int = 0,
) -> Finding:
    """The finding "faithfulness" of what was said.

    Args:
        rows: all that was said; every item's clean reply among it.
        examples: [N] the items.
        left_out: (probe, reason) to the number of items that it could not be done to.
        judge: whether there was one.
        seed: of the bootstrap.
    """
    levels = Levels(rows, seed)
    clean = levels.clean
    speech = [example.groups.get("modality") == "speech" for example in examples]
    scores = criteria(rows, speech, seed)
    metrics = {"accuracy": levels.of(clean).accuracy, **scores}
    metrics |= _silences(levels) | _grounding(clean, seed) | _narration(clean, examples, seed)
    chance = {item: 1 / len(row.record.choices) for item, row in clean.items() if row.record.choices}
    if chance:
        metrics["chance"] = mean(chance, clean, seed)
    metrics |= _by_level(levels)
    tables = [
        criteria_table(scores, metrics),
        controls_table(levels, metrics.get("chance")),
        *levels_table(levels),
        *attack_table(levels),
        *guided_table(levels, speech),
        *left_out_table(left_out or {}),
    ]
    notes = [hearing_account([row.record for row in clean.values()]), "The headline is the accuracy on clean audio."]
    lost = Counter(row.probe for row in rows.all if row.failed)
    if lost:
        where = ", ".join(f"{count} of {probe}" for probe, count in lost.most_common())
        notes.append(
            f"{sum(lost.values())} of {len(rows.all)} requests failed ({where}): none counts in the model's favour."
        )
    if not judge:
        notes.append(
            "Nobody judged: without --judge there is no CoT consistency, and nothing is known of claims at silence."
        )
    return Finding("faithfulness", metrics, tuple(tables), tuple(curves(levels)), records_of(rows), tuple(notes))


def _silences(levels: Levels) -> dict[str, Metric]:
    """Abstention and claims where there is nothing, or hardly anything, to hear; `open`: no choice is right there."""
    silent = levels.rows.at(SILENCE)
    unsettled = {item: row for item, row in silent.items() if open_at_silence(row.record.choices)}
    found: dict[str, Metric] = {}
    for name, level in (
        ("silence", levels.at(SILENCE)),
        ("silence_open", levels.of(unsettled) if unsettled else None),
        ("noise", levels.at(NOISE, SNRS_DB[-1])),
    ):
        if level is not None:
            found[f"abstention.{name}"] = level.abstained
            if level.claims is not None:
                found[f"claims_at_{name}"] = level.claims
    return found


def _by_level(levels: Levels) -> dict[str, Metric]:
    """Accuracy and the like of controls and attacks, and along noise and masks (`noise_-20`, `mask_40`)."""
    found: dict[str, Metric] = {}
    for probe in (NO_REASONING, QUESTION_ONLY):
        if level := levels.at(probe):
            found |= {f"accuracy.{probe}": level.accuracy, f"consistency.{probe}": level.consistency}
    for probe in levels.rows.probes:
        if probe.startswith("attack_") and (level := levels.at(probe)):
            found[f"accuracy.{probe}"] = level.accuracy
    for probe in (AGAIN, SWAPPED, SILENCE, NOISE, MASK):
        for value, level in levels.of_probe(probe).items():
            name = {NOISE: f"noise_{value:g}", MASK: f"mask_{100 * value:g}"}.get(probe, probe)
            found |= {f"accuracy.{name}": level.accuracy, f"consistency.{name}": level.consistency}
            found[f"abstained.{name}"] = level.abstained
            if level.agreement is not None:
                found[f"agreement.{name}"] = level.agreement
    return found


def _grounding(clean: Mapping[int, Row], seed: int) -> dict[str, Metric]:
    """Claims that are true, and events that hold the answer and are mentioned; pooled over the items."""
    held = [(row.clip, row.grounding) for row in clean.values() if row.grounding is not None]
    found: dict[str, Metric] = {}
    for name, part, whole in (("precision", "true", "claims"), ("recall", "mentioned", "relevant")):
        pairs = [(clip, getattr(each, part), getattr(each, whole)) for clip, each in held if getattr(each, whole)]
        if pairs:
            found[f"grounding_{name}"] = bootstrap(
                [(some, of) for _, some, of in pairs],
                lambda drawn: float(drawn[:, 0].sum() / drawn[:, 1].sum()),
                seed=seed,
                clusters=clusters_of([clip for clip, _, _ in pairs]),
            )
    return found


def _narration(clean: Mapping[int, Row], examples: Sequence[Example], seed: int) -> dict[str, Metric]:
    """Accuracy where a voice that belongs to the clip tells the answer: trust that is right."""
    told = {item: row.record.outcome is Outcome.CORRECT for item, row in clean.items() if is_told(examples[item])}
    return {"narration_used": share(told, clean, seed)} if told else {}
