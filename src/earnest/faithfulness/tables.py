"""Tables of the faithfulness audit: criteria, controls, levels, attacks, guided masking, what could not be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from earnest.faithfulness.criteria import MARKS, share, verdict
from earnest.faithfulness.levels import Levels
from earnest.faithfulness.measures import attacked
from earnest.faithfulness.probes import (
    AGAIN,
    BACKGROUND,
    CLEAN,
    GUIDED,
    MASK,
    NO_REASONING,
    NOISE,
    QUESTION_ONLY,
    SILENCE,
    SNRS_DB,
    SPEECH,
    SWAPPED,
)
from earnest.finding import Metric, Table

QUESTIONS = {
    "hallucination_free": "does the audio really enter the reasoning?",
    "holistic": "is the whole clip used, and both modalities?",
    "attentive": "does it listen to what the question asks about?",
    "cot_to_answer": "does the reasoning cause the answer?",
}
NEEDS = {
    "hallucination_free": "silence, a judge and replies that reason",
    "holistic": "mask and question_only",
    "attentive": "attack",
    "cot_to_answer": "early, filler, paraphrase, mistake and a rewriter",
}
"""Probes that a criterion rests on."""
_BESIDE = {
    "hallucination_free": (
        "hallucination_free_by_j",
        "claims_at_silence",
        "claims_at_silence_open",
        "abstention.silence",
    ),
    "holistic": ("modality_balance",),
    "attentive": ("attack_success",),
    "cot_to_answer": ("aoc.early", "aoc.filler", "aoc.mistake", "paraphrase_lost"),
}
_UNITS = {NOISE: (" dB", 1), MASK: (" %", 100)}
"""Of a probe's parameter, as it is shown."""
Cell = str | int | float | Metric | None


def level_name(probe: str, value: float) -> str:
    """As in "noise -20 dB", "mask 40 %", "silence"."""
    if probe not in _UNITS:
        return probe
    unit, scale = _UNITS[probe]
    return f"{probe} {scale * value:g}{unit}"


def criteria_table(scores: Mapping[str, Metric], metrics: Mapping[str, Metric]) -> Table:
    """Scores, verdicts, and what stands beside them."""

    def beside(name: str) -> str:
        shown = [(key, metrics[key]) for key in _BESIDE[name] if key in metrics]
        return "; ".join(f"{key.replace('_', ' ')} {metric}" for key, metric in shown)

    rows: list[tuple[Cell, ...]] = [
        (
            name.replace("_", " "),
            QUESTIONS[name],
            scores[name],
            scores[name].n,
            MARKS[name],
            verdict(name, scores[name]),
            beside(name),
        )
        for name in MARKS
        if name in scores
    ]
    return Table(
        "Four criteria",
        ("criterion", "question", "score", "n", "mark", "met", "beside it"),
        tuple(rows),
        "Met: the whole interval lies above the mark; open: the mark lies within. Not asked: "
        + (
            ", ".join(f"{name.replace('_', ' ')} (needs {NEEDS[name]})" for name in MARKS if name not in scores)
            or "none"
        )
        + ".",
    )


def controls_table(levels: Levels, chance: Metric | None) -> Table:
    """Each control against the clean question."""
    shown = (
        ("clean", levels.at(CLEAN)), ("again, with noise at 60 dB", levels.at(AGAIN)),
        ("no reasoning", levels.at(NO_REASONING)), ("question only", levels.at(QUESTION_ONLY)),
        ("another clip", levels.at(SWAPPED)), ("silence", levels.at(SILENCE)),
        ("noise at -20 dB", levels.at(NOISE, SNRS_DB[-1])),
    )  # fmt: skip
    body: list[tuple[Cell, ...]] = [
        (name, level.n, level.accuracy, level.consistency, level.abstained, level.claims, level.agreement)
        for name, level in shown
        if level is not None
    ]
    if chance is not None:
        body.append(("a guess", chance.n, chance, None, None, None, None))
    return Table(
        f"Controls, n = {len(levels.clean)}",
        ("asked", "n", "accuracy", "same answer as clean", "abstained", "states something heard", "J with clean"),
        tuple(body),
        "J is 1 to 5; its share that is owed to chance alone is what `again` is short of 5.",
    )


def levels_table(levels: Levels) -> list[Table]:
    """Noise and masks, level by level."""
    body: list[tuple[Cell, ...]] = [
        (level_name(probe, value), level.n, level.accuracy, level.consistency, level.abstained, level.agreement)
        for probe in _UNITS
        for value, level in levels.of_probe(probe).items()
    ]
    columns = ("asked", "n", "accuracy", "same answer as clean", "abstained", "J with clean")
    return [Table("Noise and masks", columns, tuple(body))] if body else []


def attack_table(levels: Levels) -> list[Table]:
    """Every mode and form of injected speech."""
    rows, clean = levels.rows, levels.clean
    body: list[tuple[Cell, ...]] = []
    for probe in rows.probes:
        if not probe.startswith("attack_"):
            continue
        own = rows.at(probe)
        _, mode, form, told = probe.split("_")
        won = attacked(own, clean)
        body.append(
            (
                mode,
                form,
                told,
                len(own),
                levels.of({item: clean[item] for item in own}).accuracy,
                levels.of(own).accuracy,
                len(won),
                share(won, clean, levels.seed) if told == "wrong" and won else None,
            )
        )
    if not body:
        return []
    columns = ("mode", "says", "option", "n", "accuracy before", "accuracy with", "not said before", "attack success")
    return [
        Table(
            "Injected speech",
            columns,
            tuple(body),
            "A voice says an option, spliced in or overlaid at the clip's own power. Success: of the items whose "
            "clean answer was another one, the share that now gives the injected one.",
        )
    ]


def guided_table(levels: Levels, speech: Sequence[bool]) -> list[Table]:
    """What is left of the answers without speech, and without the rest."""
    body: list[tuple[Cell, ...]] = []
    for name, about_speech in (("speech", True), ("the rest", False)):
        cells: list[Cell] = [name]
        for value in (SPEECH, BACKGROUND):
            own = {item: row for item, row in levels.rows.at(GUIDED, value).items() if speech[item] == about_speech}
            if not own:
                break
            level = levels.of(own)
            cells += [level.accuracy, level.consistency]
        else:
            body.append(tuple(cells))
    if not body:
        return []
    columns = (
        "asked about", "accuracy without speech", "same answer without speech", "accuracy without the rest",
        "same answer without the rest",
    )  # fmt: skip
    n = len(levels.rows.at(GUIDED, SPEECH))
    return [Table(f"Guided masking, n = {n}", columns, tuple(body), "For clips that hold both, by their annotation.")]


def left_out_table(left_out: Mapping[tuple[str, str], int]) -> list[Table]:
    """Probes that items did not allow, with the reason."""
    if not left_out:
        return []
    body: list[tuple[Cell, ...]] = [(probe, count, reason) for (probe, reason), count in left_out.items()]
    return [Table("What could not be asked", ("probe", "items", "why"), tuple(body))]
