"""MELD: utterances of a television series, with emotions.

    PART_sent_emo.csv           Utterance, Speaker, Emotion, Dialogue_ID, Utterance_ID, ...; PART is train, dev or test
    ...PART.../diaD_uttU.wav    in a folder with the part in its name, such as dev_splits_complete

It is published as video: take the sound out first, as in `ffmpeg -i X.mp4 -ac 1 -ar 16000 X.wav`. Dialogues are
numbered anew in each part. Its main speakers talk to each other everywhere: all of it is one component, with one split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from earnest.alignment.layouts.tree import audio_by_stem, read_table
from earnest.alignment.recordings import Recording
from earnest.tabular import Row

CORPUS = "meld"
SUFFIX = "_sent_emo"
PARTS: tuple[str, ...] = ("train", "dev", "test")
COLUMNS: tuple[str, ...] = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_CONTROL = re.compile("[\x80-\x9f]")


def read(folder: Path) -> list[Recording]:
    """One recording per utterance."""
    files = audio_by_stem(folder)
    return [
        _recording(row, folder, part, files)
        for part in PARTS
        for table in sorted(folder.rglob(f"{part}{SUFFIX}.csv"))
        for row in read_table(table, COLUMNS)
    ]


def _recording(row: Row, folder: Path, part: str, files: Mapping[str, list[Path]]) -> Recording:
    said, speaker, emotion, dialogue, utterance = (str(row.cells.get(name, "")) for name in COLUMNS)
    name = f"dia{dialogue}_utt{utterance}"
    inside = [path for path in files.get(name, []) if any(part in at for at in path.relative_to(folder).parts[:-1])]
    return Recording(
        id=f"{part}-{name}",
        corpus=CORPUS,
        # Never a file of another part: there the same name is another utterance.
        audio=inside[0] if inside else folder / part / f"{name}.wav",
        recording=f"{CORPUS}/{part}-dia{dialogue}",
        content=_mended(said),
        spoken=True,
        details={"emotion": emotion.capitalize(), "language": "English"},
        modality="speech",
        speaker=f"{CORPUS}/{_mended(speaker)}" if speaker else "",
    )


def _mended(text: str) -> str:
    """Quotes and dashes of Windows-1252 stand as control characters in the published tables."""
    return _CONTROL.sub(lambda found: found[0].encode("latin-1").decode("cp1252", "ignore"), text)
