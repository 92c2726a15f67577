"""DailyTalk: two people act dialogues, an utterance a file.

    metadata.json                                   dialogue: {utterance: {speaker, text, emotion, ...}}
    data/DIALOGUE/UTTERANCE_SPEAKER_dDIALOGUE.wav

Speaker 0 is a man, 1 a woman, the same two throughout: all of it is one component, with one split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from earnest.alignment.layouts.tree import entry, read_json_object
from earnest.alignment.recordings import Recording

CORPUS = "dailytalk"
KEYS: tuple[str, ...] = ("speaker", "text", "emotion")
GENDERS: dict[str, str] = {"0": "Male", "1": "Female"}


def read(folder: Path) -> list[Recording]:
    """One recording per utterance."""
    table = folder / "metadata.json"
    if not table.is_file():
        return []
    return [
        _recording(table, dialogue, utterance, value)
        for dialogue, utterances in read_json_object(table).items()
        for utterance, value in entry(table, dialogue, utterances, ()).items()
    ]


def _recording(table: Path, dialogue: str, utterance: str, value: Any) -> Recording:
    cells = entry(table, f"{dialogue}/{utterance}", value, KEYS)
    speaker = str(cells["speaker"])
    name = f"{utterance}_{speaker}_d{dialogue}"
    return Recording(
        id=name,
        corpus=CORPUS,
        audio=table.parent / "data" / dialogue / f"{name}.wav",
        recording=f"{CORPUS}/d{dialogue}",
        content=str(cells["text"]),
        spoken=True,
        details={
            "emotion": str(cells["emotion"]).capitalize(),
            "gender": GENDERS.get(speaker, ""),
            "language": "English",
        },
        modality="speech",
        speaker=f"{CORPUS}/{speaker}",
    )
