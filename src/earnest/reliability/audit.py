"""The reliability audit: every method against the untouched model and against a forced answer, on the same items.

    audit(earnest.load("pocket"), examples, "runs/mine", adapters=find_adapters(folder))

Two baselines, since a model that abstains by itself already stands above the line of a random refusal
(arXiv 2505.19294, sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from earnest.accuracy import SLICE_BATCHES, begin_run, require_answers, resolve
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.engines.engine import require, worn
from earnest.engines.lora import adapter_key
from earnest.errors import ManifestError, RecipeError
from earnest.example import Example
from earnest.finding import Curve, Finding
from earnest.grading import Outcome, answer_probability, grade, make_record, open_at_silence
from earnest.reliability.choice import dial_curves
from earnest.reliability.controls import conditions, control_findings, spread
from earnest.reliability.fine_tuned import ALL, FINE_TUNED, own_adapter, require_own
from earnest.reliability.prompting import Method, methods, wearing
from earnest.reliability.selective import agreement
from earnest.reliability.summary import FORCED, TOTAL, UNTOUCHED, Asked, summarise
from earnest.run import RunDirectory

GREEDY = Sampling()
CONTROLLED = (UNTOUCHED, "idk_prompt")
"""Methods that the controls ask, beside the fine-tuned model."""
CONTROL_ITEMS = 100

Progress = Callable[[int, int], None]
AskBy = Callable[[Method, Sequence[Example], Sampling], list[Completion]]


def audit(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory | Path | str,
    *,
    chosen: Sequence[Method] | None = None,
    adapters: Mapping[str, Path] | None = None,
    control_items: int = CONTROL_ITEMS,
    samples: int = 0,
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
        chosen: methods, the two baselines first; all that need no training if None.
        adapters: of IDK fine-tuning, by the modality that each was trained on (`fine_tuned.find_adapters`): with
            several, each is asked about everything, and `idk_sft` is each item's own.
        control_items: how many questions, of every modality alike, are asked again over silence, noise and other audio.
        samples: confidence is how many of so many samples (temperature 1) agree with the reply, as for a black box; 0:
            it is the answer's own probability, where the engine gives it.
        sampling: how replies are drawn.
        batch_size: questions at once.
        seed: of the bootstrap, of the noise and of the samples.
        source: where the examples come from, for `resolved.toml`.
        command: what was typed, for `environment.json`.
        retry_failed: whether to ask again what failed earlier.
        progress: called with (requests answered, requests in all), a method's request for one item counted as one.

    Raises:
        ManifestError: an example has no answer, or its modality is "all".
        ModelError: an adapter is none, a modality has none, or the engine cannot wear it.
        RecipeError: a baseline is missing, or the run directory holds a run of something else.
    """
    require_answers(examples)
    if named := [example.id for example in examples if example.groups.get("modality") == TOTAL]:
        fault = f"the modality is {TOTAL!r}, as the total is called: name it otherwise"
        raise ManifestError("the examples", [f"{name}: {fault}" for name in named])
    if missing := {UNTOUCHED, FORCED} - {method.name for method in chosen or methods()}:
        raise RecipeError(f"no method called {', '.join(sorted(missing))}: every gain is held against both baselines")
    if adapters:
        require(engine, "an adapter", "trainable")
        require_own(adapters, examples)
        for path in adapters.values():
            # What does not fit is said before anything is asked.
            with worn(engine, path):
                pass
    chosen = [
        *(chosen or methods()),
        *(wearing(f"{FINE_TUNED}/{name}", path) for name, path in (adapters or {}).items()),
    ]
    resolved = resolve(engine, examples, sampling=sampling, seed=seed, source=source)
    resolved |= {
        "concern": "reliability",
        "methods": [method.shown for method in chosen],
        "adapters": {name: adapter_key(path) for name, path in (adapters or {}).items()},
        "control_items": control_items,
        "samples": samples,
    }
    run = begin_run(run, engine, resolved, command)
    repeated = spread(examples, control_items, seed)
    controlled = [method for method in chosen if method.name in CONTROLLED or method.adapter]
    of_own = len({FINE_TUNED if method.adapter else method.name for method in controlled})
    total = len(examples) * len(chosen) * (1 + samples) + len(repeated) * len(conditions()) * of_own
    done = 0

    def ask(method: Method, asked: Sequence[Example], how: Sampling) -> list[Completion]:
        def answer(conversations: Sequence[Conversation]) -> list[Completion]:
            return run.run_batched(engine, conversations, how, batch_size, retry_failed=retry_failed)

        nonlocal done
        with worn(engine, method.adapter):
            found = method.answer(asked, answer)
        done += len(asked)
        if progress:
            progress(done, total)
        return found

    step = batch_size * SLICE_BATCHES
    drawn = [replace(sampling, temperature=1.0, seed=seed + number) for number in range(samples)]
    asked, clips, failed = ask_all(ask, examples, chosen, step, sampling, drawn)
    if adapters:
        asked[FINE_TUNED] = _own(asked, adapters)
    shown = {method.name: method.shown for method in chosen}
    finding = summarise(asked, clips, shown, seed=seed)
    if failed:
        note = f"{failed} samples failed; they do not count in how sure an answer is. --retry-failed asks them again."
        finding = replace(finding, notes=(*finding.notes, note))
    finding = replace(finding, curves=(*finding.curves, *_dials(adapters or {}, engine.key)))
    if repeated:
        outcomes = ask_controls(ask, repeated, controlled, adapters or {}, step, sampling, seed)
        unanswerable = {example.id for example in repeated if open_at_silence(example.choices)}
        metrics, table, curves = control_findings(outcomes, finding.metrics, unanswerable)
        finding = replace(
            finding,
            metrics=finding.metrics | metrics,
            tables=(*finding.tables, table),
            curves=(*finding.curves, *curves),
        )
    run.write_findings([finding])
    return finding


