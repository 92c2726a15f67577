"""A data set of the world on disk: clips, questions, timelines. A new seed is a new benchmark.

    OUT/manifest.jsonl   one question per clip (`earnest.example` reads it)
    OUT/scenes.jsonl     the timelines, line by line with the manifest
    OUT/world.json       split, seed, samples and version of the world of which it was made
    OUT/audio/*.flac     16 kHz, 16 bits

An item depends on its split, seed and index alone, so any number of workers makes the same files, and a run
that was killed goes on where it was. Asking for more items later only adds to those that are there.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from earnest.audio import Clip
from earnest.errors import EarnestError
from earnest.example import Example, save_manifest
from earnest.files import write_atomic, write_json, write_json_lines
from earnest.world.bank import SampleBank
from earnest.world.items import Item, plan_item
from earnest.world.mixing import measure, render
from earnest.world.synthesis import SPLITS
from earnest.world.voices import cast_of

_CHUNK = 32
"""Items that a worker makes between two reports."""


@dataclass(frozen=True)
class _Order:
    """What a worker needs to know."""

    folder: Path
    split: str
    seed: int
    bank: Path | None


def world_item(split: str, seed: int, index: int) -> Item:
    """The item of an index, planned with the lengths and the voices of rendered events."""
    lengths = measure(split, random.Random(f"lengths/{split}/{seed}/{index}"))
    return plan_item(split, seed, index, measure=lengths, voices=cast_of(split))


def world_example(item: Item, audio: Clip | Path) -> Example:
    """An item as an Example, its answer, its evidence and its groups included."""
    scene, question = item.scene, item.question
    return Example(
        id=scene.id,
        audio=(audio,),
        question=question.text,
        choices=question.choices,
        answer=question.answer,
        groups={
            "modality": question.modality,
            "template": question.template,
            "difficulty": question.difficulty,
            "hops": str(question.hops),
            "snr_db": "clean" if scene.snr_db is None else f"{scene.snr_db:g}",
            "split": scene.split,
        },
        evidence=question.evidence,
    )


def world_examples(n: int, *, split: str, seed: int = 0, bank: SampleBank | None = None) -> Iterator[Example]:
    """Examples with their clips in memory, one after the other: the data set without a disk."""
    for index in range(n):
        item = world_item(split, seed, index)
        yield world_example(item, render(item.scene, bank))


def make_world(
    out: str | Path,
    n: int,
    *,
    split: str = "test",
    seed: int = 0,
    bank: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a data set, or what is still missing of it.

    Args:
        out: the folder; made if it is not there.
        n: number of items, all 0 to n - 1.
        split: train, validation or test.
        seed: 0 or more; another seed gives other scenes and questions.
        bank: a folder of the user's own samples (see `bank.py`).
        workers: processes.
        progress: called with (clips that are there, clips in all) at the start and after each chunk.

    Returns:
        The manifest.

    Raises:
        EarnestError: an unknown split, `n` or `workers` below 1, a negative seed, or a folder that holds
            another world.
        AudioError: the bank cannot be used.
    """
    _check(n, split, seed, workers)
    folder = Path(out)
    order = _Order(folder, split, seed, Path(bank).resolve() if bank is not None else None)
    _claim(order, _bank_of(order.bank))
    (folder / "audio").mkdir(exist_ok=True)
    items = [world_item(split, seed, index) for index in range(n)]
    missing = [index for index, item in enumerate(items) if not _audio_path(folder, item.scene.id).exists()]
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    done = n - len(missing)
    if progress:
        progress(done, n)
    with _map(order, chunks, min(workers, len(chunks))) as counts:
        for count in counts:
            done += count
            if progress:
                progress(done, n)
    # Written last: a manifest never names a clip that is not there.
    write_json_lines(folder / "scenes.jsonl", (item.scene.to_json() for item in items))
    manifest = folder / "manifest.jsonl"
    save_manifest((world_example(item, _audio_path(folder, item.scene.id)) for item in items), manifest)
    return manifest


def _check(n: int, split: str, seed: int, workers: int) -> None:
    if split not in SPLITS:
        raise EarnestError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    for name, value, least in (("n", n, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise EarnestError(f"{name} is {value}; it must be {least} or more")


def _claim(order: _Order, bank: SampleBank | None) -> None:
    """Notes in the folder what it holds, or raises EarnestError if that is another world."""
    path = order.folder / "world.json"
    world = {"split": order.split, "seed": order.seed, "bank": bank.key if bank else None, "version": world_version()}
    if not path.exists():
        write_json(path, world)
        return
    held = json.loads(path.read_text())
    if held != world:
        changed = ", ".join(
            f"{key} {held.get(key)!r} (asked for: {world[key]!r})" for key in world if held.get(key) != world[key]
        )
        raise EarnestError(f"{order.folder} holds another world: {changed}; give another folder or remove this one")


@lru_cache(maxsize=1)
def world_version() -> str:
    """Hash of the source that plans and renders: items of two versions are not mixed in one folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _audio_path(folder: Path, scene_id: str) -> Path:
    return folder / "audio" / f"{scene_id}.flac"


@lru_cache(maxsize=1)
def _bank_of(path: Path | None) -> SampleBank | None:
    return SampleBank.load(path) if path else None


def _make(order: _Order, indices: list[int]) -> int:
    """Renders and writes the clips of some items."""
    bank = _bank_of(order.bank)
    for index in indices:
        scene = world_item(order.split, order.seed, index).scene
        write_atomic(_audio_path(order.folder, scene.id), render(scene, bank).flac_bytes())
    return len(indices)


@contextmanager
def _map(order: _Order, chunks: list[list[int]], workers: int) -> Generator[Iterator[int]]:
    """Counts of finished chunks as they come, made in this process or in several."""
    if workers <= 1:
        yield (_make(order, chunk) for chunk in chunks)
        return
    # Spawned, not forked: the caller may hold threads (torch's), which a fork would break.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_make, order, chunk) for chunk in chunks]
        yield (future.result() for future in as_completed(futures))
