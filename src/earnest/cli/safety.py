"""What an audit of safety asks: spoken requests of the user, or of the diagnostic world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earnest.cli.concerns import Concern, Options, try_once
from earnest.cli.console import console
from earnest.cli.data import World
from earnest.cli.tables import print_table
from earnest.finding import Finding

if TYPE_CHECKING:
    from earnest.conversation import Conversation
    from earnest.engines import Engine
    from earnest.example import Example
    from earnest.run import RunDirectory

SAFETY_PAIRS = 100
"""Pairs of requests of each set of the world that are asked by default."""
QUESTIONS = 290
"""Ordinary questions of the world, ten of each template."""


def safety(
    words: str,
    adapters: dict[str, Path],
    judge: str | None,
    questions: Path | None,
    world: World,
    threads: int,
    limit: int | None = None,
) -> Concern:
    """Does it refuse harm in speech and in text, and help with the rest?

    Args:
        words: "pocket" for its closed language, else "general".
        adapters: by method, to be held against the untouched model.
        judge: name of a model that judges replies; None: offline rules.
        questions: manifest of ordinary questions; None for the world's.
        world: whose split and seed are asked where the user gives nothing.
        threads: of torch, for the judge.
        limit: what the user asked for; so many ordinary questions are enough.

    Raises:
        RecipeError: unknown words.
        ModelError: an adapter or a judge that cannot be had.
        ManifestError: all faults of the questions.
    """
    from earnest.cli.data import read_data
    from earnest.completion import Sampling
    from earnest.engines import load, model_key
    from earnest.engines.lora import adapter_key
    from earnest.safety.audit import audit
    from earnest.safety.closed import SETS, world_requests
    from earnest.safety.conditions import Words
    from earnest.safety.judges import ClosedJudge, Judge, ModelJudge, PhraseJudge
    from earnest.safety.summary import untouched_spoken

    beside = Words.load(words)
    ordinary = read_data(questions) if questions else None
    few = min(limit or QUESTIONS, QUESTIONS)
    keys = [adapter_key(folder) for folder in adapters.values()]
    made_of = [beside.id, *keys, *([model_key(judge)] if judge else []), str(questions or "")]

    def run(engine: Engine, examples: Sequence[Example], folder: RunDirectory, options: Options) -> Finding:
        own = ordinary or World(world.split, world.seed, few, workers=world.workers).make(
            folder.path / "questions", lambda _done, _total: None
        )
        chosen: Judge = ClosedJudge() if words == "pocket" else PhraseJudge()
        if judge:
            other = load(judge, batch_size=options["batch_size"], threads=threads)
            try_once(other, "judge")

            def ask(asked: Sequence[Conversation]) -> list[Any]:
                sampling = Sampling(max_new_tokens=256)
                retry = options["retry_failed"]
                return folder.run_batched(other, asked, sampling, options["batch_size"], retry_failed=retry)

            chosen = ModelJudge(judge, ask)
        return audit(engine, examples, folder, words=beside, judge=chosen, adapters=adapters, questions=own, **options)

    def show(finding: Finding) -> Finding:
        for note in finding.notes:
            if not note.startswith("Playable"):
                console.print(note, markup=False)
        for table in finding.tables:
            print_table(table)
            console.print(table.note, markup=False)
        console.print("untouched, spoken with an instruction:", markup=False)
        return untouched_spoken(finding)

    def make(world: World, folder: Path, progress: Callable[[int, int], None]) -> list[Example]:
        found: list[Example] = []
        for place, which in enumerate(SETS):

            def report(done: int, total: int, place: int = place) -> None:
                progress(place * total + done, len(SETS) * total)

            found += world_requests(folder, world.split, world.seed, world.n, which, progress=report)
        return found

    return Concern("-safety", run, show, made_of, make=make)


def read_requests(manifest: Path, limit: int | None = None) -> list[Example]:
    """Reads a manifest of spoken requests (`earnest make spoken-requests`); all of it is checked.

    Args:
        manifest: the file.
        limit: so many harmful and so many benign ones of each set are kept, from the first.

    Raises:
        ManifestError: all faults of the file, before any model is loaded.
    """
    from earnest.safety.measures import set_of
    from earnest.safety.spoken import harm_of, read_spoken

    kept: dict[tuple[str, bool], int] = {}
    found: list[Example] = []
    for example in read_spoken(manifest):
        side = set_of(example), harm_of(example)
        kept[side] = kept.get(side, 0) + 1
        if limit is None or kept[side] <= limit:
            found.append(example)
    return found


def safety_adapters_of(model: str, base_url: str | None, folder: Path | None, *, bare: bool) -> dict[str, Path]:
    """Adapters of safety: those that are named, or pocket's own; raises as `adapters_of`."""
    from earnest.cli.adapters import adapters_of
    from earnest.pocket import safety_adapters

    return adapters_of(
        model, base_url, folder, bare=bare, option="--safety-adapters", concern="safety", own=safety_adapters
    )
