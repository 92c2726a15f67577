"""The user's own clips: one row each in a JSONL, JSON, CSV or TSV file. Its columns:

    audio         path, relative to the file                                 (also audio_path, file, path)
    transcript    what is said                                               (also transcription, text)
    caption       what is heard, in words                                    (also description)
    tags          what is heard: a list, or text with ; or | between         (also labels)
    segments      list of {start, end, and transcript, caption or tags}, in seconds; also speaker, emotion, gender,
                  age, language and details of each
    emotion, gender, age, language
    details       an object of further things to say
    speaker       who speaks; in one split only                              (also speaker_id)
    recording     what the clip was cut from; in one split only              (also recording_id)
    instruction   true where the audio itself is the request
    modality      sound, music, speech or mixed; default: speech for what is said, else mixed
    split         train, validation or test, where it is decided already
    corpus        default: the file's name
    id            unique in its corpus; "line-N" where it is missing         (also index)
    meta, groups, duration    left aside: lengths come from the audio

A row has one of transcript, caption, tags and segments. One without, or without a file, is rejected when the corpus is
built; anything else that is wrong is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from earnest.alignment.recordings import DETAILS, MODALITIES, SEVERAL, Passage, Recording, joined
from earnest.alignment.rows import SPLITS
from earnest.cells import CellFault, fields_of, json_cell, object_cell, seconds_cell, text_cell
from earnest.tabular import Faults, Row, read_rows

T = TypeVar("T")

CONTENTS: dict[str, tuple[str, ...]] = {
    "transcript": ("transcript", "transcription", "text"),
    "caption": ("caption", "description"),
    "tags": ("tags", "labels"),
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "audio": ("audio", "audio_path", "file", "path"),
    **CONTENTS,
    "segments": ("segments",),
    **{name: (name,) for name in DETAILS},
    "details": ("details",),
    "speaker": ("speaker", "speaker_id"),
    "recording": ("recording", "recording_id"),
    "instruction": ("instruction",),
    "modality": ("modality",),
    "split": ("split",),
    "corpus": ("corpus",),
    "id": ("id", "index"),
}
"""Field to the column names under which it may stand."""
LEFT_ASIDE: tuple[str, ...] = ("meta", "groups", "duration", "duration_s")
SEGMENT_KEYS: dict[str, tuple[str, ...]] = {
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    **CONTENTS,
    **{name: COLUMNS[name] for name in (*DETAILS, "details", "speaker")},
}
"""Key of a segment to the names under which it may stand."""
OTHERWISE = "what else is to be said stands in 'details'"
_TRUTHS: dict[str, bool] = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read(path: Path) -> list[Recording]:
    """Reads a manifest and checks all of it; no audio is looked at.

    Raises:
        ManifestError: every fault at once, each with its line.
    """
    faults = Faults()
    reader = _Reader(path, faults)
    found = [reader.read(row) for row in read_rows(path, faults)]
    faults.settle(path, found, "no rows: give at least one with audio and transcript, caption, tags or segments")
    return found


class _Reader:
    """Turns rows into recordings; all that is wrong goes to `faults`."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self.line_of: dict[tuple[str, str], int] = {}

    def read(self, row: Row) -> Recording:
        """One recording; where a cell is at fault it holds a stand-in and is never returned."""

        def cell(otherwise: T, read: Callable[[], T]) -> T:
            try:
                return read()
            except CellFault as fault:
                self.faults.add(row.line, str(fault))
                return otherwise

        fields = self._fields(row)
        corpus = cell("", lambda: _text(fields, "corpus")) or self.path.stem
        audio = cell("", lambda: _text(fields, "audio"))
        content, spoken = cell(("", False), lambda: _content(fields))
        speaker = cell("", lambda: _named(corpus, fields, "speaker"))
        passages = self._passages(row, cell([], lambda: _entries(fields.get("segments"))), corpus, speaker)
        said = bool(passages) and all(passage.spoken for passage in passages)
        return Recording(
            id=cell("", lambda: self._id(row, corpus, _text(fields, "id"))),
            corpus=corpus,
            audio=self.path.parent / audio,
            recording=cell("", lambda: _named(corpus, fields, "recording")) or f"{corpus}/{audio}",
            content=content,
            spoken=spoken,
            details=cell({}, lambda: _details(fields)),
            passages=passages,
            modality=cell("", lambda: _one_of(fields, "modality", MODALITIES))
            or ("speech" if spoken or said else "mixed"),
            speaker=speaker,
            instruction=cell(False, lambda: _truth(fields, "instruction")),
            split=cell("", lambda: _one_of(fields, "split", SPLITS)) or None,
        )

    def _fields(self, row: Row) -> dict[str, Any]:
        cells = {name: value for name, value in row.cells.items() if name not in LEFT_ASIDE}
        faults: list[str] = []
        fields, excused = fields_of(cells, COLUMNS, "column", OTHERWISE, faults)
        # A misspelt column is one fault, not also a missing one.
        if "audio" not in fields and "audio" not in excused:
            faults.append("no 'audio': the column is missing or empty")
        if fields.keys() & CONTENTS.keys() and "segments" in fields:
            faults.append("'segments' beside a text of the whole clip: give one of them")
        for fault in faults:
            self.faults.add(row.line, fault)
        return fields

    def _passages(self, row: Row, entries: list[Any], corpus: str, speaker: str) -> tuple[Passage, ...]:
        """All that can be read; each of the others is a fault."""
        found: list[Passage] = []
        for number, entry in enumerate(entries, start=1):
            try:
                found.append(_passage(entry, corpus, speaker))
            except CellFault as fault:
                self.faults.add(row.line, f"segment {number}: {fault}")
        return tuple(found)

    def _id(self, row: Row, corpus: str, name: str) -> str:
        name = name or f"line-{row.line}"
        if (first := self.line_of.setdefault((corpus, name), row.line)) != row.line:
            raise CellFault(f"id {name!r} stands on line {first} already: ids must be unique")
        return name


