"""`earnest audit MODEL`: how often is it right, and what does it do otherwise?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earnest.cli.console import command_line, console, progress
from earnest.cli.options import Adapter, BaseUrl, Device, Dtype, MaxConnections, Model, Threads
from earnest.finding import Metric, Table

if TYPE_CHECKING:
    from earnest.example import Example


def audit(
    model: Model,
    data: Annotated[
        Path | None,
        typer.Option(help="JSONL, JSON or CSV with audio, question, answer. Default: the diagnostic world."),
    ] = None,
    concern: Annotated[
        Literal["answers", "reliability"],
        typer.Option(help="answers: is it right? reliability: does it know what it does not know, and who helps?"),
    ] = "answers",
    split: Annotated[str, typer.Option(help="Of the world: train, validation or test.")] = "test",
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", "--n", min=1, help="Ask only so many (world: 300 by default)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions at once; also what a kill can cost.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the world, and of the bootstrap.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--log-dir", help="Run directory; the same command resumes it."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 256,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    adapter: Adapter = None,
    max_connections: MaxConnections = 16,
    question_only: Annotated[
        bool, typer.Option("--question-only", help="Ask again without the audio: what is owed to listening?")
    ] = False,
    idk_adapters: Annotated[
        Path | None,
        typer.Option(
            help="Reliability: adapter of IDK fine-tuning, or a folder of one a modality. Pocket has its own."
        ),
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="Reliability: prompts, general or pocket. Default: as fits the model.")
    ] = None,
    control_items: Annotated[
        int | None,
        typer.Option(min=0, help="Reliability: questions asked again over silence, noise, other audio (100)."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Reliability: confidence is the agreement of so many samples; 0: probability.")
    ] = 0,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no scorecard.html.")] = False,
    retry_on_error: Annotated[bool, typer.Option("--retry-on-error", help="Ask again what failed earlier.")] = False,
    bank: Annotated[Path | None, typer.Option(help="Your own one-shot samples for the world.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render the world.")] = 2,
    fail_under: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Exit code 1 if the accuracy is below this fraction."),
    ] = None,
) -> None:
    """Ask every question once, give every reply one outcome, write metrics.json and scorecard.html.

    Exit code 1 if every request failed, or the accuracy is below --fail-under.
    """
    from earnest.cli.data import WORLD_ITEMS, World, read_data, source_of

    world = World(split, seed, limit or WORLD_ITEMS, bank, workers)
    examples = read_data(data, limit) if data else None
    name = f"{data.stem}-n{len(examples)}" if data and examples is not None else world.name
    name += "-question-only" * question_only
    asking: dict[str, Any] = {}
    if concern == "reliability":
        from earnest.reliability.audit import CONTROL_ITEMS
        from earnest.reliability.prompting import methods

        if question_only:
            raise typer.BadParameter("--question-only goes with --concern answers: the methods need the audio")
        name += "-reliability"
        if adapter and idk_adapters:
            raise typer.BadParameter("--adapter changes the model itself, --idk-adapters are held against it: give one")
        asking = {
            "chosen": methods(words or ("pocket" if model == "pocket" else "general")),
            "adapters": _idk_adapters(model, base_url, idk_adapters, examples, bare=adapter is None),
            "control_items": CONTROL_ITEMS if control_items is None else control_items,
            "samples": samples,
        }
    elif idk_adapters or words or samples or control_items is not None:
        raise typer.BadParameter("--idk-adapters, --words, --samples and --control-items go with --concern reliability")

    from earnest.accuracy import audit as audit_answers
    from earnest.completion import Sampling, content_key
    from earnest.engines import load, model_key
    from earnest.engines.server import served_model
    from earnest.grading import Outcome, count
    from earnest.run import RunDirectory, run_folder

    sampling = Sampling(max_new_tokens=max_new_tokens)
    # Other weights, or another version of the world, get a folder of their own: old runs are not in the way.
    made_of = content_key([model_key(model, base_url, adapter), None if data else world.version, *_made_of(asking)])
    output = output or run_folder(model, made_of, name)
    run = RunDirectory(output)
    if examples is None:
        with progress("rendering") as report:
            examples = world.make(output / "world", report)
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
    options: dict[str, Any] = {
        "sampling": sampling,
        # A server's connections stay busy, and a clip's requests together.
        "batch_size": max(batch_size, 4 * max_connections) if served_model(model, base_url) else batch_size,
        "seed": seed,
        "source": source_of(data) if data else world.source,
        "command": command_line(),
        "retry_failed": retry_on_error,
    }
    with progress("asking") as report:
        if concern == "reliability":
            from earnest.reliability.audit import audit as audit_reliability
            from earnest.reliability.audit import untouched_alone

            finding = audit_reliability(engine, examples, run, progress=report, **asking, **options)
            # The modalities' own tables are in the scorecard.
            console.print(finding.notes[0], markup=False)
            for table in (finding.tables[0], *(table for table in finding.tables[1:] if _is_extra(table))):
                _print_table(table)
            lost = [record for record in finding.records if record["outcome"] == Outcome.FAILED.value]
            if lost:
                console.print(f"{len(lost)} requests failed, of all methods", markup=False)
            finding = untouched_alone(finding)
        else:
            finding = audit_answers(engine, examples, run, question_only=question_only, progress=report, **options)

    if concern == "answers":
        console.print(finding.notes[0], markup=False)
    shown = [name for name in finding.metrics if name.startswith(("accuracy", "gain_over_question_only"))]
    for name in shown:
        console.print(f"{name:<34}{finding.metrics[name]}", markup=False)
    outcomes = count(Outcome(record["outcome"]) for record in finding.records)
    console.print(", ".join(f"{outcome.value} {number}" for outcome, number in outcomes.items()), markup=False)
    failures = [record for record in finding.records if record["outcome"] == Outcome.FAILED.value]
    if failures:
        console.print(f"{len(failures)} failed, such as {failures[0]['id']}: {failures[0]['detail']}", markup=False)
    console.print(f"{run.computed} computed, {run.reused} reused", markup=False)
    console.print(f"metrics:   {output / 'metrics.json'}", markup=False)
    if not no_report:
        from earnest.report import Header, write_scorecard
        from earnest.run import environment

        facts = environment()
        header = Header(
            model=f"{model} with {adapter}" if adapter else model,
            data=str(data) if data else f"the diagnostic world, split {split}, seed {seed}",
            command=command_line(),
            facts={
                "weights": engine.key,
                "python": facts["python"],
                **facts["packages"],
                "machine": facts["platform"],
            },
        )
        page = write_scorecard(output / "scorecard.html", finding, examples, header)
        console.print(f"scorecard: {page}", markup=False)
    if len(failures) == len(finding.records):
        raise typer.Exit(1)
    if fail_under is not None and finding.metrics["accuracy"].value < fail_under:
        raise typer.Exit(1)


def _idk_adapters(
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


def _made_of(asking: dict[str, Any]) -> list[str]:
    """What beside the model and the data makes a reliability run another one."""
    from earnest.engines.lora import adapter_key

    if not asking:
        return []
    keys = [adapter_key(folder) for folder in (asking["adapters"] or {}).values()]
    numbers = [str(asking["control_items"]), str(asking["samples"])]
    return [*(method.shown for method in asking["chosen"]), *numbers, *keys]


def _print_table(table: Table) -> None:
    """A finding's table in the terminal, each row on one line however long."""
    rows = [table.columns, *([_cell(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console.print(table.title, markup=False)
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        console.print(line, markup=False, soft_wrap=True)


def _cell(cell: str | int | float | Metric | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Metric) and math.isnan(cell.value):
        return "-"
    if isinstance(cell, Metric):
        return str(cell).split(", n =")[0]
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)
