"""AudioCaps: ten seconds of a video and what people heard in them.

    train.csv, val.csv, test.csv    audiocap_id, youtube_id, start_time, caption; at any depth
    .../YOUTUBE-ID_START.wav        or YYOUTUBE-ID, YOUTUBE-ID, AUDIOCAP-ID: each downloader names them its own way

A clip with several captions is several rows. Videos vanish: what could not be downloaded is missing audio.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from earnest.alignment.layouts.tree import audio_by_stem, of_part, read_table
from earnest.alignment.recordings import Recording
from earnest.tabular import Row

CORPUS = "audiocaps"
TABLES: tuple[str, ...] = ("train.csv", "val.csv", "test.csv")
COLUMNS: tuple[str, ...] = ("audiocap_id", "youtube_id", "start_time", "caption")


def read(folder: Path) -> list[Recording]:
    """One recording per caption."""
    files = audio_by_stem(folder)
    tables = [path for name in TABLES for path in sorted(folder.rglob(name))]
    return [_recording(row, folder, table.stem, files) for table in tables for row in read_table(table, COLUMNS)]


def _recording(row: Row, folder: Path, part: str, files: Mapping[str, list[Path]]) -> Recording:
    number, video, start, caption = (str(row.cells.get(name, "")) for name in COLUMNS)
    names = (f"{video}_{start}", f"Y{video}_{start}", video, f"Y{video}", number)
    found = next((files[name] for name in names if name in files), None)
    return Recording(
        id=f"{part}-{number}",
        corpus=CORPUS,
        audio=of_part(found, folder, part) if found else folder / f"{names[0]}.wav",
        recording=f"youtube/{video}",
        content=caption,
        modality="sound",
    )
