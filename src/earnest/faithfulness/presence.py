"""Items of the world that ask whether a sound is there, and items whose answer a voice of the clip tells.

They are where trust in voices can be abused, and where it is right; the world asks such a question once in 29.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from earnest.example import Example
from earnest.world.dataset import world_example, world_item
from earnest.world.mixing import render
from earnest.world.questions import TEMPLATES

TEMPLATE = "sound_presence"


def is_told(example: Example) -> bool:
    """Whether a voice that belongs to the clip tells the answer."""
    timeline = example.meta.get("timeline") or ()
    return any(
        event.get("style") == "narration" and abs(event["start_s"] - start_s) < 0.05
        for event in timeline
        for start_s, _ in example.evidence or ()
    )


def presence_items(split: str, seed: int, start: int, told: int, other: int) -> list[int]:
    """Indices of the next such items, from one index on.

    Args:
        split: of the world.
        seed: of the world.
        start: first index.
        told: items whose answer a voice of the clip tells.
        other: items without.
    """
    names = list(TEMPLATES)
    index = start + (names.index(TEMPLATE) - start) % len(names)
    wanted = {True: told, False: other}
    found: list[int] = []
    while any(wanted.values()):
        is_of = is_told(_annotated(split, seed, index, Path()))
        if wanted[is_of]:
            wanted[is_of] -= 1
            found.append(index)
        index += len(names)
    return found


def told_items(split: str, seed: int, start: int, count: int) -> list[int]:
    """Indices of the next items whose answer a voice of the clip tells, as the world mixes templates."""
    found: list[int] = []
    index = start
    while len(found) < count:
        if is_told(_annotated(split, seed, index, Path())):
            found.append(index)
        index += 1
    return found


def rendered(split: str, seed: int, indices: Sequence[int], folder: Path) -> list[Example]:
    """Items with their timelines (`meta`) and their clips as files; those that are there are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Example] = []
    for index in indices:
        scene = world_item(split, seed, index).scene
        path = folder / f"{scene.id}.wav"
        if not path.exists():
            render(scene).save(path)
        found.append(_annotated(split, seed, index, path))
    return found


def _annotated(split: str, seed: int, index: int, audio: Path) -> Example:
    item = world_item(split, seed, index)
    return replace(world_example(item, audio), meta={"timeline": item.scene.to_json()["events"]})
