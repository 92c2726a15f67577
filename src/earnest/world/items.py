"""Items of the world: a scene with one question, the same for a given split, seed and index."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from earnest.world.questions import TEMPLATES, Question, ask
from earnest.world.scenes import Measure, plan_scene
from earnest.world.timeline import Scene

_GENRES: dict[str, tuple[str, ...]] = {
    "sound": ("sound", "mixed"),
    "music": ("music", "mixed"),
    "speech": ("speech", "mixed"),
}


@dataclass(frozen=True)
class Item:
    """A scene and a question about it."""

    scene: Scene
    question: Question


def item_rng(split: str, seed: int, index: int) -> random.Random:
    """The source of every choice of one item: no two splits, seeds or indices share a stream."""
    return random.Random(f"{split}/{seed}/{index}")


def plan_item(
    split: str,
    seed: int,
    index: int,
    *,
    measure: Measure | None = None,
    voices: dict[str, Sequence[str]] | None = None,
) -> Item:
    """The item of a given index; templates take turns, so that every template is asked equally often.

    Args:
        split: train, validation or test.
        seed: a new seed is a new benchmark.
        index: number of the item.
        measure: lengths of rendered events (see `scenes.Measure`).
        voices: names of the voices per gender.
    """
    rng = item_rng(split, seed, index)
    names = list(TEMPLATES)
    name = names[index % len(names)]
    template = TEMPLATES[name]
    while True:
        genre = "narrated" if name == "narrated" else rng.choice(_GENRES[template.modality])
        if name == "sound_presence" and rng.random() < 0.2:
            genre = "narrated"
        scene = plan_scene(rng, split, index, genre=genre, measure=measure, voices=voices, seed=seed)
        question = ask(scene, rng, name)
        if question is not None:
            return Item(scene, question)
