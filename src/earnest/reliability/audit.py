"""The reliability audit: every method against the untouched model and against a forced answer, on the same items.

    audit(earnest.load("pocket"), examples, "runs/mine")

Two baselines, since a model that abstains by itself already stands above the line of a random refusal
(arXiv 2505.19294, sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from earnest.accuracy import SLICE_BATCHES, begin_run, hearing_account, require_answers, resolve
from earnest.completion import Completion, Sampling
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.example import Example
from earnest.finding import Curve, Finding, Metric, Table
from earnest.grading import Outcome, Record, answer_probability, make_record
from earnest.reliability.gain import gain_metrics, random_refusal
from earnest.reliability.prompting import Method, methods
from earnest.reliability.selective import risk_coverage, selective_metrics
from earnest.run import RunDirectory
from earnest.statistics import EndState, end_state_metrics

GREEDY = Sampling()
UNTOUCHED, FORCED = "untouched", "forced"

Progress = Callable[[int, int], None]
Asked = dict[str, tuple[list[Record], list[float | None]]]
"""Method to its records and how sure each answer was."""


def ask_all(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory,
    chosen: Sequence[Method],
    *,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> tuple[Asked, list[str]]:
    """Asks every question by every method; what the run directory holds is not computed again.

    Returns:
        What was said, and the key of each example's clip.
    """
    asked: Asked = {method.name: ([], []) for method in chosen}
    clips: list[str] = []

    def ask(conversations: Sequence[Conversation]) -> list[Completion]:
        return run.run_batched(engine, conversations, sampling, batch_size, retry_failed=retry_failed)

    step = batch_size * SLICE_BATCHES
    for start in range(0, len(examples), step):
        # Loaded once for all methods.
        part = [example.with_clips(*example.clips) for example in examples[start : start + step]]
        clips += ["+".join(clip.key for clip in example.clips) for example in part]
        for number, method in enumerate(chosen):
            records, sure = asked[method.name]
            for example, completion in zip(part, method.answer(part, ask), strict=True):
                records.append(make_record(example, completion))
                sure.append(answer_probability(completion))
            if progress:
                progress(start * len(chosen) + (number + 1) * len(part), len(examples) * len(chosen))
    return asked, clips


def audit(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory | Path | str,
    *,
    chosen: Sequence[Method] | None = None,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    command: str = "",
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Finding:
    """Compares the methods and writes the run directory, all but the scorecard.

    Args:
        engine: who is asked.
        examples: the questions, with answers.
        run: where completions, records and metrics go; completions that are there are not computed again.
        chosen: methods; all that need no training if None. The two baselines are always asked.
        sampling: how replies are drawn.
        batch_size: questions at once.
        seed: of the bootstrap.
        source: where the examples come from, for `resolved.toml`.
        command: what was typed, for `environment.json`.
        retry_failed: whether to ask again what failed earlier.
        progress: called with (questions asked, questions in all).

    Raises:
        ManifestError: an example has no answer.
        RecipeError: the run directory holds a run of something else.
    """
    require_answers(examples)
    wanted = {method.name: method for method in methods()[:2]} | {m.name: m for m in chosen or methods()}
    shown = {name: method.shown for name, method in wanted.items()}
    resolved = resolve(engine, examples, sampling=sampling, seed=seed, source=source)
    resolved |= {"concern": "reliability", "methods": list(shown.values())}
    run = begin_run(run, engine, resolved, command)
    asked, clips = ask_all(
        engine,
        examples,
        run,
        list(wanted.values()),
        sampling=sampling,
        batch_size=batch_size,
        retry_failed=retry_failed,
        progress=progress,
    )
    finding = summarise(asked, clips, shown, seed=seed)
    run.write_findings([finding])
    return finding


def summarise(asked: Asked, clips: Sequence[str], shown: dict[str, str] | None = None, *, seed: int = 0) -> Finding:
    """The finding "reliability" of what was said.

    Args:
        asked: with both baselines.
        clips: the key of its clip for each item; questions about one clip are not independent.
        shown: names of the methods with the ids of their words.
        seed: of the bootstrap.
    """
    shown = shown or {}
    metrics: dict[str, Metric] = {}
    tables: list[Table] = []
    for group, members in _groups(asked[UNTOUCHED][0]).items():
        rows: list[tuple[str | int | float | Metric | None, ...]] = []
        own_clips = [clips[place] for place in members]
        clusters = own_clips if len(set(own_clips)) < len(own_clips) else None
        of = {name: [records[place].outcome for place in members] for name, (records, _) in asked.items()}
        for name, outcomes in of.items():
            state = end_state_metrics(outcomes, seed=seed, clusters=clusters)
            gains = gain_metrics(of[UNTOUCHED], outcomes, seed=seed, clusters=clusters)
            over = gain_metrics(of[FORCED], outcomes, seed=seed, clusters=clusters)["over_random_refusal"]
            suffix = "" if group == TOTAL else f".{group}"
            metrics |= {f"{name}.{key}{suffix}": metric for key, metric in (state | gains).items()}
            metrics[f"{name}.over_random_refusal_of_forced{suffix}"] = over
            line = random_refusal(EndState.of(of[FORCED]).accuracy, EndState.of(outcomes).rejection)
            rows.append(
                (
                    shown.get(name, name),
                    state["accuracy"],
                    state["truthfulness"],
                    state["rejection"],
                    state["reliability"],
                    100 * line,
                    over,
                    *(None if name == UNTOUCHED else gains[key] for key in _GAINS),
                )
            )
        tables.append(Table(f"Reliability: {group}, n = {len(members)}", _COLUMNS, tuple(rows), _NOTE))
    curves: list[Curve] = []
    for name, (records, sure) in asked.items():
        right = [record.outcome is Outcome.CORRECT for record in records]
        answered = [
            confidence if record.outcome in (Outcome.CORRECT, Outcome.WRONG) else None
            for record, confidence in zip(records, sure, strict=True)
        ]
        if any(confidence is not None for confidence in answered):
            clusters = clips if len(set(clips)) < len(clips) else None
            found = selective_metrics(answered, right, seed=seed, clusters=clusters)
            metrics |= {f"{name}.{key}": metric for key, metric in found.items()}
            curves.append(risk_coverage(answered, right, name))
    metrics["accuracy"] = metrics[f"{UNTOUCHED}.accuracy"]
    records = tuple({"method": name, **record.to_json()} for name, (rows, _) in asked.items() for record in rows)
    notes = (hearing_account(asked[UNTOUCHED][0]), "The headline is the untouched model's accuracy.")
    return Finding("reliability", metrics, tuple(tables), tuple(curves), records, notes)


def untouched_alone(finding: Finding) -> Finding:
    """The same with the untouched model's records alone: one for each item, as a scorecard shows them."""
    return replace(finding, records=tuple(row for row in finding.records if row["method"] == UNTOUCHED))


TOTAL = "all"
_GAINS = ("conservativeness", "humbleness", "rgi_total", "rgi_group")
_COLUMNS = (
    "method", "accuracy", "truthfulness", "rejection", "reliability", "random refusal in %", "above it",
    "right lost", "wrong removed", "RGI (of all)", "RGI (of each group)",
)  # fmt: skip
_NOTE = (
    "Random refusal: the reliability of whoever refuses as many questions at random and else answers as if forced. "
    "Right lost and wrong removed are shares of all items against the untouched model; RGI is the log10 of their "
    "ratio, above 0 where the method is worth it."
)


def _groups(records: Sequence[Record]) -> dict[str, list[int]]:
    """All items, then those of each modality."""
    found: dict[str, list[int]] = {TOTAL: list(range(len(records)))}
    for place, record in enumerate(records):
        if "modality" in record.groups:
            found.setdefault(record.groups["modality"], []).append(place)
    return found
