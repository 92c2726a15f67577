"""Stage `targets`: what pocket's adapters learn, by the general commands of alignment (ALARM, section 3).

    OUT/clips/         clips with their timelines, as `earnest make world` writes them
    OUT/surrogates/    as `earnest make surrogates --corpus world=OUT/clips`
    OUT/questions/     as `earnest make questions --world`
    OUT/targets.jsonl  as `earnest make rephrase --words pocket --only-leaking --drop-cut`;
                       beside it rejected.jsonl, card.json and findings.json

The clips are those of the world, with benign spoken requests among them. Whatever was made is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from earnest.alignment.asking import Asking
from earnest.alignment.corpus import Source, build
from earnest.alignment.measures import HEADLINES, measure
from earnest.alignment.rephrase import Settings, rephrase
from earnest.alignment.rows import Asked, Surrogate, load_rows, save_rows
from earnest.alignment.writing import read_written, save_targets
from earnest.engines.load import load_local
from earnest.pocket.clips import write_clips
from earnest.pocket.world_questions import world_questions
from earnest.run import RunDirectory


@dataclass(frozen=True)
class TargetSettings:
    """Numbers of the stage.

    Attributes:
        scenes: clips.
        turns: questions and tasks for each.
        seed: of scenes and questions.
        max_new_tokens: longest reply to a surrogate, in tokens.
        scored_rows: rows, drawn, whose likelihood is taken.
        batch_size: prompts decoded together.
        workers: processes that render, threads that decode.
        threads: of the LLM.
    """

    scenes: int = 6000
    turns: int = 5
    seed: int = 20
    max_new_tokens: int = 160
    scored_rows: int = 1000
    batch_size: int = 256
    workers: int = 2
    threads: int = 2


def write(settings: TargetSettings, llm: Path, out: Path, *, log: Callable[[str], None] = print) -> Path:
    """Writes what stands above; an interrupted run goes on where it stopped.

    Args:
        settings: numbers of the stage.
        llm: folder of the text LLM.
        out: folder of the stage.
        log: one line of progress a step.

    Returns:
        The file of targets.
    """
    started = time.time()
    clips = write_clips(out / "clips", "adapters", "train", settings.seed, settings.scenes, workers=settings.workers)
    log(f"{settings.scenes} clips written, {time.time() - started:.0f} s")
    build([Source("world", clips)], out / "surrogates", workers=settings.workers)
    surrogates = load_rows(out / "surrogates" / "surrogates.jsonl", Surrogate)
    asked = out / "questions" / "questions.jsonl"
    save_rows(world_questions(surrogates, settings.turns, settings.seed), asked)
    engine = load_local(str(llm), batch_size=settings.batch_size, threads=settings.threads)
    how = Settings("pocket", settings.max_new_tokens, only_leaking=True, keep_cut=False)
    made_of = {**how.made_of(engine.key, engine.key), "scenes": settings.scenes, "turns": settings.turns}
    run = RunDirectory(out)
    run.settle(made_of)
    asking = Asking(run, settings.batch_size)

    def tell(done: int, every: int) -> None:
        log(f"{done} of {every} rows, {time.time() - started:.0f} s")

    parts = rephrase(engine, engine, load_rows(asked, Asked), asking, how, progress=tell)
    card = save_targets(parts, out, made_of)
    log(f"{card['targets']} targets, {card['rejected']} rejected, {card['failed_requests']} requests failed")
    measured = measure(read_written(out), engine=engine, scored_rows=settings.scored_rows, seed=settings.seed)
    run.write_findings([measured])
    log(", ".join(f"{name} {measured.metrics[name]}" for name in HEADLINES if name in measured.metrics))
    return out / "targets.jsonl"