def ask_all(
    ask: AskBy,
    examples: Sequence[Example],
    chosen: Sequence[Method],
    step: int,
    sampling: Sampling = GREEDY,
    samples: Sequence[Sampling] = (),
) -> tuple[Asked, list[str], int]:
    """Asks every question by every method.

    Args:
        ask: who answers, and notes it.
        examples: the questions.
        chosen: the methods.
        step: questions whose clips are in memory at once.
        sampling: how replies are drawn.
        samples: how those are drawn whose agreement is the confidence; none: it is the answer's probability.

    Returns:
        What was said, the key of each example's clip, and how many samples failed: they neither agree nor disagree.
    """
    asked: Asked = {method.name: ([], []) for method in chosen}
    clips: list[str] = []
    failed = 0
    for start in range(0, len(examples), step):
        # Loaded once for all methods.
        part = [example.with_clips(*example.clips) for example in examples[start : start + step]]
        clips += ["+".join(clip.key for clip in example.clips) for example in part]
        for method in chosen:
            records, sure = asked[method.name]
            said = ask(method, part, sampling)
            others = [ask(method, part, how) for how in samples]
            for place, (example, completion) in enumerate(zip(part, said, strict=True)):
                record = make_record(example, completion)
                records.append(record)
                if others:
                    drawn = [each[place] for each in others if each[place].stop is not Stop.FAILED]
                    failed += len(others) - len(drawn)
                    answers = [grade(sample.text, sample.stop, example).answer for sample in drawn]
                    sure.append(agreement(answers, record.answer))
                else:
                    sure.append(answer_probability(completion))
    return asked, clips, failed


def ask_controls(
    ask: AskBy,
    examples: Sequence[Example],
    chosen: Sequence[Method],
    adapters: Mapping[str, Path],
    step: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Outcome]]]:
    """Asks over silence, noise and other audio: method, to condition, to outcome by the example's id.

    Args:
        ask: who answers, and notes it.
        examples: the questions.
        chosen: the methods; those with an adapter are one, and each is asked about its own items.
        adapters: see `audit`.
        step: questions whose clips are in memory at once.
        sampling: how replies are drawn.
        seed: of the noise.
    """
    names = {method.name: FINE_TUNED if method.adapter else method.name for method in chosen}
    found: dict[str, dict[str, dict[str, Outcome]]] = {name: {} for name in names.values()}
    for start in range(0, len(examples), step):
        part = [example.with_clips(*example.clips) for example in examples[start : start + step]]
        for condition, edited in conditions(seed).items():
            changed = edited(part)
            for method in chosen:
                own = [
                    example
                    for example in changed
                    if not method.adapter or method.name == f"{FINE_TUNED}/{own_adapter(adapters, example.groups)}"
                ]
                outcomes = found[names[method.name]].setdefault(condition, {})
                for example, completion in zip(own, ask(method, own, sampling) if own else [], strict=True):
                    outcomes[example.id] = grade(completion.text, completion.stop, example).outcome
    return found


def untouched_alone(finding: Finding) -> Finding:
    """The same with the untouched model's records alone: one for each item, as a scorecard shows them."""
    return replace(finding, records=tuple(row for row in finding.records if row["method"] == UNTOUCHED))


def _dials(adapters: Mapping[str, Path], key: str) -> list[Curve]:
    """Sweeps of K and of the dial, where a recipe chose these adapters and left its card beside them."""
    folders = {path.parent for name, path in adapters.items() if name != ALL}
    return [curve for folder in folders for curve in dial_curves(folder, key)]


def _own(asked: Asked, adapters: Mapping[str, Path]) -> tuple[list[Any], list[float | None]]:
    """Each item as the adapter of its own modality answered it."""
    every = [asked[f"{FINE_TUNED}/{own_adapter(adapters, record.groups)}"] for record in asked[UNTOUCHED][0]]
    return (
        [records[place] for place, (records, _) in enumerate(every)],
        [sure[place] for place, (_, sure) in enumerate(every)],
    )
