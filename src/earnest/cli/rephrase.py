"""`earnest make rephrase`: the LLM answers from surrogates and rephrases itself as if it had heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earnest.cli.console import console, progress
from earnest.cli.models import ActorGpus, Actors, Models, Ray
from earnest.cli.options import MODEL_HELP, BaseUrl, Device, Dtype, MaxConnections, Threads
from earnest.cli.tables import print_table

if TYPE_CHECKING:
    from earnest.run import RunDirectory

SCORED_ROWS = 1000


def rephrase(
    out: Annotated[Path, typer.Argument(help="Folder for targets.jsonl, rejected.jsonl, card.json, findings.json.")],
    data: Annotated[Path, typer.Option(help="questions.jsonl, as `make questions` writes it.")],
    model: Annotated[str, typer.Option(help=f"The LLM that is to be given ears: {MODEL_HELP}")],
    rephraser: Annotated[str | None, typer.Option(help="Who edits its replies. Default: itself.")] = None,
    words: Annotated[
        str | None, typer.Option(help="general or pocket. Default: pocket if the rephraser is, else general.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply to a surrogate, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the replies; 0 is greedy. Edits are greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Of the replies, where they are drawn.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the replies and of the measures.")] = 0,
    thinking_tokens: Annotated[
        int, typer.Option(min=0, help="That the rephraser may think; 0 for no bound, for servers that cannot go on.")
    ] = 1536,
    only_leaking: Annotated[
        bool, typer.Option("--only-leaking", help="Edit the replies that betray a text, keep others.")
    ] = False,
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw", help="Where an edit is rejected, learn the reply as it was.")
    ] = False,
    drop_cut: Annotated[
        bool, typer.Option("--drop-cut", help="Reject replies that were cut; they are kept as prefixes.")
    ] = False,
    answer_tokens: Annotated[
        tuple[int, int] | None, typer.Option(help="Fewest and most tokens of a target (the paper: 100 612).")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Another folder of this verb, whose targets are measured too."),
    ] = None,
    score: Annotated[
        int, typer.Option(min=0, help="Rows, drawn, whose likelihood under the model is taken; 0 for none.")
    ] = SCORED_ROWS,
    limit: Annotated[int | None, typer.Option("--limit", "-n", "--n", min=1, help="Only so many rows.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests at once; also what a kill can cost.")] = 64,
    ray: Ray = False,
    actors: Actors = None,
    actor_gpus: ActorGpus = None,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    max_connections: MaxConnections = 16,
) -> None:
    """Make targets for alignment: replies to surrogates, rephrased; repeat a killed command to complete it."""
    from earnest.alignment.rephrase import Settings
    from earnest.alignment.rows import Asked, load_rows

    rephraser = rephraser or model
    settings = Settings(
        words=words or ("pocket" if rephraser == "pocket" else "general"),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        thinking_tokens=thinking_tokens,
        only_leaking=only_leaking,
        keep_raw=keep_raw,
        keep_cut=not drop_cut,
        answer_tokens=answer_tokens,
    )
    rows = load_rows(data, Asked)[:limit]
    others = dict(map(_other, against or ()))

    from earnest.alignment import rephrase as making
    from earnest.alignment.asking import SLICE_ROWS, Asking, slices
    from earnest.alignment.writing import save_targets
    from earnest.cli.data import source_of
    from earnest.errors import EarnestError
    from earnest.finding import Metric
    from earnest.run import RunDirectory

    loading: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "dtype": dtype, "threads": threads, "base_url": base_url,
        "max_connections": max_connections,
    }  # fmt: skip
    models = Models([model, rephraser], loading, ray=ray, actors=actors, actor_gpus=actor_gpus)
    models.require(rephraser, "bounding the rephraser's thinking", "give --thinking-tokens 0", *settings.needs)
    made_of = {
        **source_of(data),
        "model": model,
        "rephraser": rephraser,
        **settings.made_of(models.keys[model], models.keys[rephraser]),
    }
    run = RunDirectory(out)
    run.settle(made_of)
    tokens_of = _counter(model) if answer_tokens else None
    size = max(SLICE_ROWS, models.call_size)
    asking = Asking(run, models.call_size)
    if rephraser != model:
        # One after the other: both need not fit into the memory.
        for part in slices(rows, size):
            making.raw_replies(models[model], part, asking, settings)
        models.local[model].release()
        asking = Asking(run, models.call_size, retry_failed=False)
    with progress("rephrasing") as report:
        parts = making.rephrase(
            models[model],
            models[rephraser],
            rows,
            asking,
            settings,
            tokens_of=tokens_of,
            slice_rows=size,
            progress=report,
        )
        card = save_targets(parts, out, made_of)
    console.print(f"requests: {run.computed} computed, {run.reused} reused", markup=False)
    console.print(f"{card['rows']} rows: {card['targets']} targets, {card['rejected']} rejected", markup=False)
    for reason, row in card["reasons"].items():
        kind = "rejected: " if row["rejected"] else ""
        console.print(f"  {kind}{reason}: {row['count']}, {Metric.from_json(row['rate'])}", markup=False)
    if card["failed_requests"]:
        failed = card["failed_requests"]
        console.print(f"{failed} requests failed, see rejected.jsonl; repeat the command to ask again", markup=False)
    if not card["targets"]:
        most = next(iter(card["reasons"]))
        raise EarnestError(
            f"none of {len(rows)} rows has a target, most often for: {most}; see {out / 'rejected.jsonl'}"
        )
    _measure(run, models, model, others, score, seed)
    console.print(f"targets: {out / 'targets.jsonl'} and rejected.jsonl, card.json, findings.json", markup=False)


def _measure(
    run: RunDirectory, models: Models, model: str, others: dict[str, dict[str, str]], score: int, seed: int
) -> None:
    from earnest.alignment.measures import HEADLINES, measure
    from earnest.alignment.writing import read_written
    from earnest.engines.local import LocalEngine

    engine = models.local[model].engine if score else None
    if engine is not None and not isinstance(engine, LocalEngine):
        console.print(f"{model} does not run in this process: no likelihoods", markup=False)
        engine = None
    with progress("measuring") as report:
        finding = measure(
            read_written(run.path),
            engine=engine,
            others=others,
            scored_rows=score,
            seed=seed,
            batch_size=models.batch_size,
            progress=report,
        )
    run.write_findings([finding])
    for table in finding.tables:
        print_table(table)
    for name, title in HEADLINES.items():
        if name in finding.metrics:
            console.print(f"{title}: {finding.metrics[name]} ({name})", markup=False)


def _other(text: str) -> tuple[str, dict[str, str]]:
    from earnest.alignment.rows import Target, load_rows
    from earnest.alignment.writing import TARGETS
    from earnest.errors import EarnestError

    name, equals, folder = text.partition("=")
    if not name or not equals:
        raise EarnestError(f"--against {text!r} has no name or no folder: give NAME=FOLDER")
    return name, {row.id: row.target or "" for row in load_rows(Path(folder) / TARGETS, Target)}


def _counter(model: str) -> Callable[[str], int]:
    """Tokens of a text, by the model's tokenizer alone."""
    from transformers import AutoTokenizer

    from earnest.engines.load import find_folder

    tokenizer: Any = AutoTokenizer.from_pretrained(find_folder(model))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
