"""What the readers of folders share: audio by its name, tables with needed columns, JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from earnest.errors import ManifestError
from earnest.tabular import Faults, Row, read_rows

AUDIO_SUFFIXES: tuple[str, ...] = (".flac", ".wav", ".ogg", ".mp3")
GENDERS: dict[str, str] = {"F": "Female", "M": "Male"}


def audio_below(folder: Path) -> list[Path]:
    """All audio files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)


def audio_by_stem(folder: Path) -> dict[str, list[Path]]:
    """All audio files below a folder by their name without suffix, sorted."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in audio_below(folder):
        found[path.stem].append(path)
    return dict(found)


def of_part(paths: Sequence[Path], folder: Path, part: str) -> Path:
    """The first file that lies in a folder named after a part of the corpus, else the first at all."""
    return next((path for path in paths if any(part in name for name in path.relative_to(folder).parts[:-1])), paths[0])


def read_table(path: Path, needs: Sequence[str]) -> list[Row]:
    """The rows of a table with a header.

    Raises:
        ManifestError: it cannot be read, has no rows, or lacks one of the columns.
    """
    faults = Faults()
    rows = read_rows(path, faults)
    # An empty cell is no cell: only a column that no row has is missing.
    held = {name for row in rows for name in row.cells}
    missing = [name for name in needs if name not in held]
    if missing and not faults.by_text:
        faults.add(1, f"no {', '.join(map(repr, missing))}: the columns are {', '.join(sorted(held)) or 'none'}")
    if faults.by_text:
        raise ManifestError(str(path), faults.sentences())
    return rows


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        ManifestError: it is no JSON, or no object of objects.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ManifestError(str(path), [f"line {error.lineno}: no JSON: {error.msg}"]) from error
    if not isinstance(value, Mapping):
        raise ManifestError(str(path), [f"line 1: a {type(value).__name__} where an object is needed"])
    return dict(cast(Mapping[str, Any], value))


def entry(path: Path, name: str, value: Any, needs: Sequence[str]) -> Mapping[str, Any]:
    """One object of a JSON file.

    Raises:
        ManifestError: it is no object, or lacks a key.
    """
    if not isinstance(value, Mapping):
        raise ManifestError(str(path), [f"{name!r} is a {type(value).__name__} where an object is needed"])
    cells = cast(Mapping[str, Any], value)
    missing = [key for key in needs if key not in cells]
    if missing:
        raise ManifestError(str(path), [f"{name!r} has no {', '.join(map(repr, missing))}"])
    return cells
