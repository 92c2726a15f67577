"""`earnest ask MODEL FILE QUESTION`: one answer, with what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earnest.cli.console import console
from earnest.cli.options import Adapter, BaseUrl, Device, Dtype, Model, Threads


def ask(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The clip: WAV, FLAC, OGG or MP3.")],
    question: Annotated[str, typer.Argument(help="What is asked about it.")],
    choices: Annotated[str, typer.Option(help='What to choose from: "dog;cat;bird".')] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.")] = 256,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    adapter: Adapter = None,
    relisten: Annotated[
        bool, typer.Option("--relisten", help="Let the reasoning go back to the audio, and show it as it does.")
    ] = False,
) -> None:
    """Ask one question about one clip. Exit code 1 if the request failed."""
    from earnest.asking import ask as ask_model
    from earnest.asking import split_choices
    from earnest.audio import Clip

    clip = Clip.load(file)
    options = split_choices(choices)
    from earnest.engines import load
    from earnest.grading import Outcome

    if relisten and adapter is None and model == "pocket":
        adapter = _own_adapter()
    engine = load(model, threads=threads, device=device, dtype=dtype, base_url=base_url, adapter=adapter)
    if relisten:
        from earnest.cli.relistening import ask_live

        reply = ask_live(engine, model, clip, question, options, max_new_tokens)
    else:
        reply = ask_model(engine, clip, question, options, max_new_tokens=max_new_tokens)
    rows = [("outcome", reply.outcome)]
    if reply.reasoning and not relisten:
        rows.insert(0, ("reasoning", reply.reasoning))
    if reply.answer:
        rows.insert(-1, ("answer", reply.answer))
    if reply.detail:
        rows.append(("why", reply.detail))
    if reply.confidence is not None:
        rows.append(("confidence", f"{reply.confidence:.2f} (mean token probability of the answer, not calibrated)"))
    heard = reply.heard
    rows.append(("heard", heard.shown))
    for name, value in rows:
        console.print(f"{name:<11}{value}", markup=False)
    if reply.outcome == Outcome.FAILED.value:
        raise typer.Exit(1)


def _own_adapter() -> Path:
    """Pocket's, trained to go back to the audio.

    Raises:
        ModelError: none is shipped.
    """
    from earnest.errors import ModelError
    from earnest.pocket import RELISTENING, relistening_adapters

    found = relistening_adapters()
    if found is None:
        raise ModelError("pocket has no adapter of re-listening: earnest train recipes/pocket/relisten-rl.toml")
    return found[RELISTENING[-1]]
