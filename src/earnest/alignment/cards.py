"""What a file of surrogates or questions holds, counted row by row: rows, hours, different texts, and how they mix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from earnest.alignment.rows import Asked, Surrogate

R = TypeVar("R", bound=Surrogate)


def task_of(row: Asked) -> str:
    """What is wanted of the listener.

    A question has a question mark, anything else that is written is a task; where the audio is the request, either it
    stands alone or an instruction beside it.
    """
    if row.instruction:
        return "spoken request with an instruction" if row.question else "spoken request"
    return "question" if "?" in row.question else "task"


class _Counts:
    """Rows, their hours and their texts; each file counts once for the hours, however many rows are about it."""

    def __init__(self) -> None:
        self.rows = 0
        self.lengths_s: dict[Path, float] = {}
        self.texts: set[str] = set()

    def to_json(self, unique: str) -> dict[str, Any]:
        hours = round(math.fsum(self.lengths_s.values()) / 3600, 6)
        return {"rows": self.rows, "files": len(self.lengths_s), "hours": hours, unique: len(self.texts)}


class Tally(Generic[R]):
    """The counts of all rows, and of each part of some mixes.

    Args:
        unique: what the number of different texts is called.
        text: of a row.
        mixes: name of a mix to the part of it that a row belongs to.
    """

    def __init__(self, unique: str, text: Callable[[R], str], mixes: Mapping[str, Callable[[R], str]]) -> None:
        self._unique = unique
        self._text = text
        self._of = mixes
        self._whole = _Counts()
        self._parts: dict[str, dict[str, _Counts]] = {name: {} for name in mixes}

    def add(self, row: R) -> None:
        """Counts one row."""
        parts = [self._parts[name].setdefault(of(row), _Counts()) for name, of in self._of.items()]
        for counts in (self._whole, *parts):
            counts.rows += 1
            counts.lengths_s[row.audio] = row.duration_s
            counts.texts.add(self._text(row))

    def counts(self) -> dict[str, Any]:
        """Of all rows, as they stand in a card."""
        return self._whole.to_json(self._unique)

    def mixes(self) -> dict[str, Any]:
        """Of each part of each mix, as they stand in a card."""
        return {
            name: {part: counts.to_json(self._unique) for part, counts in sorted(own.items())}
            for name, own in self._parts.items()
        }


_OF_CLIPS: dict[str, Callable[[Surrogate], str]] = {
    "corpora": lambda row: row.corpus,
    "modalities": lambda row: row.modality,
    "splits": lambda row: row.split,
}


def surrogates_tally() -> Tally[Surrogate]:
    """Counts clips by corpus, modality, split and instruction."""
    return Tally(
        "unique_surrogates",
        lambda row: row.surrogate,
        {**_OF_CLIPS, "instructions": lambda row: "spoken" if row.instruction else "none"},
    )


def questions_tally() -> Tally[Asked]:
    """Counts questions by corpus, modality, split and task."""
    return Tally("unique_prompts", lambda row: row.question, {**_OF_CLIPS, "tasks": task_of})
