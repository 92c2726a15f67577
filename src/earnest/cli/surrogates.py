"""`earnest make surrogates`: corpora become texts that stand for clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earnest.cli.console import console, long, progress
from earnest.errors import EarnestError

LAYOUTS = "audiocaps, clotho, dailytalk, fsd50k, librispeech, meld, nsynth, vctk, world"


def surrogates(
    out: Annotated[Path, typer.Argument(help="Folder for surrogates.jsonl, rejected.jsonl and card.json.")],
    corpus: Annotated[
        list[str] | None, typer.Option(metavar="LAYOUT=FOLDER", help=f"Repeat it for several. Layouts: {LAYOUTS}.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Your own clips: JSONL, JSON, CSV or TSV with audio and text; repeatable.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="[PATH=]SPLIT", help="Of all clips of one source, or of every source. Default: drawn."),
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the speakers and recordings that validate.")] = 0.02,
    test: Annotated[float, typer.Option(help="Share of the speakers and recordings that test.")] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits that are drawn.")] = 0,
    max_duration: Annotated[float, typer.Option(help="Clips must be shorter, in seconds.")] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode; the result does not depend on it.")] = 2,
    ray: Annotated[
        bool, typer.Option("--ray", help="Decode by Ray, --workers tasks at once, on this machine or RAY_ADDRESS's.")
    ] = False,
) -> None:
    """Write down what is heard in each clip; clips of one speaker or recording are in one split."""
    from earnest.alignment.corpus import Source, build
    from earnest.alignment.layouts import MANIFEST
    from earnest.alignment.splitting import Shares

    named = [*map(_corpus, corpus or ()), *((MANIFEST, path) for path in data or ())]
    whole, single = _splits(split or (), [path for _, path in named])
    sources = [Source(layout, path, single.get(path, whole)) for layout, path in named]
    shares = Shares(validation, test)
    with progress("decoding") as report:
        card = build(
            sources,
            out,
            shares=shares,
            seed=seed,
            max_duration_s=max_duration,
            workers=workers,
            ray=ray,
            progress=report,
        )
    for line in card_lines(card):
        console.print(line, markup=False)
    console.print(f"surrogates: {out / 'surrogates.jsonl'} and rejected.jsonl, card.json", markup=False)


def card_lines(card: dict[str, Any]) -> list[str]:
    """What is shown of a card."""
    from earnest.finding import Metric

    def counts(found: dict[str, Any]) -> str:
        return f"{found['rows']} rows, {long(found['hours'])}, {found['unique_surrogates']} different surrogates"

    rejections = card["rejected"]["reasons"].items()
    return [
        f"{card['clips']} clips: {counts(card)}",
        *(f"  {name}: {counts(found)}" for kind in ("corpora", "splits") for name, found in card[kind].items()),
        *(
            f"  rejected for {reason}: {found['count']}, {Metric.from_json(found['rate'])}"
            for reason, found in rejections
        ),
        *(
            [f"  all {card['rows']} rows are in one split, {next(iter(card['splits']))}: few speakers and recordings"]
            if len(card["splits"]) == 1 and card["rows"] > 1 and not all(one["split"] for one in card["sources"])
            else []
        ),
    ]


def _corpus(text: str) -> tuple[str, Path]:
    layout, equals, folder = text.partition("=")
    if not equals or not folder:
        raise EarnestError(f"--corpus {text!r} has no folder: give LAYOUT=FOLDER, with LAYOUT one of {LAYOUTS}")
    return layout, Path(folder)


def _splits(texts: list[str] | tuple[str, ...], paths: list[Path]) -> tuple[str | None, dict[Path, str]]:
    """The split of every source, and those of single ones."""
    whole: str | None = None
    single: dict[Path, str] = {}
    for text in texts:
        path, equals, split = text.rpartition("=")
        if not equals:
            whole = split
        elif Path(path) in paths:
            single[Path(path)] = split
        else:
            known = ", ".join(map(str, paths)) or "none"
            raise EarnestError(f"--split {text!r} names no source: sources are {known}")
    return whole, single
