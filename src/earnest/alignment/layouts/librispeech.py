"""LibriSpeech: read books, a reader's chapters in folders.

SPEAKERS.TXT                                here or one folder up: ;ID |SEX| SUBSET |MINUTES| NAME
.../SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac
.../SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt   an utterance and its words in capitals a line
"""

from __future__ import annotations

import re
from pathlib import Path

from earnest.alignment.layouts.tree import GENDERS, audio_below
from earnest.alignment.recordings import Recording

CORPUS = "librispeech"
_UTTERANCE = re.compile(r"\d+-\d+-\d+")
"""Whole chapters may lie in the same tree."""


def read(folder: Path) -> list[Recording]:
    """One recording per utterance that has audio or words."""
    tables = sorted(folder.rglob("*.trans.txt"))
    if not tables:
        return []
    words: dict[str, str] = {}
    files = {path.stem: path for path in audio_below(folder) if _UTTERANCE.fullmatch(path.stem)}
    for table in tables:
        for line in table.read_text("utf-8").splitlines():
            name, _, said = line.strip().partition(" ")
            if name:
                words[name] = said
                files.setdefault(name, table.with_name(f"{name}.flac"))
    genders = _genders(folder)
    return [_recording(name, files[name], words.get(name, ""), genders) for name in sorted(files)]


def _recording(name: str, audio: Path, said: str, genders: dict[str, str]) -> Recording:
    chapter = name.rpartition("-")[0]
    speaker = chapter.partition("-")[0]
    return Recording(
        id=name,
        corpus=CORPUS,
        audio=audio,
        recording=f"{CORPUS}/{chapter}",
        # Capitals tell nothing here, and a reader would take them for shouting.
        content=said.lower(),
        spoken=True,
        details={"gender": genders.get(speaker, ""), "language": "English"},
        modality="speech",
        speaker=f"{CORPUS}/{speaker}",
    )


def _genders(folder: Path) -> dict[str, str]:
    table = next((path for at in (folder, folder.resolve().parent) if (path := at / "SPEAKERS.TXT").is_file()), None)
    if table is None:
        return {}
    rows = [line.split("|") for line in table.read_text("utf-8").splitlines() if not line.startswith(";")]
    return {cells[0].strip(): GENDERS.get(cells[1].strip(), "") for cells in rows if len(cells) > 1}
