"""The diagnostic world, as `earnest make world` writes it: scenes.jsonl and audio/ID.flac.

A scene's split is its own: it decides voices and sounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from earnest.alignment.recordings import SEVERAL, Recording
from earnest.alignment.rows import Surrogate
from earnest.files import read_json_lines
from earnest.world.surrogates import scene_surrogate
from earnest.world.timeline import Scene

CORPUS = "world"
REQUEST = "request"
"""Style of an utterance that asks the listener for something."""


def read(folder: Path) -> list[Recording]:
    """One recording per scene."""
    scenes = folder / "scenes.jsonl"
    if not scenes.is_file():
        return []
    return [scene_recording(Scene.from_json(row), folder) for row in read_json_lines(scenes)]


def world_rows(scenes: Iterable[Scene], folder: Path) -> list[Surrogate]:
    """Rows of planned scenes, whose clips are or will be in FOLDER/audio; nothing is decoded.

    Args:
        scenes: of any splits.
        folder: of the world.
    """
    return [scene_recording(scene, folder).row(scene.duration_s, scene.split) for scene in scenes]


def scene_recording(scene: Scene, folder: Path) -> Recording:
    """A scene with its surrogate, its voices, and whether it is a request."""
    kinds = {event.kind for event in scene.events}
    voices = dict.fromkeys(event.voice for event in scene.of_kind("speech") if event.voice)
    return Recording(
        id=scene.id,
        corpus=CORPUS,
        audio=folder / "audio" / f"{scene.id}.flac",
        recording=f"{CORPUS}/{scene.id}",
        surrogate=scene_surrogate(scene),
        modality=kinds.pop() if len(kinds) == 1 else "mixed",
        speaker=SEVERAL.join(f"{CORPUS}/{voice}" for voice in voices),
        instruction=any(event.style == REQUEST for event in scene.events),
        split=scene.split,
    )
