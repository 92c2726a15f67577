"""NSynth: single notes of instruments.

    examples.json       note: {instrument_str, instrument_family_str, instrument_source_str, qualities_str, pitch, ...}
    audio/NOTE.wav

Here or one folder deep, as in nsynth-train/examples.json. Notes of one instrument are in one split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from earnest.alignment.layouts.tree import entry, read_json_object
from earnest.alignment.recordings import Recording, joined

CORPUS = "nsynth"
KEYS: tuple[str, ...] = (
    "instrument_str", "instrument_family_str", "instrument_source_str", "qualities_str", "pitch", "velocity",
)  # fmt: skip
NOTES: tuple[str, ...] = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def read(folder: Path) -> list[Recording]:
    """One recording per note."""
    tables = [folder / "examples.json", *sorted(folder.glob("*/examples.json"))]
    return [
        _recording(table, name, value)
        for table in tables
        if table.is_file()
        for name, value in sorted(read_json_object(table).items())
    ]


def _recording(table: Path, name: str, value: Any) -> Recording:
    cells = entry(table, name, value, KEYS)
    kind = f"{cells['instrument_source_str']} {cells['instrument_family_str']}"
    tags = [str(tag).replace("_", " ") for tag in (kind, *cells["qualities_str"])]
    return Recording(
        id=name,
        corpus=CORPUS,
        audio=table.parent / "audio" / f"{name}.wav",
        recording=f"{CORPUS}/{cells['instrument_str']}",
        content=joined(tags),
        details={"pitch": note_name(int(cells["pitch"])), "velocity": str(cells["velocity"])},
        modality="music",
    )


def note_name(pitch: int) -> str:
    """A note of MIDI by its name: 60 is C4."""
    return f"{NOTES[pitch % 12]}{pitch // 12 - 1}"
