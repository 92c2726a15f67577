"""`earnest make questions`: what is asked about clips, by any model or exact from the world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earnest.cli.console import console, long, progress
from earnest.cli.models import ActorGpus, Actors, Models, Ray
from earnest.cli.options import MODEL_HELP, BaseUrl, Device, Dtype, MaxConnections, Threads

CANDIDATES = 20
WORLD_QUESTIONS = 5


def questions(
    out: Annotated[Path, typer.Argument(help="Folder for questions.jsonl, rejected.jsonl and card.json.")],
    data: Annotated[Path, typer.Option(help="surrogates.jsonl, as `make surrogates` writes it.")],
    writer: Annotated[str | None, typer.Option(help=f"Writes candidates: {MODEL_HELP}")] = None,
    judge: Annotated[str | None, typer.Option(help="Says which can be answered. Default: the writer.")] = None,
    world: Annotated[
        bool, typer.Option("--world", help="Clips of `make world`: exact questions with their answers, by no model.")
    ] = False,
    per_clip: Annotated[
        int | None, typer.Option(min=1, help=f"Questions about each clip. Default: 1, of the world {WORLD_QUESTIONS}.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Written for each clip, to draw from.")] = CANDIDATES,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", "-n", "--n", min=1, help="Only so many clips.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests at once; also what a kill can cost.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply of either model, in tokens.")] = 2048,
    thinking_tokens: Annotated[
        int, typer.Option(min=0, help="That either may think before; 0 for no bound, for servers that cannot go on.")
    ] = 1536,
    ray: Ray = False,
    actors: Actors = None,
    actor_gpus: ActorGpus = None,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    max_connections: MaxConnections = 16,
) -> None:
    """Make questions about clips from their surrogates; repeat a killed command to complete it."""
    from earnest.alignment.rows import Surrogate, load_rows
    from earnest.cli.data import source_of
    from earnest.errors import EarnestError

    if world == (writer is not None):
        raise typer.BadParameter("give either --writer MODEL, or --world for clips of `earnest make world`")
    for name in (writer, judge):
        if name == "pocket":
            raise EarnestError(
                "pocket writes and judges no questions, it knows a closed language: take a model that follows "
                "instructions, --world for clips of `make world`, or write questions.jsonl yourself (docs/alignment.md)"
            )
    rows = load_rows(data, Surrogate)[:limit]
    made_of = {"makes": "questions", **source_of(data), "seed": seed}
    if world:
        _of_world(out, rows, per_clip or WORLD_QUESTIONS, seed, made_of)
        return
    assert writer is not None, "checked above"

    from earnest.alignment.asking import SLICE_ROWS, Asking, slices
    from earnest.alignment.leaks import list_key
    from earnest.alignment.questions import Writing, prompt_ids, save_questions, write_questions
    from earnest.alignment.questions import candidates as write_candidates
    from earnest.finding import Metric
    from earnest.run import RunDirectory

    judge = judge or writer
    writing = Writing(max_new_tokens, thinking_tokens)
    settings: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "dtype": dtype, "threads": threads, "base_url": base_url,
        "max_connections": max_connections,
    }  # fmt: skip
    models = Models([writer, judge], settings, ray=ray, actors=actors, actor_gpus=actor_gpus)
    for name in dict.fromkeys((writer, judge)):
        models.require(name, "bounding the thinking of writer and judge", "give --thinking-tokens 0", *writing.needs)
    made_of |= {
        "writer": writer, "writer_key": models.keys[writer], "judge": judge, "judge_key": models.keys[judge],
        "per_clip": per_clip or 1, "candidates": candidates, "max_new_tokens": max_new_tokens,
        "thinking_tokens": thinking_tokens,
        "prompts": prompt_ids(), "leaks": list_key(),
    }  # fmt: skip
    run = RunDirectory(out)
    run.settle(made_of)
    size = max(SLICE_ROWS, models.call_size)
    asking = Asking(run, models.call_size)
    if judge != writer:
        # One after the other: both need not fit into the memory.
        for part in slices(rows, size):
            write_candidates(models[writer], part, asking, count=candidates, how=writing)
        models.local[writer].release()
        asking = Asking(run, models.call_size, retry_failed=False)
    with progress("asking") as report:
        parts = write_questions(
            models[writer],
            models[judge],
            rows,
            asking,
            count=candidates,
            how=writing,
            per_clip=per_clip or 1,
            seed=seed,
            slice_rows=size,
            progress=report,
        )
        card = save_questions(parts, out, made_of)
    console.print(f"requests: {run.computed} computed, {run.reused} reused", markup=False)
    console.print(
        f"{card['clips']} clips: {card['rows']} questions, {card['unique_prompts']} of them different; "
        f"{card['clips_without']} clips without one",
        markup=False,
    )
    _show_mix(card)
    for reason, row in card["rejected_for"].items():
        console.print(f"  rejected: {reason}: {row['count']}, {Metric.from_json(row['rate'])}", markup=False)
    if card["failed_requests"]:
        failed = card["failed_requests"]
        console.print(f"{failed} requests failed, see rejected.jsonl; repeat the command to ask again", markup=False)
    if not card["rows"]:
        most = next(iter(card["rejected_for"]))
        raise EarnestError(
            f"none of {len(rows)} clips has a question, most often for: {most}; see {out / 'rejected.jsonl'}"
        )
    console.print(f"questions: {out / 'questions.jsonl'} and rejected.jsonl, card.json", markup=False)


def _of_world(out: Path, rows: list[Any], per_clip: int, seed: int, made_of: dict[str, Any]) -> None:
    from earnest.alignment.cards import questions_tally
    from earnest.alignment.rows import save_rows
    from earnest.files import write_json
    from earnest.pocket.world_questions import world_questions

    found = list(world_questions(rows, per_clip, seed))
    save_rows(found, out / "questions.jsonl")
    tally = questions_tally()
    for row in found:
        tally.add(row)
    card = {
        **made_of,
        "writer": "the world",
        "per_clip": per_clip,
        "clips": len(rows),
        **tally.counts(),
        **tally.mixes(),
    }
    write_json(out / "card.json", card)
    console.print(f"{len(rows)} clips: {len(found)} questions: {out / 'questions.jsonl'}", markup=False)
    _show_mix(card)


def _show_mix(card: dict[str, Any]) -> None:
    """Hours, and the mix of tasks and modalities."""
    console.print(f"  {long(card['hours'])} of audio in {card['files']} files", markup=False)
    for name in ("tasks", "modalities"):
        if not card[name]:
            continue
        mix = ", ".join(f"{part} {counts['rows']}" for part, counts in card[name].items())
        console.print(f"  {name}: {mix}", markup=False)
