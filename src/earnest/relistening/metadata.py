"""Clips that are described in words and times: what a writer who hears nothing is told of each.

A file of metadata is JSONL, JSON, CSV or TSV. Its columns:

    audio         path, relative to the file                       (also audio_path, file)
    events        list of {start, end, label} in seconds           (also start_s, end_s; text, with a label or alone)
    duration      seconds; what the file holds counts              (also duration_s)
    description   text, or a list of texts                         (also caption)
    speech        what is said: text, or a list of texts           (also transcript, transcription)
    music         what is played: text, or a list of texts
    id            unique; "line-N" where it is missing             (also index)
    groups, meta  objects that are carried along
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from earnest.cells import (
    CellFault,
    decoded_seconds,
    fields_of,
    groups_cell,
    json_cell,
    object_cell,
    seconds_cell,
    shorten,
    text_cell,
)
from earnest.tabular import Faults, Row, read_rows

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "index"),
    "audio": ("audio", "audio_path", "file"),
    "duration": ("duration", "duration_s"),
    "description": ("description", "caption"),
    "speech": ("speech", "transcript", "transcription"),
    "music": ("music",),
    "events": ("events",),
    "groups": ("groups",),
    "meta": ("meta",),
}
"""Field to the column names under which it may stand."""
TOLERANCE_S = 0.5
"""Annotations are rounded: so much may a duration differ from the file, or an event end behind it."""
_TIMES = {"start": ("start", "start_s"), "end": ("end", "end_s")}
_EVENT_KEYS = (*_TIMES["start"], *_TIMES["end"], "label", "text")


@dataclass(frozen=True)
class Event:
    """Something that is heard at a known time.

    Attributes:
        start_s: in seconds of the clip.
        end_s: behind the start, at most the clip's end.
        label: what it is, in words.
    """

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Described:
    """A clip in words and times.

    Attributes:
        id: unique in its file.
        audio: its file.
        duration_s: as long as the file, to the hundredth below, so that what is written as its end lies within it.
        events: by their start; at least one.
        description: of the whole; empty if there is none.
        speech: what is said.
        music: what is played.
        groups: carried along.
        meta: carried along.
    """

    id: str
    audio: Path
    duration_s: float
    events: tuple[Event, ...]
    description: str = ""
    speech: str = ""
    music: str = ""
    groups: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    meta: dict[str, Any] = field(default_factory=dict[str, Any], hash=False)

    @property
    def simulation(self) -> str:
        """The clip as text: its duration, three captions, its events with their times."""
        captions = {"Description": self.description, "Speech": self.speech, "Music": self.music}
        return "\n".join(
            [
                f"Duration: {self.duration_s:.2f} s",
                *(f"{name}: {text or 'not described'}" for name, text in captions.items()),
                "Events:",
                *(f"  {event.start_s:.2f} to {event.end_s:.2f} s: {event.label}" for event in self.events),
            ]
        )


def read_metadata(path: Path | str) -> list[Described]:
    """Reads a file of metadata and checks all of it before anything runs; its audio files are decoded.

    Raises:
        ManifestError: every fault of the file at once, each with its line; a clip that cannot be read is one.
    """
    path = Path(path)
    faults = Faults()
    reader = _Reader(path.parent, faults)
    clips = [reader.read(row) for row in read_rows(path, faults)]
    faults.settle(path, clips, "no rows: give at least one with audio and events")
    return clips


class _Reader:
    """Turns rows into clips; all that is wrong goes to `faults`."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder = folder
        self.faults = faults
        self.line_of_id: dict[str, int] = {}

    def read(self, row: Row) -> Described:
        """One clip; where a cell is at fault it holds a stand-in and is never returned."""
        fields = self._columns(row)
        audio = self._cell(row, Path(), lambda: self._audio(fields.get("audio")))
        duration_s = self._cell(row, math.inf, lambda: self._duration_s(audio, fields))
        texts = {
            name: self._cell(row, "", lambda name=name: _texts(name, fields.get(name)))
            for name in ("description", "speech", "music")
        }
        return Described(
            id=self._id(row, fields.get("id")),
            audio=audio,
            duration_s=duration_s,
            events=self._events(row, fields["events"], duration_s) if "events" in fields else (),
            **texts,
            groups=self._cell(row, {}, lambda: groups_cell(fields.get("groups"))),
            meta=self._cell(row, {}, lambda: object_cell("meta", fields.get("meta"))),
        )

    def _cell(self, row: Row, otherwise: Any, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except CellFault as fault:
            self.faults.add(row.line, str(fault))
            return otherwise

    def _columns(self, row: Row) -> dict[str, Any]:
        """Cells by field; unknown, missing and doubled columns are faults."""
        faults: list[str] = []
        fields, excused = fields_of(row.cells, COLUMNS, "column", "'meta' carries anything along", faults)
        # A misspelt column is one fault, not also a missing one.
        missing = [name for name in ("audio", "events") if name not in fields and name not in excused]
        for fault in [*faults, *(f"no {name!r}: the column is missing or empty" for name in missing)]:
            self.faults.add(row.line, fault)
        return fields

    def _id(self, row: Row, value: Any) -> str:
        name = f"line-{row.line}" if value is None else str(value)
        first = self.line_of_id.setdefault(name, row.line)
        if first != row.line:
            self.faults.add(row.line, f"id {name!r} stands on line {first} already: ids must be unique")
        return name

    def _audio(self, value: Any) -> Path:
        return Path() if value is None else self.folder / text_cell("audio", value)

    def _duration_s(self, audio: Path, fields: Mapping[str, Any]) -> float:
        """Seconds of the file; infinite where there is none to read, which is a fault of its own."""
        given_s = seconds_cell("duration", fields["duration"]) if "duration" in fields else None
        if audio == Path():
            return math.inf
        held_s = decoded_seconds(audio)
        if isinstance(held_s, CellFault):
            raise CellFault(f"audio {shorten(str(fields['audio']))!r} {held_s}")
        if given_s is not None and abs(given_s - held_s) > TOLERANCE_S:
            raise CellFault(
                f"duration is {given_s:g} s, the file holds {held_s:.2f} s (up to {TOLERANCE_S:g} s apart are "
                "taken): leave it out, or mend the file"
            )
        return math.floor(held_s * 100) / 100

    def _events(self, row: Row, value: Any, duration_s: float) -> tuple[Event, ...]:
        """All that can be read; each of the others is a fault."""
        if isinstance(value, str):
            value = self._cell(row, None, lambda: json_cell("events", value))
            if value is None:
                return ()
        if not isinstance(value, list) or not value:
            self.faults.add(row.line, "events is no list with at least one {start, end, label}")
            return ()
        found: list[Event] = []
        for number, entry in enumerate(cast(list[Any], value), start=1):
            try:
                found.append(_event(entry, duration_s))
            except CellFault as fault:
                self.faults.add(row.line, f"event {number}: {fault}")
        return tuple(sorted(found, key=lambda event: (event.start_s, event.end_s)))


def _event(entry: Any, duration_s: float) -> Event:
    if not isinstance(entry, Mapping):
        raise CellFault(f"a {type(entry).__name__}: give an object {{start, end, label}}")
    cells = cast(Mapping[str, Any], entry)
    for key in cells:
        if key not in _EVENT_KEYS:
            raise CellFault(f"unknown key {key!r}: known are {', '.join(_EVENT_KEYS)}; say it in the label")
    times: dict[str, float] = {}
    for name, aliases in _TIMES.items():
        given = [cells[alias] for alias in aliases if cells.get(alias) is not None]
        if len(given) != 1:
            raise CellFault(f"{len(given)} times called {name!r}: give one, in seconds")
        times[name] = seconds_cell(name, given[0])
    words = [_texts(name, cells[name]) for name in ("label", "text") if cells.get(name) is not None]
    if not any(words):
        raise CellFault("no 'label' and no 'text': say what is heard")
    start_s, end_s = times["start"], times["end"]
    if not 0 <= start_s < end_s:
        raise CellFault(f"{start_s:g} to {end_s:g} s is no segment: it needs 0 <= start < end")
    if start_s >= duration_s or end_s > duration_s + TOLERANCE_S:
        raise CellFault(f"{start_s:g} to {end_s:g} s reaches outside the clip ({duration_s:.2f} s)")
    return Event(start_s, min(end_s, duration_s), ": ".join(filter(None, words)))


def _texts(name: str, value: Any) -> str:
    """Text on one line; several are put one behind the other."""
    values: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value] * (value is not None)
    texts: list[str] = []
    for item in values:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise CellFault(f"{name} is a {type(item).__name__}: give text, or a list of texts")
        texts.append(" ".join(str(item).split()))
    return " ".join(filter(None, texts))
