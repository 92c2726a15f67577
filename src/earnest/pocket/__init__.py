"""Pocket: the shipped small model and the stages that train it from nothing.

`weights_path()` is a folder like any other: `earnest.load("pocket")` reads it by transformers' own loading code.
"""

from __future__ import annotations

from pathlib import Path

from earnest.errors import ModelError


def weights_path() -> Path:
    """The folder of the shipped weights.

    Raises:
        ModelError: the package was installed without them.
    """
    folder = Path(__file__).parent / "weights"
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} holds no weights; `make pocket` trains and ships them (about an hour)")
    return folder
