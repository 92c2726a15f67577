"""The cells of a manifest's row: what each may hold, and what is wrong with one that holds something else."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from earnest.audio import Clip
from earnest.conversation import Audio, Text, read_part
from earnest.errors import AudioError, ConversationError


class CellFault(Exception):
    """What is wrong with one cell; caught cell by cell, so that one row can show several."""


def shorten(text: str, most: int = 120) -> str:
    """A text's beginning: what stands in a cell may be a whole encoded file."""
    return text if len(text) <= most else f"{text[:most]}..."


def decoded_seconds(path: Path) -> float | CellFault:
    """Seconds of an audio file, or what is wrong with it; all of it is decoded, and the samples are dropped.

    A file is decoded once as long as its size and time do not change.
    """
    try:
        if path.is_dir():
            return CellFault(f"is a folder, {path}: give the path of a file")
        if not path.is_file():
            return CellFault(f"is missing: there is no file {path}")
        stat = path.stat()
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        return CellFault(f"cannot be looked up ({cause}): give the path of a file")
    return _decoded_seconds(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2**18)
def _decoded_seconds(path: Path, size: int, _mtime_ns: int) -> float | CellFault:
    import soundfile

    if size == 0:
        return CellFault("is empty (0 bytes)")
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        return CellFault(f"cannot be read as audio ({error.error_string}): give WAV, FLAC, OGG or MP3")
    if info.frames == 0:
        return CellFault("is empty (0 samples)")
    try:
        return Clip.load(path).duration_s
    except AudioError as error:
        return CellFault(f"cannot be used: {str(error).removeprefix(f'{path}: ')}")


def json_cell(name: str, text: str) -> Any:
    """A cell that is written as JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CellFault(f"{name} {text!r} is no JSON: {error.msg}") from error


def fields_of(
    cells: Mapping[str, Any], known: Mapping[str, tuple[str, ...]], what: str, otherwise: str, faults: list[str]
) -> tuple[dict[str, Any], set[str]]:
    """Cells by field, whatever they are called; an unknown or doubled name is a fault.

    Args:
        cells: by the name that they have in the file; those without a value are left out.
        known: field to the names under which it may stand.
        what: a cell is called, such as "column".
        otherwise: where that is said which no field is for.
        faults: receives what is wrong.

    Returns:
        Cells by field, and the fields that unknown names seem to mean.
    """
    names = {alias: field for field, aliases in known.items() for alias in aliases}
    fields: dict[str, Any] = {}
    meant: set[str] = set()
    for name, value in cells.items():
        if value is None:
            continue
        if name not in names:
            close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7)
            meant |= {names[one] for one in close}
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            faults.append(f"unknown {what} {name!r}: {hint}; {otherwise}")
        elif names[name] in fields:
            faults.append(f"{what} {name!r} says {names[name]!r} a second time: drop one")
        else:
            fields[names[name]] = value
    return fields, meant


def seconds_cell(name: str, value: Any) -> float:
    """Seconds, 0 or more."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise CellFault(f"{name} is {shorten(repr(value))}: give seconds, 0 or more")
    return seconds


def text_cell(name: str, value: Any) -> str:
    """Text without blanks around it; numbers are written out."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise CellFault(f"{name} is a {type(value).__name__}: give text")
    text = str(value).strip()
    if not text:
        raise CellFault(f"{name} is empty: give text")
    return text


def choices_cell(value: Any) -> tuple[str, ...] | None:
    """At least two different options, from a list, JSON, or text with `|` or `;` between them."""
    if value is None:
        return None
    if isinstance(value, str):
        value = json_cell("choices", value) if value.lstrip().startswith("[") else re.split(r"\||;", value)
    if not isinstance(value, list):
        raise CellFault(f"choices is a {type(value).__name__}: give a list of texts")
    choices = tuple(text_cell("a choice", item) for item in cast(list[Any], value))
    if len(choices) < 2:
        raise CellFault(f"choices {list(choices)} has {len(choices)} option(s): give at least 2, or leave it out")
    if len(set(choices)) < len(choices):
        raise CellFault(f"choices {list(choices)} holds an option twice")
    return choices


def answer_cell(value: Any, choices: tuple[str, ...] | None) -> str | None:
    """The answer in the spelling of its choice; a letter that is no choice itself names one by its place."""
    if value is None:
        return None
    answer = text_cell("answer", value)
    if choices is None or answer in choices:
        return answer
    same = [choice for choice in choices if choice.casefold() == answer.casefold()]
    if len(same) == 1:
        return same[0]
    letter = answer.strip("().").upper()
    if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(choices):
        return choices[ord(letter) - ord("A")]
    close = difflib.get_close_matches(answer, choices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise CellFault(f"answer {answer!r} is none of the choices {list(choices)}{hint}")


def groups_cell(value: Any) -> dict[str, str]:
    """Group names and their values as text."""
    return {name: str(item) for name, item in object_cell("groups", value).items()}


def object_cell(name: str, value: Any) -> dict[str, Any]:
    """An object, also when it is written as JSON; empty for none."""
    if isinstance(value, str):
        value = json_cell(name, value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CellFault(f"{name} is a {type(value).__name__}: give an object of names and values")
    return cast(dict[str, Any], value)


def segments_cell(value: Any) -> tuple[tuple[float, float], ...]:
    """Segments as (start_s, end_s), from lists, JSON, or text such as `1.5-2; 4-5`."""
    if isinstance(value, str):
        value = (
            json_cell("evidence", value)
            if value.lstrip().startswith("[")
            else [part.split("-") for part in value.split(";") if part.strip()]
        )
    try:
        return tuple((float(start), float(end)) for start, end in value)
    except (TypeError, ValueError) as error:
        raise CellFault(f"evidence {value!r} is no list of segments: give [[start_s, end_s], ...]") from error


def messages_cells(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Question, answer and audio from chat messages: one user turn, the assistant's turn is the answer."""
    value = fields["messages"]
    if isinstance(value, str):
        value = json_cell("messages", value)
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in cast(list[Any], value)):
        raise CellFault("messages is no list of {role, content}")
    messages = cast(list[Mapping[str, Any]], value)
    roles = [message.get("role") for message in messages]
    if [role for role in roles if role != "system"] not in (["user"], ["user", "assistant"]):
        raise CellFault(f"messages has the roles {roles}: one user turn and at most one answer are understood")
    contents = {str(message["role"]): message.get("content") for message in messages}
    text, clips = _content(contents["user"], folder)
    listed = fields.get("audio")
    given: list[Any] = [*(cast(list[Any], listed) if isinstance(listed, list) else [listed] * (listed is not None))]
    holders = text.count("<audio>")
    if holders and holders != len(given) + len(clips):
        raise CellFault(f"{holders} <audio> placeholder(s) for {len(given) + len(clips)} clip(s)")
    if not given and not clips:
        raise CellFault("no audio: neither 'audios' nor an audio part in messages")
    found: dict[str, Any] = {"question": text.replace("<audio>", "").strip(), "audio": [*given, *clips]}
    if "assistant" in contents and "answer" not in fields:
        found["answer"] = _content(contents["assistant"], folder)[0].strip()
    return found


def _content(content: Any, folder: Path) -> tuple[str, list[Clip]]:
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise CellFault(f"messages has a {type(content).__name__} as content: give text or a list of parts")
    try:
        parts = [read_part(part, "messages: a part", folder) for part in cast(list[Any], content)]
    except (ConversationError, AudioError) as error:
        raise CellFault(str(error)) from error
    texts = [part.text for part in parts if isinstance(part, Text)]
    return "".join(texts), [part.clip for part in parts if isinstance(part, Audio)]
