"""`earnest audit MODEL`: how often is it right, what does it do otherwise, and does it rest on the audio?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from earnest.cli.console import command_line, console, progress
from earnest.cli.options import Adapter, BaseUrl, Device, Dtype, MaxConnections, Model, Threads

FAITHFULNESS_ITEMS = 100
"""Of the world, each in about 60 variants."""


def audit(
    model: Model,
    data: Annotated[
        Path | None,
        typer.Option(help="JSONL, JSON or CSV with audio, question, answer. Default: the diagnostic world."),
    ] = None,
    concern: Annotated[
        Literal["answers", "reliability", "faithfulness", "safety", "relistening"],
        typer.Option(
            help="answers: is it right? reliability: does it know what it does not know, and who helps? "
            "faithfulness: is its reasoning grounded in the audio, and does the answer rest on it? "
            "safety: does it refuse harm in speech and in text, and help with the rest? "
            "relistening: does it go back to the audio, to the right place, and is it better for it?"
        ),
    ] = "answers",
    split: Annotated[str, typer.Option(help="Of the world: train, validation or test.")] = "test",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            "--n",
            min=1,
            help="Ask only so many (world: 300; faithfulness and relistening: 100; safety: 100 of each side).",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Requests at once; also what a kill can cost (faithfulness: four of them).")
    ] = 64,
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
        str | None,
        typer.Option(help="Of all concerns but answers: general or pocket. Default: as fits the model."),
    ] = None,
    control_items: Annotated[
        int | None,
        typer.Option(min=0, help="Reliability: questions asked again over silence, noise, other audio (100)."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Reliability: confidence is the agreement of so many samples; 0: probability.")
    ] = 0,
    probe: Annotated[
        list[str] | None,
        typer.Option(help="Faithfulness: only this intervention, such as noise or attack; repeat it. Default: all."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Faithfulness, safety: model that judges. Default: rules, for pocket's language exact ones."),
    ] = None,
    rewriter: Annotated[
        str | None,
        typer.Option(help="Faithfulness: model that paraphrases and errs. Pocket's language is rewritten by rules."),
    ] = None,
    user_turn: Annotated[
        bool, typer.Option("--user-turn", help="Faithfulness: edited reasoning in the user's turn, for comparison.")
    ] = False,
    safety_adapters: Annotated[
        Path | None,
        typer.Option(help="Safety: adapter to hold against the untouched model, or a folder of several."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="Safety: ordinary questions, to see what hardening costs. Default: the diagnostic world's."),
    ] = None,
    relistening_adapters: Annotated[
        Path | None,
        typer.Option(help="Re-listening: adapter, or a folder of several: sft first, the rest by name."),
    ] = None,
    total_s: Annotated[
        float | None, typer.Option("--total-s", min=0.0, help="Re-listening: seconds that a reply may hear again (60).")
    ] = None,
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
    from earnest.cli.concerns import answers, faithfulness, idk_adapters_of, reliability
    from earnest.cli.data import WORLD_ITEMS, World, read_data, source_of
    from earnest.cli.relistening import RELISTENING_ITEMS, relistening, relistening_adapters_of
    from earnest.cli.safety import SAFETY_PAIRS, read_requests, safety, safety_adapters_of

    asked_for = {
        "reliability": {
            "--idk-adapters": idk_adapters, "--samples": samples or None, "--control-items": control_items,
        },
        "faithfulness": {"--probe": probe, "--rewriter": rewriter, "--user-turn": user_turn or None},
        "safety": {"--safety-adapters": safety_adapters, "--questions": questions},
        "relistening": {"--relistening-adapters": relistening_adapters, "--total-s": total_s},
    }  # fmt: skip
    _refuse_others(concern, asked_for)
    if words and concern == "answers":
        raise typer.BadParameter("--words goes with every --concern but answers")
    if judge and concern not in ("faithfulness", "safety"):
        raise typer.BadParameter("--judge goes with --concern faithfulness or safety")
    if concern == "relistening" and bank:
        raise typer.BadParameter("--bank goes with other concerns: long scenes are rendered by the world itself")
    if concern == "safety" and (bank or fail_under is not None):
        raise typer.BadParameter("--bank and --fail-under go with other concerns: requests have no accuracy")
    if question_only and concern != "answers":
        raise typer.BadParameter(f"--question-only goes with --concern answers, not with {concern}")
    usual = {
        "faithfulness": FAITHFULNESS_ITEMS, "safety": SAFETY_PAIRS, "relistening": RELISTENING_ITEMS,
    }.get(concern, WORLD_ITEMS)  # fmt: skip
    world = World(split, seed, limit or usual, bank, workers)
    read = read_requests if concern == "safety" else read_data
    examples = read(data, limit) if data else None
    name = f"{data.stem}-n{len(examples)}" if data and examples is not None else world.name
    words = words or ("pocket" if model == "pocket" else "general")
    if concern == "reliability":
        if adapter and idk_adapters:
            raise typer.BadParameter("--adapter changes the model itself, --idk-adapters are held against it: give one")
        own = idk_adapters_of(model, base_url, idk_adapters, examples, bare=adapter is None)
        chosen = reliability(words, own, control_items, samples)
    elif concern == "faithfulness":
        chosen = faithfulness(
            words, probe or [], judge, rewriter, user_turn, "test" if data else split, seed, threads, examples
        )
    elif concern == "safety":
        if adapter and safety_adapters:
            raise typer.BadParameter(
                "--adapter changes the model itself, --safety-adapters are held against it: give one"
            )
        held = safety_adapters_of(model, base_url, safety_adapters, bare=adapter is None)
        chosen = safety(words, held, judge, questions, world, threads, limit)
    elif concern == "relistening":
        if adapter and relistening_adapters:
            raise typer.BadParameter(
                "--adapter changes the model itself, --relistening-adapters are held against it: give one"
            )
        stages = relistening_adapters_of(model, base_url, relistening_adapters, bare=adapter is None)
        chosen = relistening(words, stages, total_s, of_world=data is None)
    else:
        chosen = answers(question_only)
    name += chosen.suffix
    worn = adapter or chosen.wears

    from earnest.completion import Sampling, content_key
    from earnest.engines import load, model_key
    from earnest.engines.server import served_model
    from earnest.grading import Outcome, count
    from earnest.run import RunDirectory, run_folder

    sampling = Sampling(max_new_tokens=max_new_tokens)
    # Other weights, or another version of the world, get a folder of their own: old runs are not in the way.
    made_of = content_key([model_key(model, base_url, worn), None if data else world.version, *chosen.made_of])
    output = output or run_folder(model, made_of, name)
    run = RunDirectory(output)
    if examples is None:
        with progress("rendering") as report:
            examples = chosen.make(world, output / "world", report)
    engine = load(
        model,
        batch_size=batch_size,
        threads=threads,
        device=device,
        dtype=dtype,
        adapter=worn,
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
        finding = chosen.run(engine, examples, run, {**options, "progress": report})
    finding = chosen.show(finding)
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
        pairs = chosen.pairs(examples)
        page = write_scorecard(output / "scorecard.html", finding, examples, header, pairs=pairs)
        console.print(f"scorecard: {page}", markup=False)
    if len(failures) == len(finding.records):
        raise typer.Exit(1)
    if fail_under is not None and finding.metrics["accuracy"].value < fail_under:
        raise typer.Exit(1)


def _refuse_others(concern: str, asked_for: dict[str, dict[str, Any]]) -> None:
    """Says which option goes with another concern.

    Raises:
        BadParameter: one of them was given.
    """
    for other, options in asked_for.items():
        given = [name for name, value in options.items() if value is not None]
        if given and other != concern:
            raise typer.BadParameter(f"{', '.join(given)}: goes with --concern {other}")
