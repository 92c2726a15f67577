"""What a file of questions holds, counted row by row: rows, hours, different prompts, and the mix of tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from earnest.alignment.rows import Asked


def task_of(row: Asked) -> str:
    """What is wanted of the listener.

    A question has a question mark, anything else that is written is a task; where the audio is the request, either it
    stands alone or an instruction beside it.
    """
    if row.instruction:
        return "spoken request with an instruction" if row.question else "spoken request"
    return "question" if "?" in row.question else "task"


MIXES: dict[str, Callable[[Asked], str]] = {
    "corpora": lambda row: row.corpus,
    "modalities": lambda row: row.modality,
    "splits": lambda row: row.split,
    "tasks": task_of,
}
"""By what is counted."""


class Counts:
    """Rows, their hours and their prompts; each file counts once for the hours, however many rows are about it."""

    def __init__(self) -> None:
        self._rows = 0
        self._lengths_s: dict[Path, float] = {}
        self._prompts: set[str] = set()

    def add(self, row: Asked) -> None:
        """Counts one row."""
        self._rows += 1
        self._lengths_s[row.audio] = row.duration_s
        self._prompts.add(row.question)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a card."""
        hours = round(sum(self._lengths_s.values()) / 3600, 6)
        return {"rows": self._rows, "files": len(self._lengths_s), "hours": hours, "unique_prompts": len(self._prompts)}


class Tally:
    """The counts of all rows, and of each part of `MIXES`."""

    def __init__(self) -> None:
        self._whole = Counts()
        self._parts: dict[str, dict[str, Counts]] = {name: {} for name in MIXES}

    def add(self, row: Asked) -> None:
        """Counts one row."""
        self._whole.add(row)
        for name, of in MIXES.items():
            self._parts[name].setdefault(of(row), Counts()).add(row)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a card."""
        parts = {
            name: {part: counts.to_json() for part, counts in sorted(own.items())} for name, own in self._parts.items()
        }
        return {**self._whole.to_json(), **parts}