def _content(fields: Mapping[str, Any]) -> tuple[str, bool]:
    """What is heard, and whether it is a transcript; nothing where nothing is given."""
    given = [name for name in CONTENTS if name in fields]
    if len(given) > 1:
        raise CellFault(f"{' and '.join(map(repr, given))}: give one, or 'segments' with a text each")
    if not given:
        return "", False
    name = given[0]
    return (_tags(fields[name]) if name == "tags" else _blank_or_text(name, fields[name])), name == "transcript"


def _tags(value: Any) -> str:
    if isinstance(value, str):
        value = json_cell("tags", value) if value.lstrip().startswith("[") else re.split(r"[;|]", value)
    if not isinstance(value, list):
        raise CellFault(f"tags is a {type(value).__name__}: give a list of texts")
    return joined([_blank_or_text("a tag", tag) for tag in cast(list[Any], value)])


def _entries(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        value = json_cell("segments", value)
    if not isinstance(value, list) or not value:
        raise CellFault("segments is no list with at least one {start, end, transcript or caption or tags}")
    return cast(list[Any], value)


def _passage(entry: Any, corpus: str, speaker: str) -> Passage:
    if not isinstance(entry, Mapping):
        raise CellFault(f"a {type(entry).__name__}: give an object {{start, end, transcript or caption or tags}}")
    faults: list[str] = []
    fields, _ = fields_of(cast(Mapping[str, Any], entry), SEGMENT_KEYS, "key", OTHERWISE, faults)
    if faults:
        raise CellFault("; ".join(faults))
    start_s, end_s = (seconds_cell(name, fields.get(name)) for name in ("start", "end"))
    if not start_s < end_s:
        raise CellFault(f"{start_s:g} to {end_s:g} s is no segment: it needs start < end")
    content, spoken = _content(fields)
    return Passage(
        start_s=start_s,
        end_s=end_s,
        content=content,
        spoken=spoken,
        speaker=_named(corpus, fields, "speaker") or (speaker if spoken else ""),
        details=_details(fields),
    )


def _details(fields: Mapping[str, Any]) -> dict[str, str]:
    own = {name: text_cell(name, fields[name]) for name in DETAILS if name in fields}
    more = {name: text_cell(name, value) for name, value in object_cell("details", fields.get("details")).items()}
    if doubled := own.keys() & {name.lower() for name in more}:
        raise CellFault(f"details says {min(doubled)!r}, which is a column too: drop one")
    return own | more


def _named(corpus: str, fields: Mapping[str, Any], name: str) -> str:
    """Names of this corpus, so that speaker 1 of two corpora is not one person; several are set apart by "; "."""
    given = [part.strip() for part in _text(fields, name).split(SEVERAL.strip())]
    return SEVERAL.join(f"{corpus}/{part}" for part in given if part)


def _text(fields: Mapping[str, Any], name: str) -> str:
    return text_cell(name, fields[name]) if name in fields else ""


def _blank_or_text(name: str, value: Any) -> str:
    """Text; a blank one is rejected later, with its clip."""
    return "" if isinstance(value, str) and not value.strip() else text_cell(name, value)


def _one_of(fields: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    if (given := _text(fields, name)) and given not in known:
        raise CellFault(f"{name} is {given!r}: give {', '.join(known)}")
    return given


def _truth(fields: Mapping[str, Any], name: str) -> bool:
    value = str(fields.get(name, False)).strip().lower()
    if value not in _TRUTHS:
        raise CellFault(f"{name} is {value!r}: give true or false")
    return _TRUTHS[value]
