"""What an audit asks: a user's manifest, or the built-in diagnostic world."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from earnest.errors import EarnestError
from earnest.example import Example, load_manifest
from earnest.files import read_json_lines

WORLD_ITEMS = 300
"""Items of the world that are asked by default."""


@dataclass(frozen=True)
class World:
    """A part of the diagnostic world.

    Attributes:
        split: train, validation or test.
        seed: a new seed is a new benchmark.
        n: number of items.
        bank: folder of the user's own samples.
        workers: processes that render.
    """

    split: str = "test"
    seed: int = 0
    n: int = WORLD_ITEMS
    bank: Path | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        """Checks what can be checked before a model is loaded.

        Raises:
            EarnestError: an unknown split, or a bank that is no folder.
        """
        from earnest.world.synthesis import SPLITS

        if self.split not in SPLITS:
            raise EarnestError(f"split {self.split!r} is unknown: give one of {', '.join(SPLITS)}")
        if self.bank is not None and not self.bank.is_dir():
            raise EarnestError(f"the bank {self.bank} is no folder: give one that holds sound/NAME/*.wav")

    @property
    def name(self) -> str:
        """As in "world-test-seed0-n300"."""
        bank = "" if self.bank is None else f"-{self.bank.resolve().name}"
        return f"world-{self.split}-seed{self.seed}-n{self.n}{bank}"

    @property
    def version(self) -> str:
        """Of the code that plans and renders it."""
        from earnest.world.dataset import world_version

        return world_version()

    @property
    def source(self) -> dict[str, Any]:
        """What it is made of, for `resolved.toml`."""
        bank = None if self.bank is None else str(self.bank.resolve())
        return {"data": "the diagnostic world", "split": self.split, "world_seed": self.seed, "bank": bank}

    def make(self, folder: Path, progress: Callable[[int, int], None]) -> list[Example]:
        """Renders what is not there yet and reads it back."""
        from earnest.world.dataset import make_world

        manifest = make_world(
            folder,
            self.n,
            split=self.split,
            seed=self.seed,
            bank=self.bank,
            workers=self.workers,
            progress=progress,
        )
        return read_data(manifest)


def source_of(manifest: Path) -> dict[str, Any]:
    """A manifest's path and the hash of its bytes, for `resolved.toml`."""
    with manifest.open("rb") as file:
        return {"data": str(manifest.resolve()), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read_data(manifest: Path, limit: int | None = None) -> list[Example]:
    """Reads a manifest; where `earnest make world` wrote it, the timelines that lie beside it too.

    Args:
        manifest: the file; all of it is checked, also what is not asked.
        limit: how many examples to keep, from the first.

    Raises:
        ManifestError: all faults of the file, before any model is loaded.
    """
    examples = load_manifest(manifest, n_clips=1)[:limit]
    scenes = manifest.with_name("scenes.jsonl")
    if not scenes.is_file():
        return examples
    timelines = {row["id"]: row["events"] for row in read_json_lines(scenes)}
    return [
        replace(example, meta={**example.meta, "timeline": timelines[example.id]})
        if example.id in timelines
        else example
        for example in examples
    ]
