"""Files that are either whole or not there: atomic writes, JSON lines that survive a kill, TOML out."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: str | bytes) -> None:
    """Writes a whole file or leaves the old one, also when the process or the machine dies meanwhile.

    Args:
        path: the file; missing folders are made.
        data: its content; text is written as UTF-8 without newline translation.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files: give the rights that open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_line(row: Mapping[str, Any]) -> str:
    """One row as a line of JSON with its newline; non-ASCII text stays readable.

    Raises:
        ValueError: a number is not finite: JSON has no word for it.
    """
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines atomically."""
    write_atomic(path, "".join(json_line(row) for row in rows))


@contextmanager
def growing_json_lines(path: Path) -> Generator[Callable[[Mapping[str, Any]], None]]:
    """Writes JSON lines one by one: the file has its name when all are there, and until then the old one stays.

    Yields:
        What writes one row.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name: what a kill leaves behind is overwritten by the next try.
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        yield lambda row: print(json_line(row), end="", file=file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines; a blank line is skipped."""
    # Not splitlines(): it also splits at characters such as U+2028, which may stand inside a JSON string.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def append_durably(path: Path, text: str) -> None:
    """Appends text and returns when it lies on the disk."""
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def cut_torn_line(path: Path) -> int:
    """Cuts what follows the last newline: the line that was being written when the writer was killed.

    Returns:
        Number of bytes that were cut.
    """
    with path.open("r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        file.truncate(whole)
    return len(data) - whole


def to_toml(values: Mapping[str, Any]) -> str:
    """Writes nested mappings of text, numbers, booleans and lists as TOML; `tomllib` reads the same back.

    A `None` is left out, since TOML has none. Lists hold plain values.

    Raises:
        TypeError: a value has no TOML form.
    """
    lines: list[str] = []
    _table(values, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(values: Mapping[str, Any], name: tuple[str, ...], lines: list[str]) -> None:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    if name:
        lines += ["", f"[{'.'.join(_key(part) for part in name)}]"]
    lines += [
        f"{_key(key)} = {_value(value, key)}"
        for key, value in values.items()
        if key not in tables and value is not None
    ]
    for key, value in tables.items():
        _table(value, (*name, key), lines)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _text(key)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves bare and TOML forbids.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, key: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        items: Iterable[Any] = value
        return f"[{', '.join(_value(item, key) for item in items)}]"
    raise TypeError(f"{key} is a {type(value).__name__}: TOML holds text, numbers, booleans, lists and tables")
