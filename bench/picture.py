"""Draws the README's picture from a finished run: `python bench/picture.py RUN docs/scorecard.png`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from earnest.finding import Metric, Table
from earnest.run import read_findings

INK, SOFT, TRACK = "#1d1f24", "#666a73", "#eceae5"
COLOURS = {
    "correct": "#2c8a57",
    "wrong": "#c8443c",
    "abstained": "#d79a22",
    "refused": "#8d5fb8",
    "malformed": "#7c7f88",
    "unfinished": "#a8765a",
    "failed": "#33363d",
}
GROUPS = ("Accuracy by modality", "Accuracy by snr db", "Accuracy by template")


def draw(run: Path, target: Path) -> None:
    """Headline, outcomes, and accuracy by modality, noise and template with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    finding = next(finding for finding in read_findings(run) if finding.name == "answers")
    tables = {table.title: table for table in finding.tables}
    left = [tables[title] for title in GROUPS[:2] if title in tables]
    right = [tables[title] for title in GROUPS[2:] if title in tables]
    rows = max(sum(len(table.rows) + 1.6 for table in column) for column in (left, right))
    figure = pyplot.figure(figsize=(11, 1.7 + 0.24 * rows), dpi=120, facecolor="white")
    top = figure.add_axes((0.03, 1 - 1.45 / figure.get_figheight(), 0.94, 1.35 / figure.get_figheight()))
    _headline(top, finding.metrics, finding.notes[0])
    height = 1 - 1.6 / figure.get_figheight()
    for x, tables_of_column in ((0.03, left), (0.52, right)):
        _column(figure.add_axes((x, 0.01, 0.46, height)), tables_of_column, rows)
    figure.savefig(target)


def _headline(axes, metrics: dict[str, Metric], note: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.axis("off")
    accuracy = metrics["accuracy"]
    axes.text(0, 0.98, textwrap.fill(note, 150), fontsize=9, color=SOFT, va="top")
    axes.text(0, 0.34, f"{100 * accuracy.value:.1f} %", fontsize=30, weight="bold", color=INK)
    interval = f"accuracy, 95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} %, n = {accuracy.n}"
    axes.text(0.17, 0.38, interval, fontsize=11, color=SOFT)
    start = 0.0
    for name, colour in COLOURS.items():
        share = metrics[f"share.{name}"].value
        axes.barh(0.12, share, 0.14, left=start, color=colour)
        if share > 0.03:
            axes.text(start + share / 2, 0.11, name, fontsize=8, color="white", ha="center", va="center")
        start += share


def _column(axes, tables: list[Table], rows: float) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(rows, 0)
    axes.axis("off")
    y, left, width = 0.5, 0.31, 0.42
    for table in tables:
        axes.text(0, y, table.title, fontsize=10, weight="bold", color=INK, va="center")
        for row in table.rows:
            y += 1
            metric = row[1]
            assert isinstance(metric, Metric)
            axes.text(0.02, y, str(row[0]).replace("_", " "), fontsize=8.5, color=INK, va="center")
            axes.barh(y, width, 0.5, left=left, color=TRACK)
            axes.barh(y, width * metric.value, 0.5, left=left, color="#2f5fd0", alpha=0.35)
            axes.plot([left + width * metric.low, left + width * metric.high], [y, y], color="#2f5fd0", lw=2)
            axes.plot([left + width * metric.value], [y], marker="|", ms=8, mew=2, color=INK)
            text = f"{100 * metric.value:.0f} %  [{100 * metric.low:.0f}, {100 * metric.high:.0f}]  n = {metric.n}"
            axes.text(left + width + 0.015, y, text, fontsize=7.5, color=SOFT, va="center")
        y += 1.6


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
