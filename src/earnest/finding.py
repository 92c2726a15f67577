"""What an audit returns and a report draws: metrics with their intervals, tables, curves, records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass(frozen=True)
class Metric:
    """A number with its interval.

    Attributes:
        value: the number; a rate is a fraction of 1. May be infinite or nan where a ratio is.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of items that it rests on.
        method: how the interval was made, with level and seed, as in "wilson 95 %".
        unit: "fraction" (of 1), "s", "points", ...; empty for a plain number.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    unit: str = "fraction"

    def __str__(self) -> str:
        """As in `70.3 % [65.1, 75.0], n = 333`."""
        scale, digits, unit = (100.0, 1, " %") if self.unit == "fraction" else (1.0, 3, f" {self.unit}".rstrip())
        value, low, high = (f"{number * scale:.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value}{unit} [{low}, {high}], n = {self.n}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict; what is not finite becomes text, since JSON has no number for it."""
        return {
            "value": _plain(self.value),
            "low": _plain(self.low),
            "high": _plain(self.high),
            "n": self.n,
            "method": self.method,
            "unit": self.unit,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Metric:
        """Inverse of `to_json`."""
        numbers = {name: float(row[name]) for name in ("value", "low", "high")}
        return Metric(**numbers, n=row["n"], method=row["method"], unit=row["unit"])


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a cell is text, a number, a Metric or empty.

    Attributes:
        title: what the table shows.
        columns: their names.
        rows: one cell per column.
        note: what a reader must know beside it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | Metric | None, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Checks that the table is rectangular."""
        assert all(len(row) == len(self.columns) for row in self.rows), f"ragged rows in {self.title!r}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [[_cell(cell) for cell in row] for row in self.rows],
            "note": self.note,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Table:
        """Inverse of `to_json`."""
        rows = tuple(tuple(_from_cell(cell) for cell in cells) for cells in row["rows"])
        return Table(row["title"], tuple(row["columns"]), rows, row["note"])


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        title: what the plot shows; curves of one title share a plot.
        label: the name of this line.
        x_label: the axis, with its unit.
        y_label: the axis, with its unit.
        x: [N] positions.
        y: [N] values.
        low: [N] lower ends of the intervals, or empty.
        high: [N] upper ends of the intervals, or empty.
    """

    title: str
    label: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @staticmethod
    def of(title: str, label: str, x_label: str, y_label: str, x: Iterable[float], y: Iterable[Metric]) -> Curve:
        """A line of metrics, with their intervals."""
        metrics = tuple(y)
        values, low, high = (tuple(getattr(each, name) for each in metrics) for name in ("value", "low", "high"))
        return Curve(title, label, x_label, y_label, tuple(x), values, low, high)

    def __post_init__(self) -> None:
        """Checks that all points are complete."""
        sizes = (len(self.y), len(self.low) or len(self.x), len(self.high) or len(self.x))
        assert sizes == (len(self.x),) * 3, f"points of {self.title!r} / {self.label!r} are incomplete"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        names = {name: getattr(self, name) for name in ("title", "label", "x_label", "y_label")}
        numbers = {name: [_plain(v) for v in getattr(self, name)] for name in ("x", "y", "low", "high")}
        return {**names, **numbers}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Curve:
        """Inverse of `to_json`."""
        numbers = {name: tuple(float(v) for v in row[name]) for name in ("x", "y", "low", "high")}
        return Curve(row["title"], row["label"], row["x_label"], row["y_label"], **numbers)


@dataclass(frozen=True)
class Finding:
    """The result of one audit.

    Attributes:
        name: dotted path such as "answers" or "reliability.idk"; prefix of its metrics' names.
        metrics: name, such as "accuracy.sound", to metric.
        tables: in the order in which they are shown.
        curves: in the order in which they are shown.
        records: one plain dict per item, such as `earnest.grading.Record.to_json` makes them.
        notes: sentences for the reader.
    """

    name: str
    metrics: dict[str, Metric] = field(default_factory=dict[str, Metric])
    tables: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()
    records: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict, records included."""
        return {
            "name": self.name,
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "tables": [table.to_json() for table in self.tables],
            "curves": [curve.to_json() for curve in self.curves],
            "records": list(self.records),
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Finding:
        """Inverse of `to_json`."""
        return Finding(
            row["name"],
            {name: Metric.from_json(metric) for name, metric in row["metrics"].items()},
            tuple(Table.from_json(table) for table in row["tables"]),
            tuple(Curve.from_json(curve) for curve in row["curves"]),
            tuple(row["records"]),
            tuple(row["notes"]),
        )


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(float(number))


def _cell(cell: str | int | float | Metric | None) -> Any:
    if isinstance(cell, Metric):
        return {"metric": cell.to_json()}
    if isinstance(cell, float) and not math.isfinite(cell):
        return {"number": str(cell)}
    return cell


def _from_cell(cell: Any) -> str | int | float | Metric | None:
    if isinstance(cell, dict):
        row = cast(dict[str, Any], cell)
        return Metric.from_json(row["metric"]) if "metric" in row else float(row["number"])
    return cell
