"""Short files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from earnest.audio import Clip


def clip(path: Path, duration_s: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Clip.silence(duration_s, 1000).save(path)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path
