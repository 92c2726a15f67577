"""`earnest check MODEL`: is the audio really getting in?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.console import console, progress
from earnest.cli.options import Adapter, BaseUrl, Device, Dtype, MaxConnections, Model, Threads


def check(
    model: Model,
    against: Annotated[
        str | None,
        typer.Option(help="The same model elsewhere, such as server:URL#MODEL: tokens and replies must be the same."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--log-dir", help="Folder of check.json, with all rows and the noise floor."),
    ] = None,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    adapter: Adapter = None,
    max_connections: MaxConnections = 16,
) -> None:
    """Hold what was given against what arrived: a table, check.json, and exit code 1 if a check fails."""
    from rich.table import Table

    from earnest.check import check as run_checks
    from earnest.engines import load
    from earnest.files import write_json
    from earnest.run import run_folder
    from earnest.statistics import wilson

    engine = load(
        model,
        threads=threads,
        device=device,
        dtype=dtype,
        base_url=base_url,
        adapter=adapter,
        max_connections=max_connections,
    )
    other = (
        load(against, wants_logprobs=True, threads=threads, base_url=base_url, max_connections=max_connections)
        if against
        else None
    )
    with progress("checking") as report:
        found = run_checks(engine, other, progress=report)
    table = Table("", "check", "what was found", box=None, pad_edge=False)
    for row in found.rows:
        mark = {True: "pass", False: "FAIL", None: "-"}[row.passed]
        table.add_row(mark, row.name, row.shown)
    console.print(table, markup=False)
    if found.compared:
        floor = wilson(found.flips, found.compared)
        console.print(f"noise floor: {floor} of the replies change with the company they are computed in", markup=False)
    path = (output or run_folder(model, engine.key, "check")) / "check.json"
    write_json(path, {"model": model, "weights": engine.key, "against": against, **asdict(found)})
    console.print(f"written:   {path}", markup=False)
    if not found.passed:
        raise typer.Exit(1)
