"""FSD50K: sounds of Freesound with labels of AudioSet's ontology.

FSD50K.ground_truth/dev.csv, eval.csv                   fname, labels, mids, split
FSD50K.dev_audio/FNAME.wav, FSD50K.eval_audio/FNAME.wav
FSD50K.metadata/dev_clips_info_FSD50K.json, eval_...    where it is there, clips of one uploader are tied
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from earnest.alignment.layouts.tree import read_json_object, read_table
from earnest.alignment.recordings import Recording, joined
from earnest.tabular import Row

CORPUS = "fsd50k"
PARTS: tuple[str, ...] = ("dev", "eval")


def read(folder: Path) -> list[Recording]:
    """One recording per clip."""
    found: list[Recording] = []
    for part in PARTS:
        table = folder / "FSD50K.ground_truth" / f"{part}.csv"
        if table.is_file():
            infos = folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
            known = read_json_object(infos) if infos.is_file() else {}
            found += [_recording(row, folder, part, known) for row in read_table(table, ("fname", "labels"))]
    return found


def _recording(row: Row, folder: Path, part: str, known: dict[str, Any]) -> Recording:
    name = str(row.cells.get("fname", ""))
    tags = [label.replace("_", " ") for label in str(row.cells.get("labels", "")).split(",")]
    uploader = known.get(name, {}).get("uploader", "")
    return Recording(
        id=name,
        corpus=CORPUS,
        audio=folder / f"FSD50K.{part}_audio" / f"{name}.wav",
        recording=f"freesound/{name}",
        content=joined(tags),
        modality="music" if "Music" in tags else "sound",
        kin=(f"freesound-user/{uploader}",) if uploader else (),
    )
