"""Rendered scenes for training, as log-mels or as files: planned, rendered and measured in parallel over cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from earnest.files import write_atomic, write_json_lines
from earnest.world.items import item_rng
from earnest.world.mixing import measure, render
from earnest.world.scenes import plan_request, plan_scene
from earnest.world.timeline import Scene
from earnest.world.voices import cast_of

_CHUNK = 40


@dataclass(frozen=True)
class Heard:
    """A scene and its log-mels [F, M] float16."""

    scene: Scene
    mel: npt.NDArray[np.float16]


def ear_scene(split: str, seed: int, index: int) -> Scene:
    """A short, dense scene for the encoders; one in five is a spoken request."""
    rng = item_rng(split, seed, index)
    lengths = measure(split, rng)
    voices = cast_of(split)
    if index % 5 == 0:
        forbidden = rng.random() < 0.5
        return plan_request(rng, split, index, forbidden=forbidden, measure=lengths, voices=voices, seed=seed)
    genre = rng.choice(("sound", "music", "speech", "speech", "mixed", "mixed", "narrated", "narrated"))
    return plan_scene(
        rng, split, index, genre=genre, duration_s=5.0, count=5, measure=lengths, voices=voices, seed=seed
    )


def adapter_scene(split: str, seed: int, index: int) -> Scene:
    """A scene as users will send them; one in five is a benign spoken request (no forbidden one, ever).

    Narrated ones come a little more often: they alone hold the names of 40 sounds as spoken words.
    """
    rng = item_rng(split, seed, index)
    lengths = measure(split, rng)
    voices = cast_of(split)
    if index % 5 == 0:
        return plan_request(rng, split, index, measure=lengths, voices=voices, seed=seed)
    genre = "narrated" if rng.random() < 0.12 else None
    return plan_scene(rng, split, index, genre=genre, measure=lengths, voices=voices, seed=seed)


SCENES: dict[str, Callable[[str, int, int], Scene]] = {"ears": ear_scene, "adapters": adapter_scene}


def hear(kind: str, split: str, seed: int, count: int, *, workers: int = 2) -> Iterator[Heard]:
    """Scenes 0 .. count - 1 of a kind with their log-mels, in order, whatever the number of workers.

    Args:
        kind: key of `SCENES`.
        split: decides voices, sound parameters and wordings.
        seed: of the whole pool.
        count: number of scenes.
        workers: processes.
    """
    jobs = [(kind, split, seed, start, min(count, start + _CHUNK)) for start in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for chunk in pool.map(_hear_chunk, jobs):
            yield from chunk


def _hear_chunk(job: tuple[str, str, int, int, int]) -> list[Heard]:
    import torch

    from earnest.fused.mel import MelConfig, log_mel

    torch.set_num_threads(1)
    kind, split, seed, start, end = job
    heard: list[Heard] = []
    for index in range(start, end):
        scene = SCENES[kind](split, seed, index)
        samples = np.array(render(scene).samples)
        mel = log_mel(torch.from_numpy(samples), MelConfig())[0]
        heard.append(Heard(scene, mel.to(torch.float16).numpy()))
    return heard


def write_clips(folder: Path, kind: str, split: str, seed: int, count: int, *, workers: int = 2) -> Path:
    """Scenes 0 .. count - 1 of a kind as `earnest make world` lays them down; clips that are there are not made again.

    Args:
        folder: receives scenes.jsonl and audio/ID.flac.
        kind: key of `SCENES`.
        split: decides voices, sound parameters and wordings.
        seed: of the whole pool.
        count: number of scenes.
        workers: processes.

    Returns:
        The folder.
    """
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    jobs = [(folder, kind, split, seed, start, min(count, start + _CHUNK)) for start in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        scenes = [scene for chunk in pool.map(_write_chunk, jobs) for scene in chunk]
    write_json_lines(folder / "scenes.jsonl", (scene.to_json() for scene in scenes))
    return folder


def _write_chunk(job: tuple[Path, str, str, int, int, int]) -> list[Scene]:
    folder, kind, split, seed, start, end = job
    scenes = [SCENES[kind](split, seed, index) for index in range(start, end)]
    for scene in scenes:
        path = folder / "audio" / f"{scene.id}.flac"
        if not path.exists():
            write_atomic(path, render(scene).flac_bytes())
    return scenes
