"""The scorecard: any `Finding` as one page of HTML, light and dark, without outside resources."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from earnest.example import Example
from earnest.files import write_atomic
from earnest.finding import Finding, Metric, Table
from earnest.report.players import Pair, choose, player
from earnest.report.plots import curves_svg

OUTCOMES: tuple[str, ...] = ("correct", "wrong", "abstained", "refused", "malformed", "unfinished", "failed")
"""In the order in which the page shows them."""


@dataclass(frozen=True)
class Header:
    """What the page says about the run.

    Attributes:
        model: what the user called the model.
        data: what it was asked.
        command: repeats the run.
        facts: further lines, such as versions and the machine.
    """

    model: str
    data: str
    command: str
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Cell:
    """A table's cell, ready to be drawn.

    Attributes:
        text: what is written.
        metric: drawn as a bar with its interval, if the cell holds a rate.
        heat: share of its row, 0 to 1, if the table is a matrix.
        diagonal: whether row and column of a matrix have the same name.
        numeric: set flush right.
    """

    text: str
    metric: Metric | None = None
    heat: float | None = None
    diagonal: bool = False
    numeric: bool = False


@dataclass(frozen=True)
class Grid:
    """A table, ready to be drawn; `matrix` if its columns carry the names of its rows."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    matrix: bool


def write_scorecard(
    path: Path,
    finding: Finding,
    examples: Sequence[Example],
    header: Header,
    *,
    players: int = 20,
    pairs: Sequence[Pair] = (),
) -> Path:
    """Writes the page.

    Args:
        path: the file.
        finding: what an audit returned; its metric "accuracy" is the headline, its notes are shown first.
        examples: by id the clips and questions of the finding's records.
        header: what the page says about the run.
        players: how many examples can be listened to.
        pairs: faults that can be listened to, before and after what was changed.

    Returns:
        `path`.

    Raises:
        AudioError: a clip that is to be played cannot be read any more.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("earnest.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    by_id = {example.id: example for example in examples}
    shown = [finding.records[index] for index in choose(finding.records, players)]
    counts = {name: sum(record["outcome"] == name for record in finding.records) for name in OUTCOMES}
    plots = [
        (title, Markup(curves_svg(list(curves))))
        for title, curves in groupby(finding.curves, key=lambda curve: curve.title)
    ]
    page = environment.get_template("scorecard.html.j2").render(
        header=header,
        finding=finding,
        headline=finding.metrics.get("accuracy"),
        counts=counts,
        total=len(finding.records),
        grids=[_grid(table) for table in finding.tables],
        plots=plots,
        pairs=pairs,
        players=[player(by_id[record["id"]], record) for record in shown],
        percent=percent,
    )
    write_atomic(path, page)
    return path


def percent(fraction: float) -> str:
    """A fraction of 1 in per cent with one decimal."""
    return f"{100 * fraction:.1f}"


def _grid(table: Table) -> Grid:
    names = {str(row[0]) for row in table.rows}
    matrix = len(names) > 1 and names <= set(table.columns[1:])
    rows: list[tuple[Cell, ...]] = []
    for row in table.rows:
        numbers = [cell for cell in row[1:] if isinstance(cell, int | float)]
        total = sum(numbers) if matrix else 0
        cells: list[Cell] = []
        for column, value in zip(table.columns, row, strict=True):
            heat = value / total if matrix and total and isinstance(value, int | float) else None
            cells.append(
                Cell(
                    text=_text(value) if not (matrix and value == 0) else "",
                    metric=value if isinstance(value, Metric) and value.unit == "fraction" else None,
                    heat=heat,
                    diagonal=matrix and str(row[0]) == column,
                    numeric=isinstance(value, int | float | Metric),
                )
            )
        rows.append(tuple(cells))
    return Grid(table.title, table.note, table.columns, tuple(rows), matrix)


def _text(value: str | int | float | Metric | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if math.isfinite(value) else str(value)
    return str(value)
