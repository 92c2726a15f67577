"""`earnest make world`: clips with questions, answers and evidence. `earnest make idk`: what a model does not know.

`spoken-requests`, `grounded`, `surrogates`, `questions` and `rephrase` have files of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.console import console, progress
from earnest.cli.grounded import grounded
from earnest.cli.options import Adapter, BaseUrl, Device, Dtype, MaxConnections, Model, Threads
from earnest.cli.questions import questions
from earnest.cli.rephrase import rephrase
from earnest.cli.spoken import spoken_requests
from earnest.cli.surrogates import surrogates

make = typer.Typer(help="Make data.", no_args_is_help=True)
make.command("spoken-requests")(spoken_requests)
make.command("grounded")(grounded)
make.command("surrogates")(surrogates)
make.command("questions")(questions)
make.command("rephrase")(rephrase)


@make.callback()
def _make() -> None:
    """Make data."""


@make.command()
def world(
    out: Annotated[Path, typer.Argument(help="Folder for clips, manifest.jsonl and scenes.jsonl.")],
    n: Annotated[int, typer.Option("--n", "-n", "--limit", min=1, help="Number of clips.")] = 100,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    seed: Annotated[int, typer.Option(help="A new seed is a new benchmark.")] = 0,
    bank: Annotated[Path | None, typer.Option(help="Your own one-shot samples: BANK/sound/dog/*.wav, ...")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")] = 2,
) -> None:
    """Render scenes with an exact timeline and one question each; repeat a killed command to complete it."""
    from earnest.world.dataset import make_world

    with progress("rendering") as report:
        make_world(out, n, split=split, seed=seed, bank=bank, workers=workers, progress=report)
    console.print(f"{n} clips: {out / 'manifest.jsonl'}", markup=False)


@make.command()
def idk(
    model: Model,
    data: Annotated[Path, typer.Option(help="JSONL, JSON or CSV with audio, question, answer.")],
    samples: Annotated[int, typer.Option("--samples", "-n", "--n", help="Answers drawn per question.")] = 5,
    k: Annotated[int, typer.Option("-k", "--k", help="Known if at least so many of them are right.")] = 5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: runs/MODEL-KEY-idk-DATA.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many questions, from the first.")] = None,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the samples.")] = 1.0,
    nothing: Annotated[float, typer.Option(help="Silent and noise-only items, as a share of the questions.")] = 0.03,
    noisy: Annotated[
        float, typer.Option(help="Copies whose audio lies in noise (0 to -20 dB), as a share of the questions.")
    ] = 0.0,
    answer: Annotated[str, typer.Option("--idk", help="What the unknown is retargeted to.")] = "I don't know",
    seed: Annotated[int, typer.Option(min=0, help="Of the samples and of the validation split.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once; also what a kill can cost.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 256,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    adapter: Adapter = None,
    max_connections: MaxConnections = 16,
) -> None:
    """Draw a model's own answers and write lessons in saying "I don't know"; repeat a killed command to complete it."""
    from earnest.cli.data import read_data, source_of
    from earnest.reliability.known import check_numbers

    check_numbers(samples, k, nothing, answer, noisy_share=noisy)
    examples = read_data(data, limit)

    from earnest.engines import load, model_key
    from earnest.finding import Metric
    from earnest.reliability.known import draw, write_data
    from earnest.reliability.less_to_hear import noisy_copies
    from earnest.run import RunDirectory, run_folder
    from earnest.statistics import wilson

    key = model_key(model, base_url, adapter)
    output = output or run_folder(model, key, f"idk-{data.stem}-n{len(examples)}")
    run = RunDirectory(output)
    made_of = {
        "model": model, "key": key, **source_of(data), "questions": len(examples), "samples": samples,
        "temperature": temperature, "nothing": nothing, "seed": seed, "max_new_tokens": max_new_tokens,
        **({"noisy": noisy} if noisy else {}),
    }  # fmt: skip
    run.settle({"makes": "idk", **made_of})
    examples += noisy_copies(examples, noisy, output / "noisy", seed)
    engine = load(
        model,
        batch_size=batch_size,
        threads=threads,
        device=device,
        dtype=dtype,
        adapter=adapter,
        base_url=base_url,
        max_connections=max_connections,
    )
    with progress("drawing") as report:
        drawn = draw(
            engine,
            examples,
            run,
            samples=samples,
            temperature=temperature,
            nothing_share=nothing,
            seed=seed,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            progress=report,
        )
    card = write_data(drawn, output, k, idk=answer, seed=seed, made_of=made_of)
    console.print(f"{run.computed} computed, {run.reused} reused", markup=False)
    if not card["questions"]:
        console.print("nothing can be learnt from any question", markup=False)
    for number, known in card["known_by_k"].items() if card["questions"] else ():
        share = wilson(known, card["questions"])
        console.print(f"at least {number} of {samples} right: {known} of {card['questions']}, {share}", markup=False)
    added = {kind: count for kind, count in card["items"].items() if kind != "question"}
    console.print(f"added, with nothing to hear: {added or 'none'}", markup=False)
    console.print(f"retargeted at K = {k}: {Metric.from_json(card['idk_share'])}", markup=False)
    if left_out := card["left_out"]:
        name, why = next(iter(left_out.items()))
        console.print(f"{len(left_out)} left out, such as {name}: {why}", markup=False)
    console.print(f"lessons: {output / 'train.jsonl'} and validation.jsonl ({card['validation']})", markup=False)
