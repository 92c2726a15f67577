"""What an audit does for each concern: how it asks, what it prints, and what is to be listened to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earnest.cli.console import console
from earnest.cli.data import World
from earnest.cli.tables import print_table
from earnest.finding import Finding, Table

if TYPE_CHECKING:
    from earnest.engines import Engine
    from earnest.example import Example
    from earnest.report.players import Pair
    from earnest.run import RunDirectory

SHOWN = ("accuracy", "grounding_precision", "grounding_recall", "narration_used", "paraphrase_lost", "holistic")
"""Metrics of faithfulness that are printed, beside the tables."""
Options = dict[str, Any]
"""What every audit takes: sampling, batch size, seed, ..."""


@dataclass(frozen=True)
class Concern:
    """One kind of audit, set up.

    Attributes:
        suffix: of the run directory's name.
        run: asks.
        show: prints what was found, and returns what a scorecard shows of it.
        made_of: what beside the model and the data makes a run another one.
        pairs: what is to be listened to before and after it was changed; called after `run`.
        make: the world's examples, where the user gives none.
        wears: adapter that the model wears from the start, where the user names none; None for none.
    """

    suffix: str
    run: Callable[[Engine, Sequence[Example], RunDirectory, Options], Finding]
    show: Callable[[Finding], Finding]
    made_of: list[str] = field(default_factory=list[str])
    pairs: Callable[[Sequence[Example]], Sequence[Pair]] = lambda _: ()
    make: Callable[[World, Path, Callable[[int, int], None]], list[Example]] = World.make
    wears: Path | None = None


def answers(question_only: bool) -> Concern:
    """Is it right?"""
    from earnest.accuracy import audit

    def run(engine: Engine, examples: Sequence[Example], folder: RunDirectory, options: Options) -> Finding:
        return audit(engine, examples, folder, question_only=question_only, **options)

    def show(finding: Finding) -> Finding:
        console.print(finding.notes[0], markup=False)
        _print_metrics(finding)
        return finding

    return Concern("-question-only" * question_only, run, show)


def reliability(words: str, adapters: dict[str, Path] | None, control_items: int | None, samples: int) -> Concern:
    """Does it know what it does not know?

    Args:
        words: key of `prompting.WORDS`.
        adapters: of IDK fine-tuning, by modality.
        control_items: questions of the controls; None for as many as usual.
        samples: whose agreement is the confidence; 0 for the answer's probability.
    """
    from earnest.engines.lora import adapter_key
    from earnest.grading import Outcome
    from earnest.reliability.audit import CONTROL_ITEMS, audit, untouched_alone
    from earnest.reliability.prompting import methods

    chosen = methods(words)
    asked_again = CONTROL_ITEMS if control_items is None else control_items
    keys = [adapter_key(folder) for folder in (adapters or {}).values()]

    def run(engine: Engine, examples: Sequence[Example], folder: RunDirectory, options: Options) -> Finding:
        return audit(
            engine,
            examples,
            folder,
            chosen=chosen,
            adapters=adapters,
            control_items=asked_again,
            samples=samples,
            **options,
        )

    def show(finding: Finding) -> Finding:
        # The modalities' own tables are in the scorecard.
        console.print(finding.notes[0], markup=False)
        for table in (finding.tables[0], *(table for table in finding.tables[1:] if _is_extra(table))):
            print_table(table)
        lost = [record for record in finding.records if record["outcome"] == Outcome.FAILED.value]
        if lost:
            console.print(f"{len(lost)} requests failed, of all methods", markup=False)
        finding = untouched_alone(finding)
        _print_metrics(finding)
        return finding

    made_of = [*(method.shown for method in chosen), str(asked_again), str(samples), *keys]
    return Concern("-reliability", run, show, made_of)


def faithfulness(
    words: str,
    probes: Sequence[str],
    judge: str | None,
    rewriter: str | None,
    user_turn: bool,
    split: str,
    seed: int,
    threads: int,
    examples: Sequence[Example] | None = None,
) -> Concern:
    """Is the reasoning grounded in the audio, and does the answer rest on it?

    Args:
        words: "pocket" for the world's closed language, else "general".
        probes: names of those to ask; all if empty.
        judge: name of the model that compares reasonings; None: by rules in the closed language, else nobody.
        rewriter: name of the model that rewrites reasonings; None as for the judge.
        user_turn: whether an edited reasoning stands in the user's turn.
        split: of the world, whose voices are injected.
        seed: of all that is drawn.
        threads: of torch.
        examples: the user's own, to be checked before a model is loaded.

    Raises:
        RecipeError: unknown words, or an unknown probe.
        ModelError: a judge or a rewriter that cannot be loaded, or does not answer.
        ManifestError: a timeline that cannot be read.
    """
    from dataclasses import replace

    from earnest.completion import Sampling, Stop
    from earnest.engines import load, model_key
    from earnest.errors import RecipeError
    from earnest.faithfulness.audit import audit, check_examples, check_probes, edited_clip
    from earnest.faithfulness.by_model import ModelJudge, ModelRewriter
    from earnest.faithfulness.closed import world_language
    from earnest.faithfulness.language import general_language
    from earnest.faithfulness.records import clean_alone, faults_of
    from earnest.report.players import Pair, player

    if words not in ("general", "pocket"):
        raise RecipeError(f"no words called {words!r}: known are general, pocket")
    language = world_language(split, seed) if words == "pocket" else general_language()
    check_probes(language, probes, rewriter=bool(rewriter or language.rewriter), in_user_turn=user_turn)
    if examples is not None:
        check_examples(examples)
    keys = [model_key(name) for name in (judge, rewriter) if name]
    full: list[Finding] = []
    lost: Counter[str] = Counter()
    sent: Counter[str] = Counter()

    def run(engine: Engine, examples: Sequence[Example], folder: RunDirectory, options: Options) -> Finding:
        nonlocal language
        batch_size, again = options["batch_size"], options["retry_failed"]
        others = {name: load(name, batch_size=batch_size, threads=threads) for name in {judge, rewriter} if name}
        for name, make, role in ((judge, ModelJudge, "judge"), (rewriter, ModelRewriter, "rewriter")):
            if name:

                def ask(asked: Sequence[Any], other: Any = others[name], role: str = role) -> list[Any]:
                    sampling = Sampling(max_new_tokens=256)
                    found = folder.run_batched(other, asked, sampling, batch_size, retry_failed=again)
                    lost[role] += sum(done.stop is Stop.FAILED for done in found)
                    sent[role] += len(found)
                    return found

                try_once(others[name], role)

                language = replace(language, **{role: make(name, ask)})
        full.append(
            audit(engine, examples, folder, language=language, probes=probes, in_user_turn=user_turn, **options)
        )
        return full[0]

    def show(finding: Finding) -> Finding:
        for note in finding.notes:
            console.print(note, markup=False)
        for role, count in lost.items():
            if count:
                console.print(
                    f"{role}: {count} of {sent[role]} requests failed; repeat with --retry-on-error", markup=False
                )
        for table in finding.tables:
            if table.rows:
                print_table(table)
        console.print(finding.tables[0].note, markup=False)
        for name, metric in finding.metrics.items():
            if name in SHOWN or name.startswith("aoc."):
                console.print(f"{name.replace('_', ' '):<34}{metric}", markup=False)
        return clean_alone(finding)

    def pairs(examples: Sequence[Example]) -> list[Pair]:
        by_id = {example.id: example for example in examples}
        found: list[Pair] = []
        for before, after, fault in faults_of(full[0]):
            example = by_id[before["id"]]
            clip = edited_clip(example, examples, language, after["probe"], after["value"], seed)
            found.append(Pair(fault, player(example, before), player(example, after, clip)))
        return found

    made_of = [words, split, ",".join(probes), str(user_turn), *keys]
    return Concern("-faithfulness", run, show, made_of, pairs)


def idk_adapters_of(
    model: str, base_url: str | None, folder: Path | None, examples: Sequence[Example] | None, *, bare: bool
) -> dict[str, Path] | None:
    """Adapters of IDK fine-tuning: those that are named, or pocket's own where they fit what is asked.

    Raises:
        ModelError: what is named cannot be used; nothing is loaded yet.
    """
    from earnest.engines.lora import require_peft
    from earnest.engines.server import served_model
    from earnest.errors import ModelError
    from earnest.pocket import idk_adapters
    from earnest.reliability.fine_tuned import find_adapters, require_own

    if folder and served_model(model, base_url):
        raise ModelError(f"{model} is behind a server, which takes no adapter from here: leave out --idk-adapters")
    own = folder or (idk_adapters() if model == "pocket" and bare else None)
    if own is None:
        return None
    found = find_adapters(own)
    try:
        require_own(found, examples or ())
        require_peft()
    except ModelError as error:
        if folder:
            raise
        console.print(f"pocket's adapters of IDK fine-tuning are left out: {error}", markup=False)
        return None
    return found


def _is_extra(table: Table) -> bool:
    """Whether a table of the reliability audit is about something else than one modality."""
    return not table.title.startswith("Reliability:")


def try_once(engine: Engine, role: str) -> None:
    """One request ahead of the audit.

    Raises:
        ModelError: it failed.
    """
    from earnest.completion import Sampling, Stop
    from earnest.conversation import Conversation
    from earnest.errors import ModelError

    (done,) = engine.generate([Conversation().user("Reply with yes.")], Sampling(max_new_tokens=8))
    if done.stop is Stop.FAILED:
        raise ModelError(f"the {role} {engine.name} does not answer ({done.error}): check its name and its server")


def _print_metrics(finding: Finding) -> None:
    for name, metric in finding.metrics.items():
        if name.startswith(("accuracy", "gain_over_question_only")):
            console.print(f"{name:<34}{metric}", markup=False)
