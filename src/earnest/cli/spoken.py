"""`earnest make spoken-requests`: sets of harmful and benign requests become speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earnest.cli.console import console, progress
from earnest.cli.options import MODEL_HELP, BaseUrl, Device, Dtype, MaxConnections, Threads

VOICES = ("en-us+m1", "en-us+f2", "en-gb-x-rp+m2", "en-gb-scotland+f1")
RATES_WPM = (150, 165, 180)
PITCHES = (45, 50, 55)
REASONS_SHOWN = 5


def spoken_requests(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="As published, or hub:ORG/NAME[:CONFIG].")],
    out: Annotated[Path, typer.Argument(help="Folder for clips, manifest.jsonl and left_out.json.")],
    layout: Annotated[str | None, typer.Option(help="Of all files; default: told by their columns.")] = None,
    voice: Annotated[
        list[str] | None, typer.Option(help=f"Of espeak-ng; repeat it for several. Default: {', '.join(VOICES)}.")
    ] = None,
    rate: Annotated[list[int] | None, typer.Option(help=f"Words per minute. Default: {RATES_WPM}.")] = None,
    pitch: Annotated[list[int] | None, typer.Option(help=f"0 to 100. Default: {PITCHES}.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of voice, rate and pitch of each request.")] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", "--n", min=1, help="Requests of each file, from the first.")
    ] = None,
    rewriter: Annotated[str | None, typer.Option(help=f"Adds benign rewrites by this model: {MODEL_HELP}")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rewrites at once; also what a kill can cost.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply of the rewriter, in tokens.")] = 512,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    max_connections: MaxConnections = 16,
) -> None:
    """Set requests to speech, pairs in one voice; repeat a killed command to complete it."""
    from earnest.audio.speakers import EspeakSpeaker
    from earnest.cli.data import source_of
    from earnest.run import RunDirectory
    from earnest.safety.rewrites import rewrite
    from earnest.safety.sets import HUB, read_requests
    from earnest.safety.spoken import check_manners, names_of, read_left_out, speak

    voices, rates_wpm, pitches = voice or VOICES, rate or RATES_WPM, pitch or PITCHES
    speaker = EspeakSpeaker()
    check_manners(speaker, voices, rates_wpm, pitches)
    left_out: dict[str, str] = {}
    requests = [request for file in files for request in read_requests(file, layout, left_out)[:limit]]
    names_of(requests)
    made_of: dict[str, Any] = {
        "makes": "spoken requests",
        "files": [file if file.startswith(HUB) else str(Path(file).resolve()) for file in files],
        "sha256": ["" if file.startswith(HUB) else source_of(Path(file))["sha256"] for file in files],
        "layout": layout, "voices": [*voices], "rates_wpm": [*rates_wpm], "pitches": [*pitches], "seed": seed,
    }  # fmt: skip
    run = RunDirectory(out)
    if rewriter:
        from earnest.engines import load, model_key

        run.settle({**made_of, "rewriter": rewriter, "rewriter_key": model_key(rewriter, base_url)})
        engine = load(
            rewriter,
            batch_size=batch_size,
            threads=threads,
            device=device,
            dtype=dtype,
            base_url=base_url,
            max_connections=max_connections,
        )
        with progress("rewriting") as report:
            requests, rejected = rewrite(
                engine, requests, run, batch_size=batch_size, max_new_tokens=max_new_tokens, progress=report
            )
        left_out |= rejected
        console.print(f"rewrites: {run.computed} computed, {run.reused} reused", markup=False)
    else:
        run.settle(made_of)
    with progress("speaking") as report:
        manifest = speak(
            requests,
            out,
            speaker=speaker,
            voices=voices,
            rates_wpm=rates_wpm,
            pitches=pitches,
            seed=seed,
            left_out=left_out,
            progress=report,
        )
    lost = read_left_out(out)
    there = [request for request in requests if request.id not in lost]
    harmful = sum(request.harmful for request in there)
    sides = [{request.pair for request in there if request.pair and request.harmful is side} for side in (True, False)]
    pairs = len(sides[0] & sides[1])
    console.print(f"{harmful} harmful, {len(there) - harmful} benign, {pairs} pairs", markup=False)
    if lost:
        console.print(f"{len(lost)} left out: {out / 'left_out.json'}", markup=False)
        for name, why in list(lost.items())[:REASONS_SHOWN]:
            console.print(f"  {name}: {why}", markup=False)
        if len(lost) > REASONS_SHOWN:
            console.print(f"  and {len(lost) - REASONS_SHOWN} more", markup=False)
    console.print(f"requests: {manifest}", markup=False)
