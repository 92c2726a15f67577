"""`earnest demo`: the shipped model on the held-out split, and its scorecard."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.audit import audit
from earnest.cli.data import World
from earnest.cli.options import Threads


def demo(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Number of questions.")] = 240,
    seed: Annotated[int, typer.Option(min=0, help="A new seed is a new benchmark.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory.")] = Path("runs/demo"),
    threads: Threads = 2,
) -> None:
    """Audit the shipped model with and without the audio, and open the scorecard (or print its path)."""
    from earnest.completion import content_key
    from earnest.engines import model_key

    made_of = content_key([model_key("pocket"), World().version])[:8]
    folder = output / f"{made_of}-seed{seed}-n{limit}"
    audit(
        "pocket",
        limit=limit,
        seed=seed,
        output=folder,
        threads=threads,
        workers=threads,
        question_only=True,
    )
    page = folder / "scorecard.html"
    if sys.stdout.isatty():
        webbrowser.open(page.resolve().as_uri())
