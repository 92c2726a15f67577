"""Findings' tables in the terminal."""

from __future__ import annotations

import math
from typing import TypeGuard

from earnest.cli.console import console
from earnest.finding import Metric, Table


def print_table(table: Table) -> None:
    """A finding's table, each row on one line however long.

    The n of the metrics stands once: in the title where all rest on as many, else in a column of its own, or beside
    each where those of one row differ.
    """
    by_row = [{cell.n for cell in row if _is_known(cell)} for row in table.rows]
    every = set[int]().union(*by_row)
    beside = any(len(ns) > 1 for ns in by_row)
    title, columns = table.title, table.columns
    rows = [[_text(cell, with_n=beside) for cell in row] for row in table.rows]
    if len(every) == 1:
        title = f"{title}, n = {every.pop()}"
    elif every and not beside:
        columns = (*columns, "n")
        rows = [[*row, *(map(str, ns) if ns else [""])] for row, ns in zip(rows, by_row, strict=True)]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    console.print(title, markup=False)
    for row in (columns, *rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        console.print(line, markup=False, soft_wrap=True)


def _is_known(cell: object) -> TypeGuard[Metric]:
    return isinstance(cell, Metric) and not math.isnan(cell.value)


def _text(cell: str | int | float | Metric | None, *, with_n: bool) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Metric):
        if not _is_known(cell):
            return "-"
        return str(cell) if with_n else str(cell).split(", n =")[0]
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)
