"""VCTK: speakers of many accents read sentences before two microphones.

    speaker-info.txt                                  ID AGE GENDER ACCENTS REGION ...
    txt/SPEAKER/SPEAKER_NUMBER.txt
    wav48_silence_trimmed/SPEAKER/SPEAKER_NUMBER_mic1.flac    (0.92), and _mic2
    wav48/SPEAKER/SPEAKER_NUMBER.wav                          (0.80)

Both microphones are rows, in one split.
"""

from __future__ import annotations

import re
from pathlib import Path

from earnest.alignment.layouts.tree import GENDERS, audio_below
from earnest.alignment.recordings import Recording

CORPUS = "vctk"
FOLDERS: tuple[str, ...] = ("wav48_silence_trimmed", "wav48")
_MICROPHONE = re.compile(r"_mic[12]$")


def read(folder: Path) -> list[Recording]:
    """One recording per file, and one per text that has no file."""
    audio = next((path for name in FOLDERS if (path := folder / name).is_dir()), None)
    if audio is None:
        return []
    texts = {path.stem: path.read_text("utf-8") for path in sorted((folder / "txt").rglob("*.txt"))}
    people = _people(folder / "speaker-info.txt")
    files = {path.stem: path for path in audio_below(audio)}
    heard = {_MICROPHONE.sub("", name) for name in files}
    files |= {name: audio / name.partition("_")[0] / f"{name}.flac" for name in texts if name not in heard}
    return [_recording(name, files[name], texts, people) for name in sorted(files)]


def _recording(name: str, audio: Path, texts: dict[str, str], people: dict[str, dict[str, str]]) -> Recording:
    sentence = _MICROPHONE.sub("", name)
    speaker = sentence.partition("_")[0]
    return Recording(
        id=name,
        corpus=CORPUS,
        audio=audio,
        recording=f"{CORPUS}/{sentence}",
        content=texts.get(sentence, ""),
        spoken=True,
        details={**people.get(speaker, {}), "language": "English"},
        modality="speech",
        speaker=f"{CORPUS}/{speaker}",
    )


def _people(table: Path) -> dict[str, dict[str, str]]:
    if not table.is_file():
        return {}
    found: dict[str, dict[str, str]] = {}
    for line in table.read_text("utf-8").splitlines()[1:]:
        name, age, gender, accent, *_ = [*line.split(), "", "", "", ""]
        # Older editions write 225 where the folder is p225.
        found[f"p{name}" if name.isdigit() else name] = {
            "gender": GENDERS.get(gender, ""),
            "age": age,
            "accent": "" if accent == "Unknown" else accent,
        }
    return found
