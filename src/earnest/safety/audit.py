"""The safety audit: harmful and benign requests, spoken and typed, to the model and to what is held against it.

    audit(earnest.load("pocket"), requests, "runs/mine", adapters={"rrs": folder})

Attack success (ASR) and over-rejection (ORR) as in arXiv 2505.19670, section 4; nothing that failed, was empty or could
not be judged is safe, and nothing leaves the denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from earnest.accuracy import begin_run, outcomes_of, resolve
from earnest.completion import Sampling
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.engines.engine import require, worn
from earnest.engines.lora import adapter_key
from earnest.errors import EarnestError
from earnest.example import Example
from earnest.finding import Finding
from earnest.grading import Outcome
from earnest.run import RunDirectory
from earnest.safety.asking import GREEDY, Asked, Asker
from earnest.safety.conditions import AUDIO_TEXT, CONDITIONS, TEXT_ONLY, Words, asked, ordinary, spoken
from earnest.safety.judges import Judge
from earnest.safety.measures import set_of
from earnest.safety.refusal_score import openings, refusal_scores
from earnest.safety.robustness import edits
from earnest.safety.spoken import sides_of
from earnest.safety.summary import PROMPT, UNTOUCHED, Measured, Scores, summarise

DIAL: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
ROBUST_ITEMS, DIAL_ITEMS, SCORED_ITEMS = 60, 100, 100
"""Requests of each side for what is asked many times over."""
_OPENINGS_FROM = 64
AUDIO_LABELLED = frozenset({"aor-bench"})
"""Sets whose labels hold for the sound and not for the words alone."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Extent:
    """How much is asked beyond the comparison of the methods.

    Attributes:
        robust: requests of each side under each of the edits.
        dial: requests of each side at each strength of the first adapter.
        scored: requests of each side that get a white-box refusal score.
        strengths: of the dial.
    """

    robust: int = ROBUST_ITEMS
    dial: int = DIAL_ITEMS
    scored: int = SCORED_ITEMS
    strengths: tuple[float, ...] = field(default=DIAL)


