"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL_HELP = "pocket, a folder, a hub id, server:URL#MODEL, or openai/MODEL."

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch on the CPU.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Of the server of openai/MODEL.")]
MaxConnections = Annotated[int, typer.Option("--max-connections", min=1, help="Requests that a server gets at a time.")]
