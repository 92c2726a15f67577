"""Rows of a JSONL, JSON, CSV or TSV file with the lines that they stand on, and faults gathered by line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from earnest.errors import ManifestError

SUFFIXES: tuple[str, ...] = (".jsonl", ".json", ".csv", ".tsv")
LINES_SHOWN = 5
"""How many line numbers of one repeated fault are printed."""


@dataclass(frozen=True)
class Row:
    """One row: the line on which it begins (1 is the first), and its cells by column."""

    line: int
    cells: dict[str, Any]


@dataclass
class Faults:
    """Faults by line; the same sentence on many lines is said once."""

    by_text: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def add(self, line: int, text: str) -> None:
        """Notes one fault."""
        self.by_text.setdefault(text, []).append(line)

    def settle(self, path: Path | str, rows: Sequence[object], none: str) -> None:
        """Ends the reading of a file.

        Args:
            path: of the file.
            rows: what was read.
            none: the fault where there is neither a row nor another fault.

        Raises:
            ManifestError: all faults at once.
        """
        if not rows and not self.by_text:
            self.add(1, none)
        if self.by_text:
            raise ManifestError(str(path), self.sentences())

    def sentences(self) -> list[str]:
        """One sentence per fault, sorted by its first line."""
        return [
            f"{_lines(lines)}: {text}" for text, lines in sorted(self.by_text.items(), key=lambda item: min(item[1]))
        ]


def _lines(lines: list[int]) -> str:
    if len(lines) == 1:
        return f"line {lines[0]}"
    more = f" and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else ""
    return f"lines {', '.join(str(line) for line in lines[:LINES_SHOWN])}{more}"


def read_rows(path: Path, faults: Faults) -> list[Row]:
    """Reads all rows that can be read and notes the others as faults.

    Args:
        path: a .jsonl, .json (a list of objects), .csv or .tsv file with a header, in UTF-8.
        faults: receives one fault per row that cannot be read.

    Raises:
        ManifestError: the file is missing, a folder, of another kind, or not UTF-8.
    """
    if path.is_dir():
        known = sorted(one.name for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
        remedy = f"give a file in it ({', '.join(known[:3])})" if known else f"it holds no {', '.join(SUFFIXES)}"
        raise ManifestError(str(path), [f"is a folder: {remedy}"])
    if path.suffix.lower() not in SUFFIXES:
        raise ManifestError(str(path), [f"the suffix {path.suffix!r} is unknown: give one of {', '.join(SUFFIXES)}"])
    if not path.is_file():
        raise ManifestError(str(path), ["there is no such file"])
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(str(path), [f"not UTF-8 at byte {error.start}: save it as UTF-8"]) from error
    match path.suffix.lower():
        case ".jsonl":
            return _json_lines(text, faults)
        case ".json":
            return _json(text, faults)
        case suffix:
            return _csv(text, "\t" if suffix == ".tsv" else ",", faults)


def _json_lines(text: str, faults: Faults) -> list[Row]:
    rows: list[Row] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            _object(json.loads(content), line, rows, faults)
        except json.JSONDecodeError as error:
            faults.add(line, f"no JSON: {error.msg} at column {error.colno}")
    return rows


def _json(text: str, faults: Faults) -> list[Row]:
    rows: list[Row] = []
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    place = len(text) - len(text.lstrip())
    if text[place : place + 1] != "[":
        faults.add(1, "not a list: a .json manifest is a list of objects (one object a line is .jsonl)")
        return rows
    try:
        json.loads(text)
        # Decoded again element by element, since only the position of an element tells its line.
        while text[(place := _skip(text, place + 1))] != "]":
            line += text.count("\n", counted, place)
            counted = place
            value, end = decoder.raw_decode(text, place)
            _object(value, line, rows, faults)
            if text[(place := _skip(text, end))] == "]":
                break
    except json.JSONDecodeError as error:
        faults.add(error.lineno, f"no JSON: {error.msg} at column {error.colno}")
    return rows


def _skip(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


def _object(value: Any, line: int, rows: list[Row], faults: Faults) -> None:
    if isinstance(value, dict):
        rows.append(Row(line, cast(dict[str, Any], value)))
    else:
        faults.add(line, f"a {type(value).__name__} where an object with columns is needed")


def _csv(text: str, delimiter: str, faults: Faults) -> list[Row]:
    rows: list[Row] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [name.strip() for name in cells]
            elif len(cells) != len(header):
                faults.add(
                    begins,
                    f"{len(cells)} cells, but the header has {len(header)} (quote texts with {delimiter!r})",
                )
            else:
                # An empty cell is how CSV says "none".
                rows.append(Row(begins, {name: cell for name, cell in zip(header, cells, strict=True) if cell}))
    except csv.Error as error:
        faults.add(reader.line_num, f"no CSV: {error}")
    return rows
