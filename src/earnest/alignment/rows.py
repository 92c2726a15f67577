"""The rows that alignment's data consists of, one file after the other, each a line of JSON more than the one before.

    surrogates.jsonl   a clip and the text that stands for it
    questions.jsonl    the same, with something to ask about it
    targets.jsonl      the same, with what the LLM replied to the text (R0) and what is learnt (R)

Paths of audio are relative to the file where they lie below its folder, else absolute.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from earnest.files import write_json_lines
from earnest.tabular import Faults, read_rows

R = TypeVar("R", bound="Surrogate")

SPLITS: tuple[str, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Surrogate:
    """A clip and the text that stands for it.

    Attributes:
        id: unique over all corpora of a file.
        audio: its file.
        surrogate: in the form of `earnest.world.surrogates`.
        duration_s: of the clip.
        corpus: where it comes from.
        modality: sound, music, speech or mixed.
        recording: clips that were cut from one recording share it, and one split.
        speaker: who speaks, where one does and is known, several with "; " between; a speaker's clips share one split.
        instruction: whether the audio itself is the request: nothing is to be hidden then.
        split: train, validation or test.
    """

    id: str
    audio: Path
    surrogate: str
    duration_s: float
    corpus: str = ""
    modality: str = "mixed"
    recording: str = ""
    speaker: str = ""
    instruction: bool = False
    split: str = "train"


@dataclass(frozen=True)
class Asked(Surrogate):
    """A clip, its surrogate, and what a user writes about it.

    Attributes:
        question: empty only where the audio itself is the request.
        clip: id of the surrogate's row: several questions may be asked about one clip.
        answer: the right one where it is known, as in the world; for the ablation of ground-truth targets alone.
    """

    question: str = ""
    clip: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Target(Asked):
    """A question with what the LLM replied to the surrogate, and what is learnt.

    Attributes:
        raw: R0, as the model wrote it, tags included.
        target: R; None where the row is rejected.
        cut: whether R0 was cut at its limit: no end of turn is learnt then.
        reason: how the target came about, or why there is none.
    """

    raw: str = ""
    target: str | None = None
    cut: bool = False
    reason: str = ""


def save_rows(rows: Iterable[Surrogate], path: Path) -> None:
    """Writes rows of any of the three kinds, whole or not at all."""
    folder = path.parent.resolve()
    write_json_lines(path, (as_json(row, folder) for row in rows))


def as_json(row: Surrogate, folder: Path) -> dict[str, Any]:
    """A row as it stands in a file of a folder, which is resolved."""
    audio = Path(os.path.abspath(row.audio))  # noqa: PTH100 (resolve() would follow links out of the folder)
    own = audio.relative_to(folder) if audio.is_relative_to(folder) else audio
    return {**asdict(row), "audio": str(own)}


def load_rows(path: Path | str, kind: type[R]) -> list[R]:
    """Reads and checks rows; all faults at once. Columns of a later kind are left out.

    Raises:
        ManifestError: the file is missing, or a row lacks something, has a wrong type, or an id occurs twice.
    """
    path = Path(path)
    faults = Faults()
    known = {field.name: field for field in fields(kind)}
    later = {field.name for field in fields(Target)}
    found: list[R] = []
    lines: dict[str, int] = {}
    for row in read_rows(path, faults):
        odd = sorted(set(row.cells) - later)
        missing = [name for name in _needed(kind) if row.cells.get(name) in (None, "")]
        # None is a row that was rejected; a row without the key was never answered.
        missing += ["target"] if "target" in known and "target" not in row.cells else []
        if odd or missing:
            if odd:
                faults.add(row.line, f"unknown column {odd[0]!r}: known are {', '.join(known)}")
            if missing:
                faults.add(row.line, f"no {', '.join(map(repr, missing))}: every row needs it")
            continue
        cells = {name: value for name, value in row.cells.items() if name in known}
        wrong = [name for name, value in cells.items() if not _fits(name, value)]
        if wrong:
            faults.add(row.line, f"{wrong[0]} = {cells[wrong[0]]!r}: give {_FITTING.get(wrong[0], 'a text')}")
            continue
        if (first := lines.setdefault(cells["id"], row.line)) != row.line:
            faults.add(row.line, f"id {cells['id']!r} stands on line {first} already: ids must be unique")
            continue
        found.append(kind(**{**cells, "audio": path.parent / cells["audio"]}))
    faults.settle(path, found, "no rows")
    return found


def as_kind(row: Surrogate, kind: type[R], **more: Any) -> R:
    """A row of the next kind: what it has already, and more."""
    return kind(**{field.name: getattr(row, field.name) for field in fields(row)}, **more)


def _needed(kind: type[Surrogate]) -> tuple[str, ...]:
    own = ("id", "audio", "surrogate", "duration_s")
    return (*own, "clip") if issubclass(kind, Asked) else own


_FITTING: dict[str, str] = {
    "instruction": "true or false",
    "cut": "true or false",
    "duration_s": "seconds above 0",
    "split": f"one of {', '.join(SPLITS)}",
    "target": "a text, or null for none",
}
"""What `_fits` takes, in words."""


def _fits(name: str, value: Any) -> bool:
    if name in ("instruction", "cut"):
        return isinstance(value, bool)
    if name == "duration_s":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if name == "target" and value is None:
        return True
    if name == "split":
        return value in SPLITS
    return isinstance(value, str)
