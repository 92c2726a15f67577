"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "pocket, a folder, a hub id, server:URL#MODEL, or openai/MODEL."

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch on the CPU.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Of the server of openai/MODEL.")]
MaxConnections = Annotated[int, typer.Option("--max-connections", min=1, help="Requests that a server gets at a time.")]
Adapter = Annotated[Path | None, typer.Option("--adapter", help="Folder of a peft adapter, put on top of the model.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ... Default: a GPU if there is one.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="Of the weights: float32, bfloat16, float16. Default: float32 on the CPU.")
]
