"""`earnest train RECIPE.toml`: what the recipe says, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.console import console


def train(
    recipe: Annotated[Path, typer.Argument(help="A run file, such as recipes/pocket/base.toml.")],
    stage: Annotated[str | None, typer.Option(help="Only this stage; those before it must be complete.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder, instead of the recipe's own.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch, in every stage.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that make data, in every stage.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from what is there, or refuse to.")
    ] = True,
) -> None:
    """Train by a recipe. Complete stages are skipped, an interrupted one goes on from its checkpoint."""
    from earnest.errors import RecipeError
    from earnest.training.recipes import is_main, load, run

    numbers = {"threads": threads, "workers": workers}
    overrides = {name: value for name, value in numbers.items() if value is not None}
    root = output or load(recipe, overrides).out
    if not resume and root.is_dir() and any(root.iterdir()):
        raise RecipeError(f"{root} is not empty: remove it, give another --output, or leave out --no-resume")
    seconds = run(recipe, only=stage, out=root, overrides=overrides, log=console.print)
    if is_main():
        console.print(f"{root}: {sum(seconds.values()):.0f} s in {len(seconds)} stage(s)", markup=False)
