"""Stage `encoders`: an ear for events and music and an ear for speech, trained on frame labels, then frozen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from earnest.engines.linear import fast_linear
from earnest.fused.configuration import EarConfig, MelConfig
from earnest.fused.encoders import EarEncoder
from earnest.fused.mel import hz_of, mel_of
from earnest.pocket.clips import Heard, hear
from earnest.pocket.ship import as_shipped
from earnest.training.checkpoint import Checkpointer
from earnest.training.optimisers import Optimisers
from earnest.training.schedule import one_cycle
from earnest.world.labels import CLASSES, frame_labels

EVENT_TASKS: tuple[str, ...] = ("sound", "instrument", "pitch", "tempo")
SPEECH_TASKS: tuple[str, ...] = ("word", "speaker")
MEL_FRAME_S = 0.016
FRAME_S = 4 * MEL_FRAME_S


@dataclass(frozen=True)
class EarSettings:
    """Numbers of the stage.

    Attributes:
        scenes: training scenes of about five seconds.
        steps: optimiser steps; both ears hear the same batch.
        batch_size: clips a step.
        window: mel frames of a training crop, a multiple of 4.
        learning_rate: peak of the cycle for norms and label heads.
        muon_rate: peak for the convolutions under Muon.
        warp: how far the speech ear's frequencies are stretched or shrunk, as a share: other throats than the
            voices' own (vocal tract length perturbation).
        event_width: channels of the event ear.
        speech_width: channels of the speech ear.
        blocks: residual blocks of each.
        seed: of scenes, weights and order.
        workers: processes that render.
        threads: of the training.
    """

    scenes: int = 6000
    steps: int = 1600
    batch_size: int = 32
    window: int = 256
    learning_rate: float = 3e-3
    muon_rate: float = 1e-2
    warp: float = 0.12
    event_width: int = 128
    speech_width: int = 144
    blocks: int = 5
    seed: int = 10
    workers: int = 2
    threads: int = 2


def new_ear(tasks: tuple[str, ...], width: int, blocks: int) -> EarEncoder:
    """An ear with a label head for each task."""
    return EarEncoder(EarConfig(width=width, blocks=blocks, heads={task: len(CLASSES[task]) + 1 for task in tasks}))


@fast_linear()
def train(settings: EarSettings, out: Path, *, log: Callable[[str], None] = print) -> Path:
    """Trains both ears and saves them to `out/events` and `out/speech`."""
    started = time.time()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    pool = list(hear("ears", "train", settings.seed, settings.scenes, workers=settings.workers))
    labels = [_labels(heard) for heard in pool]
    log(f"{len(pool)} scenes rendered in {time.time() - started:.0f} s")
    ears = {
        "events": (new_ear(EVENT_TASKS, settings.event_width, settings.blocks), EVENT_TASKS),
        "speech": (new_ear(SPEECH_TASKS, settings.speech_width, settings.blocks), SPEECH_TASKS),
    }
    optimisers = Optimisers(
        [named for ear, _ in ears.values() for named in ear.named_parameters()],
        lambda _, parameter: parameter.ndim == 3,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
        weight_decay=0.01,
    )
    rng = np.random.default_rng(settings.seed)
    checkpoint = Checkpointer(out / "checkpoint.pt")
    first = 0
    if state := checkpoint.load():
        first, rng.bit_generator.state = state["step"], state["rng"]
        optimisers.load_state_dict(state["optimisers"])
        for name, (ear, _) in ears.items():
            ear.load_state_dict(state[name])
        log(f"goes on at step {first}")
    running: dict[str, float] = {}
    for step in range(first, settings.steps):
        mel, target = _batch(pool, labels, settings, rng)
        loss = torch.zeros(())
        for name, (ear, tasks) in ears.items():
            factors = rng.uniform(1 - settings.warp, 1 + settings.warp, len(mel)) if name == "speech" else None
            logits = ear(mel if factors is None else warped(mel, torch.from_numpy(factors).float())).logits
            for task in tasks:
                part = F.cross_entropy(logits[task].transpose(1, 2), target[task], label_smoothing=0.05)
                running[task] = running.get(task, 0.0) + part.item() / 100
                loss = loss + part
        loss.backward()
        optimisers.step(one_cycle(step, settings.steps))
        if step % 100 == 99:
            parts = " ".join(f"{task} {value:.3f}" for task, value in running.items())
            log(f"step {step + 1} {parts} {time.time() - started:.0f} s")
            running = {}
        if checkpoint.due(step):
            states = {name: ear.state_dict() for name, (ear, _) in ears.items()}
            rest = {"step": step + 1, "rng": rng.bit_generator.state, "optimisers": optimisers.state_dict()}
            checkpoint.save(states | rest)
    for name, (ear, _) in ears.items():
        as_shipped(ear).eval().save_pretrained(out / name)
    checkpoint.clear()
    return out


def warped(mel: torch.Tensor, factors: torch.Tensor, config: MelConfig | None = None) -> torch.Tensor:
    """Log-mels as if all frequencies were `factors` times as high; what lies beyond the last bin is repeated.

    Args:
        mel: [B, F, M].
        factors: [B].
        config: of the log-mels.

    Returns:
        [B, F, M].
    """
    config = config or MelConfig()
    low, high = mel_of(config.low_hz, math.log10), mel_of(config.high_hz, math.log10)
    scale = torch.linspace(low, high, config.n_mels + 2)[1:-1]
    source_hz = hz_of(scale) / factors[:, None]  # [B, M]
    step = (high - low) / (config.n_mels + 1)
    place = ((mel_of(source_hz, torch.log10) - low) / step - 1.0).clamp(0.0, config.n_mels - 1.0)
    below = place.floor().long().clamp(max=config.n_mels - 2)
    share = (place - below)[:, None]
    lower, upper = (mel.gather(2, (below + k)[:, None].expand_as(mel)) for k in (0, 1))
    return lower * (1.0 - share) + upper * share


def _labels(heard: Heard) -> dict[str, np.ndarray]:
    frames = -(-len(heard.mel) // 4)
    return {task: row.astype(np.int16) for task, row in frame_labels(heard.scene, frames, FRAME_S).items()}


def _batch(
    pool: list[Heard], labels: list[dict[str, np.ndarray]], settings: EarSettings, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Crops [B, window, M] and labels [B, window / 4]; level and two bands are varied."""
    window, frames = settings.window, settings.window // 4
    mel = np.zeros((settings.batch_size, window, pool[0].mel.shape[1]), np.float32)
    target = {task: np.zeros((settings.batch_size, frames), np.int64) for task in CLASSES}
    for row, place in enumerate(rng.integers(len(pool), size=settings.batch_size)):
        source = pool[place].mel
        start = 4 * int(rng.integers(max(1, (len(source) - window) // 4 + 1)))
        crop = source[start : start + window]
        mel[row, : len(crop)] = crop
        if len(crop) < window:
            mel[row, len(crop) :] = crop.min()
        mel[row] += rng.uniform(-0.3, 0.3)
        for _ in range(2):
            low = int(rng.integers(60))
            mel[row, :, low : low + int(rng.integers(6))] = mel[row].mean()
        for task, rows in target.items():
            part = labels[place][task][start // 4 : start // 4 + frames]
            rows[row, : len(part)] = part
    return torch.from_numpy(mel), {task: torch.from_numpy(rows) for task, rows in target.items()}
