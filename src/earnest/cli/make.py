"""`earnest make world`: clips with questions, answers and evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.console import console, progress

make = typer.Typer(help="Make data.", no_args_is_help=True)


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
