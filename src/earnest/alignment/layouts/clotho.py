"""Clotho: sounds of 15 to 30 s, each in five people's words.

    clotho_captions_PART.csv    file_name, caption_1 ... caption_5; PART is development, validation or evaluation
    clotho_metadata_PART.csv    file_name, sound_id, manufacturer, ...; where it is there, clips of one upload are tied
    PART/FILE-NAME              or clotho_audio_PART/FILE-NAME

A clip is one row per caption.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from earnest.alignment.layouts.tree import read_table
from earnest.alignment.recordings import Recording
from earnest.tabular import Row

CORPUS = "clotho"
PREFIX = "clotho_captions_"
CAPTIONS: tuple[str, ...] = tuple(f"caption_{number}" for number in range(1, 6))


def read(folder: Path) -> list[Recording]:
    """One recording per clip and caption."""
    found: list[Recording] = []
    for table in sorted(folder.rglob(f"{PREFIX}*.csv")):
        part = table.stem.removeprefix(PREFIX)
        known = _known(table.with_name(f"clotho_metadata_{part}.csv"))
        for row in read_table(table, ("file_name", *CAPTIONS)):
            found += _recordings(row, table.parent, part, known.get(str(row.cells.get("file_name", "")), {}))
    return found


def _recordings(row: Row, folder: Path, part: str, known: Mapping[str, str]) -> list[Recording]:
    name = str(row.cells.get("file_name", ""))
    places = [folder / at / name for at in (part, f"clotho_audio_{part}", f"clotho_audio_{part}/{part}")]
    sound, uploader = known.get("sound_id", ""), known.get("manufacturer", "")
    return [
        Recording(
            id=f"{part}-{Path(name).stem}-{number}",
            corpus=CORPUS,
            audio=next((path for path in places if path.is_file()), places[0]),
            # The number of the upload, as FSD50K has it; some are "Not found".
            recording=f"freesound/{sound}" if sound.isdigit() else f"{CORPUS}/{part}/{name}",
            content=str(row.cells.get(caption, "")),
            modality="sound",
            kin=(f"freesound-user/{uploader}",) if sound.isdigit() and uploader else (),
        )
        for number, caption in enumerate(CAPTIONS, start=1)
    ]


def _known(table: Path) -> dict[str, dict[str, str]]:
    """What is known of each file."""
    if not table.is_file():
        return {}
    data = table.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # As published.
    return {row.get("file_name", ""): row for row in csv.DictReader(io.StringIO(text, newline=""))}
