"""What an audit of re-listening asks: long scenes of the diagnostic world, or the user's questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from earnest.cli.concerns import Concern, Options
from earnest.cli.console import console
from earnest.cli.data import World, read_data
from earnest.cli.tables import print_table
from earnest.finding import Finding

if TYPE_CHECKING:
    from earnest.asking import Reply
    from earnest.audio import Clip
    from earnest.engines import Engine
    from earnest.example import Example
    from earnest.relistening.segments import Segment
    from earnest.run import RunDirectory

RELISTENING_ITEMS = 100
"""Of the world, each asked under about ten conditions."""


def relistening(words: str, adapters: dict[str, Path], total_s: float | None, *, of_world: bool) -> Concern:
    """Is what it goes back to worth hearing again?

    Args:
        words: "pocket" for its closed language, else "general".
        adapters: stages of a training, in order; the ears that they come with are worn from the start.
        total_s: seconds that a reply may hear again; None for as many as usual.
        of_world: whether the world's long scenes are asked about: another version of them is another run.

    Raises:
        RecipeError: unknown words.
        ModelError: the adapters come with different ears.
        EarnestError: a number of seconds below 0.
    """
    from earnest.engines.lora import adapter_key, ears_of
    from earnest.errors import ModelError, RecipeError
    from earnest.prompts import Prompt
    from earnest.relistening.audit import audit
    from earnest.relistening.long_scenes import long_version, make_long
    from earnest.relistening.loop import WORDS
    from earnest.relistening.segments import Bounds

    if words not in WORDS:
        raise RecipeError(f"no words called {words!r}: known are {', '.join(WORDS)}")
    prompt = Prompt.load("relistening", WORDS[words])
    bounds = Bounds() if total_s is None else Bounds(total_s=total_s)
    ears = {ears_of(folder) for folder in adapters.values()}
    if len(ears) > 1:
        raise ModelError(f"{', '.join(map(str, adapters.values()))} come with different ears: audit them one by one")
    made_of = [prompt.id, str(total_s), *(adapter_key(folder) for folder in adapters.values())]
    made_of += [long_version()] if of_world else []

    def run(engine: Engine, examples: Sequence[Example], folder: RunDirectory, options: Options) -> Finding:
        return audit(engine, examples, folder, words=prompt, adapters=adapters, bounds=bounds, **options)

    def show(finding: Finding) -> Finding:
        for note in finding.notes:
            console.print(note, markup=False)
        for table in finding.tables:
            if table.rows:
                print_table(table)
        console.print(finding.tables[0].note, markup=False)
        return finding

    def make(world: World, folder: Path, progress: Callable[[int, int], None]) -> list[Example]:
        manifest = make_long(
            folder, world.n, split=world.split, seed=world.seed, workers=world.workers, progress=progress
        )
        return read_data(manifest)

    return Concern("-relistening", run, show, made_of, make=make, wears=next(iter(ears), None))


def ask_live(
    engine: Engine, model: str, clip: Clip, question: str, choices: Sequence[str] | None, max_new_tokens: int
) -> Reply:
    """Asks one question and prints the reasoning as it goes back to the audio.

    Raises:
        AudioError: the file cannot be read.
        EarnestError: as `earnest.ask`.
    """
    from earnest.asking import asked, read_reply
    from earnest.completion import Sampling
    from earnest.prompts import Prompt
    from earnest.relistening.loop import WORDS, hears_finer, relisten

    example = asked(clip, question, choices)
    words = Prompt.load("relistening", WORDS["pocket" if model == "pocket" else "general"])

    def said(_: Example, text: str, segment: Segment | None) -> None:
        console.print(text.strip(), markup=False, soft_wrap=True)
        if segment is None:
            return
        if segment.fault:
            console.print(f"  [not heard: {segment.fault.value}]", markup=False)
        else:
            console.print(f"  [hears {segment.start_s:g} to {segment.end_s:g} s again]", markup=False)

    (reply,) = relisten(
        engine.generate, engine.capabilities, [example], Sampling(max_new_tokens=max_new_tokens), words=words,
        fine=hears_finer(engine), on_said=said,
    )  # fmt: skip
    return read_reply(replace(reply.completion, heard=reply.heard), example)


def relistening_adapters_of(model: str, base_url: str | None, folder: Path | None, *, bare: bool) -> dict[str, Path]:
    """Adapters of re-listening in the order in which they were trained; raises as `adapters_of`."""
    from earnest.cli.adapters import adapters_of
    from earnest.pocket import relistening_adapters

    found = adapters_of(
        model, base_url, folder, bare=bare, option="--relistening-adapters", concern="re-listening",
        own=relistening_adapters,
    )  # fmt: skip
    return dict(sorted(found.items(), key=lambda item: (item[0] != "sft", item[0])))