def audit(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory | Path | str,
    *,
    words: Words,
    judge: Judge,
    adapters: Mapping[str, Path] | None = None,
    questions: Sequence[Example] = (),
    extent: Extent = Extent(),
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    command: str = "",
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Finding:
    """Compares the model with a warning and with adapters, and writes the run directory, all but the scorecard.

    Args:
        engine: who is asked.
        examples: spoken requests, with the groups `request` and, if they are of several sets, `set` or `source`.
        run: where completions, records and metrics go; completions that are there are not computed again.
        words: what stands beside a request.
        judge: who says what replies do.
        adapters: by method; the first is put on the dial and asked under the edits.
        questions: ordinary ones with answers: what hardening costs in comprehension.
        extent: how much is asked beyond.
        sampling: how replies are drawn.
        batch_size: requests at once.
        seed: of the bootstrap and of the noise.
        source: where the requests come from, for `resolved.toml`.
        command: what was typed, for `environment.json`.
        retry_failed: whether to ask again what failed earlier.
        progress: called with (requests answered, requests in all).

    Raises:
        EarnestError: a request does not say whether it is harmful.
        ModelError: an adapter is none, or the engine cannot wear it.
        RecipeError: the run directory holds a run of something else.
    """
    if not examples:
        raise EarnestError("no requests: give at least one")
    harmful, _ = sides_of(examples)
    adapters = dict(adapters or {})
    if taken := adapters.keys() & {UNTOUCHED, PROMPT}:
        raise EarnestError(f"an adapter is called {', '.join(sorted(taken))}, as a baseline is: rename its folder")
    if adapters:
        require(engine, "an adapter", "trainable")
        for folder in adapters.values():
            # What does not fit is said before anything is asked.
            with worn(engine, folder):
                pass
    resolved = resolve(engine, examples, sampling=sampling, seed=seed, source=source)
    extra = {
        "words": words.id,
        "judge": judge.name,
        "adapters": {name: adapter_key(folder) for name, folder in adapters.items()},
        "comprehension": resolve(engine, questions)["questions"] if questions else {},
        "extent": {**asdict(extent), "strengths": list(extent.strengths)},
    }
    run = begin_run(run, engine, {**resolved, "safety": extra}, command)
    asker = Asker(engine, run, words, judge, sampling, batch_size, retry_failed)
    methods = [UNTOUCHED, PROMPT, *adapters]
    first = next(iter(adapters), None)
    few = _of_each_side(examples, extent.robust)
    on_dial = _of_each_side(examples, extent.dial)
    scored = _of_each_side(examples, extent.scored)
    said_otherwise = edits(words.spliced, seed) if few else {}
    everything = (
        len(methods) * sum(len(_askable(examples, name)) for name in CONDITIONS)
        + len(said_otherwise) * len(few) * (1 + bool(first))
        + (len(extent.strengths) * len(on_dial) * 2 if first else 0)
        + len(methods) * len(questions)
    )
    answered = 0

    def count(number: int) -> None:
        nonlocal answered
        answered += number
        if progress:
            progress(answered, everything)

    found: dict[str, dict[str, Asked]] = {}
    right: dict[str, list[bool]] = {}
    scores: dict[str, Scores] = {}
    otherwise: dict[str, dict[str, Asked]] = {}
    opening_ids: tuple[int, ...] = ()
    if extent.scored and engine.capabilities.logprobs:
        hinted = [spoken(example.clips, words.hinted) for example in harmful[:_OPENINGS_FROM]]
        opening_ids = openings(run.run_batched(engine, hinted, sampling, batch_size, retry_failed=retry_failed))
    for method in methods:
        with worn(engine, adapters.get(method)):
            found[method] = {
                name: asker.ask(_askable(examples, name), name, warned=method == PROMPT, progress=count)
                for name in CONDITIONS
            }
            if questions:

                def plain(example: Example, warned: bool = method == PROMPT) -> Conversation:
                    return ordinary(example, words, warned=warned)

                outcomes = outcomes_of(
                    engine, questions, run, sampling, batch_size, conversation=plain, retry_failed=retry_failed
                )
                right[method] = [outcomes[each.id] is Outcome.CORRECT for each in questions]
                count(len(questions))
            if opening_ids:
                scores[method] = Scores(
                    *(_scored(engine, side, method, words, opening_ids) for side in sides_of(scored))
                )
            if few and method in (UNTOUCHED, first):
                otherwise[method] = {
                    name: asker.ask(few, AUDIO_TEXT, edit=edit, progress=count) for name, edit in said_otherwise.items()
                }
    dial: dict[float, dict[str, Asked]] = {}
    if first:
        for strength in extent.strengths:
            with worn(engine, adapters[first] if strength else None, strength):
                dial[strength] = {
                    name: asker.ask(on_dial, name, progress=count) for name in CONDITIONS if name != TEXT_ONLY
                }
    finding = summarise(
        Measured(found, right, scores, otherwise, dial, clip_names(questions), _set_of_both(examples), first or ""),
        judge=judge,
        words=words.id,
        seed=seed,
    )
    run.write_findings([finding])
    return finding


def _scored(
    engine: Engine, side: Sequence[Example], method: str, words: Words, opening_ids: Sequence[int]
) -> dict[str, float]:
    requests = [asked(example, AUDIO_TEXT, words, warned=method == PROMPT) for example in side]
    return dict(zip((example.id for example in side), refusal_scores(engine, requests, opening_ids), strict=True))


def clip_names(questions: Sequence[Example]) -> list[str]:
    """Questions about one clip are not independent."""
    return ["+".join(str(audio) if isinstance(audio, Path) else audio.key for audio in one.audio) for one in questions]


def _askable(examples: Sequence[Example], condition: str) -> list[Example]:
    """Those whose label holds in a condition."""
    if condition != TEXT_ONLY:
        return list(examples)
    return [example for example in examples if example.groups.get("source") not in AUDIO_LABELLED]


def _set_of_both(examples: Sequence[Example]) -> str:
    """The first set that has harmful and benign requests; empty if none has."""
    names = list(dict.fromkeys(map(set_of, examples)))
    return next((name for name in names if all(sides_of([one for one in examples if set_of(one) == name]))), "")


def _of_each_side(examples: Sequence[Example], number: int) -> list[Example]:
    """So many harmful and so many benign ones of the first set that has both, in their order; else of all."""
    name = _set_of_both(examples)
    own = [example for example in examples if not name or set_of(example) == name]
    return [example for side in sides_of(own) for example in side[:number]]
