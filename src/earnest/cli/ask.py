"""`earnest ask MODEL FILE QUESTION`: one answer, with what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.console import console


def ask(
    model: Annotated[str, typer.Argument(help="pocket, a folder, or a hub id.")],
    file: Annotated[Path, typer.Argument(help="The clip: WAV, FLAC, OGG or MP3.")],
    question: Annotated[str, typer.Argument(help="What is asked about it.")],
    choices: Annotated[str, typer.Option(help='What to choose from: "dog;cat;bird".')] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.")] = 256,
    threads: Annotated[int, typer.Option(help="Threads of torch on the CPU.")] = 2,
) -> None:
    """Ask one question about one clip. Exit code 1 if the request failed."""
    from earnest.asking import ask as ask_model
    from earnest.asking import split_choices
    from earnest.audio import Clip

    clip = Clip.load(file)
    options = split_choices(choices)
    from earnest.engines import load
    from earnest.grading import Outcome

    reply = ask_model(load(model, threads=threads), clip, question, options, max_new_tokens=max_new_tokens)
    rows = [("outcome", reply.outcome)]
    if reply.reasoning:
        rows.insert(0, ("reasoning", reply.reasoning))
    if reply.answer:
        rows.insert(-1, ("answer", reply.answer))
    if reply.detail:
        rows.append(("why", reply.detail))
    if reply.confidence is not None:
        rows.append(("confidence", f"{reply.confidence:.2f} (mean token probability of the answer)"))
    heard = reply.heard
    rows.append(
        (
            "heard",
            f"{heard.seconds_heard:.1f} of {heard.seconds_given:.1f} s, {heard.audio_tokens} audio tokens",
        )
    )
    for name, value in rows:
        console.print(f"{name:<11}{value}", markup=False)
    if reply.outcome == Outcome.FAILED.value:
        raise typer.Exit(1)
