"""Sets of harmful and benign requests, read from the user's disk in the form in which they are published.

None is shipped; `layouts` has the forms that are known.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earnest.cells import CellFault, decoded_seconds, text_cell
from earnest.errors import EarnestError, ManifestError
from earnest.safety.layouts import LAYOUTS, OWN, Cells
from earnest.tabular import Faults, Row, read_rows

HUB = "hub:"
"""`hub:ORG/NAME` or `hub:ORG/NAME:CONFIG` names a set on the Hugging Face hub."""


@dataclass(frozen=True)
class Request:
    """Something that a model is asked to do.

    Attributes:
        text: in words.
        harmful: whether it is to be declined.
        id: unique in its set.
        kind: its category.
        pair: a name that a harmful request and its benign rewrite share.
        source: name of the set.
        audio: the request as speech; None if it is not spoken yet.
        rewriter: who made it of another request; empty for one of the set's own.
    """

    text: str
    harmful: bool
    id: str = ""
    kind: str = ""
    pair: str = ""
    source: str = ""
    audio: Path | None = None
    rewriter: str = ""


def read_requests(path: Path | str, layout: str | None = None, left_out: dict[str, str] | None = None) -> list[Request]:
    """Reads a set; ids of published sets begin with the file's name, so that several files can be joined.

    Args:
        path: a .jsonl, .json, .csv or .tsv file, or `hub:ORG/NAME[:CONFIG]`, all of whose splits are read.
        layout: a name of `LAYOUTS`; None to tell it by the columns.
        left_out: receives id and reason of requests of which the set does not tell whether they are harmful.

    Raises:
        EarnestError: an unknown layout, or a set on the hub that cannot be had.
        ManifestError: columns that fit no layout or several, or all faults of the rows at once.
    """
    if layout is not None and layout not in LAYOUTS:
        raise EarnestError(f"layout {layout!r} is unknown: give one of {', '.join(LAYOUTS)}")
    if str(path).startswith(HUB):
        tables = _from_hub(str(path))
    else:
        path, faults = Path(path), Faults()
        tables = [_Table(str(path), path.stem, read_rows(path, faults), path.parent, faults)]
    unknown: dict[str, str] = {} if left_out is None else left_out
    return [request for table in tables for request in _requests(table, layout, unknown)]


@dataclass(frozen=True)
class _Table:
    """Rows, where they are from, what a set may be told by, and the folder of the sound files."""

    where: str
    name: str
    rows: Sequence[Row]
    folder: Path | None = None
    faults: Faults = field(default_factory=Faults)


def _requests(table: _Table, named: str | None, left_out: dict[str, str]) -> list[Request]:
    found: list[Request] = []
    # JSON's null says "none", as an empty cell does.
    rows = [Row(row.line, {name: cell for name, cell in row.cells.items() if cell is not None}) for row in table.rows]
    if rows:
        columns = {column for row in rows for column in row.cells}
        key = named or _told_by(columns, table.faults)
        if key and _fits(key, columns, table.faults):
            reader = _Reader(table, key)
            found = _told([reader.read(row) for row in rows], LAYOUTS[key].one_per_text, left_out)
    elif not table.faults.by_text:
        table.faults.add(1, "no rows: give at least one request")
    if table.faults.by_text:
        raise ManifestError(table.where, table.faults.sentences())
    return found


def _told_by(columns: set[str], faults: Faults) -> str:
    """The layout whose columns are there; of two, the one that asks for more. Else empty, and a fault."""
    fitting = {key: layout for key, layout in LAYOUTS.items() if layout.needs <= columns and not layout.by_name}
    best = [key for key, layout in fitting.items() if not any(layout.needs < other.needs for other in fitting.values())]
    if len(best) == 1:
        return best[0]
    known = "; ".join(f"{key} ({', '.join(sorted(layout.needs))})" for key, layout in LAYOUTS.items())
    told = f"fit the layouts {' and '.join(best)}: name one of them" if best else "fit no layout: give one of them"
    faults.add(1, f"the columns {', '.join(sorted(columns))} {told}; known are {known}")
    return ""


def _fits(key: str, columns: set[str], faults: Faults) -> bool:
    """Whether rows can be read; a column that our own layout does not know is a fault too."""
    layout = LAYOUTS[key]
    known = {*layout.text, *layout.needs, *layout.id, layout.kind, layout.pair, layout.audio}
    for column in sorted(columns - known) if key == OWN else ():
        near = difflib.get_close_matches(column, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
        faults.add(1, f"unknown column {column!r}: {hint}")
    if absent := sorted(layout.needs - columns):
        faults.add(1, f"the layout {key} needs {', '.join(absent)}: there are {', '.join(sorted(columns))}")
    return not absent


def _told(found: Sequence[tuple[Request, bool | None]], one_per_text: bool, left_out: dict[str, str]) -> list[Request]:
    """Those whose harm is told; of rows with one text the first that tells."""
    told: dict[str, Request] = {}
    for request, harm in found:
        if harm is not None:
            told.setdefault(request.text if one_per_text else request.id, request)
    untold = {request.text: request.id for request, harm in reversed(found) if harm is None}
    for text, name in reversed(untold.items()):
        if text not in told:
            left_out[name] = "no answer to it was judged unsafe, which does not make it benign"
    return list(told.values())


class _Reader:
    """Turns rows into requests; all that is wrong goes to the table's faults."""

    def __init__(self, table: _Table, key: str) -> None:
        self.table = table
        self.key = key
        self.layout = LAYOUTS[key]
        self.line_of_id: dict[str, int] = {}

    def read(self, row: Row) -> tuple[Request, bool | None]:
        """A request and whether it is harmful; a stand-in where a cell is at fault."""
        layout, own = self.layout, self.key == OWN
        harm = self._cell(row, None, lambda: self._harm(row.cells))
        pair = _get(row.cells, layout.pair)
        request = Request(
            text=self._cell(row, "", lambda: self._text(row.cells)),
            harmful=harm is True,
            id=self._id(row),
            kind=_kind(_get(row.cells, layout.kind)),
            pair="" if pair is None else str(pair) if own else f"{self.key}-{pair}",
            source=self.table.name if own else self.key,
            audio=self._cell(row, None, lambda: self._audio(_get(row.cells, layout.audio))),
        )
        return request, harm

    def _cell(self, row: Row, otherwise: Any, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except CellFault as fault:
            self.table.faults.add(row.line, str(fault))
            return otherwise

    def _harm(self, cells: Cells) -> bool | None:
        try:
            return self.layout.harm(cells, self.table.name)
        except KeyError as missing:
            raise CellFault(f"no {missing}: the cell is missing or empty") from missing

    def _text(self, cells: Cells) -> str:
        *context, asked = self.layout.text
        if asked not in cells:
            raise CellFault(f"no {asked!r}: the cell is missing or empty")
        there = [column for column in context if column in cells]
        return "\n\n".join(text_cell(column, cells[column]) for column in [*there, asked])

    def _id(self, row: Row) -> str:
        parts = [str(row.cells[column]) for column in self.layout.id if column in row.cells]
        name = "-".join(parts) if parts else str(row.line)
        if self.key != OWN or not parts:
            name = f"{self.table.name}-{name}"
        first = self.line_of_id.setdefault(name, row.line)
        if first != row.line:
            self.table.faults.add(row.line, f"id {name!r} stands on line {first} already: ids must be unique")
        return name

    def _audio(self, value: Any) -> Path | None:
        if value is None:
            return None
        if not isinstance(value, str) or self.table.folder is None:
            raise CellFault("audio is no path of a file: download the set and list its files")
        path = self.table.folder / value
        if isinstance(fault := decoded_seconds(path), CellFault):
            raise CellFault(f"audio {value!r} {fault}")
        return path


def _get(cells: Cells, column: str) -> Any:
    # A nameless column, such as the row numbers of a data frame, is not the one that a layout lacks.
    return cells.get(column) if column else None


def _kind(value: Any) -> str:
    """A category; of several flags (BeaverTails) the first that is set."""
    if isinstance(value, dict):
        return next((str(name) for name, flag in value.items() if flag), "")
    return "" if value is None else str(value)


def _from_hub(name: str) -> list[_Table]:
    """The splits of `hub:ORG/NAME[:CONFIG]`."""
    repository, _, config = name.removeprefix(HUB).partition(":")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise EarnestError(f"{name} needs the package datasets ({error}): pip install datasets") from error
    try:
        splits = datasets.load_dataset(repository, config or None)
    except Exception as error:  # Whatever the hub, the network or a loader raises.
        raise EarnestError(f"{name} cannot be had: {error}. Check the name, or download the set as a file") from error
    title = "-".join(filter(None, (repository.split("/")[-1], config)))
    return [
        _Table(f"{name}, split {split}", f"{title}-{split}", [Row(line, dict(row)) for line, row in enumerate(rows, 1)])
        for split, rows in splits.items()
    ]
