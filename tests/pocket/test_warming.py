from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from earnest.fused import FusedModel, FusedProcessor
from earnest.pocket.adapters import AdapterSettings, Streamed, stream_of, warm_loss
from earnest.pocket.warming import warm_up
from earnest.world.scenes import plan_scene
from tiny import tiny_pocket

SETTINGS = AdapterSettings(warm_steps=100, batch_size=2, learning_rate=1e-2, muon_rate=0.0, threads=1)


def clips_of(folder: Path) -> tuple[FusedModel, list[Streamed]]:
    """A tiny model, and clips whose frames say which piece is to be written."""
    import random

    model = FusedModel.from_pretrained(folder, dtype=torch.float32)
    vocabulary = FusedProcessor.from_pretrained(folder).tokenizer.get_vocab()
    rng = np.random.default_rng(0)
    clips: list[Streamed] = []
    for number in range(4):
        scene = plan_scene(random.Random(number), duration_s=3.0)
        samples = 48_000
        tokens = model.config.budget("first").tokens(samples)
        stream = stream_of(scene, tokens, vocabulary, number)
        frames = rng.standard_normal((-(-samples // 1024), 16)).astype(np.float16)
        clips.append(Streamed((frames,), samples, stream))
    return model, clips


def test_the_head_learns_to_write_streams_and_nothing_else_moves(tmp_path: Path) -> None:
    model, clips = clips_of(tiny_pocket(tmp_path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines: list[str] = []
    with torch.no_grad():
        first = float(warm_loss(model, clips))
    warm_up(model, clips, SETTINGS, log=lines.append)
    with torch.no_grad():
        assert float(warm_loss(model, clips)) < 0.7 * first
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith("passes.first.") for name in moved)
    assert lines == [lines[0]] and lines[0].startswith("warm step 100 loss")


def test_frozen_parts_stay(tmp_path: Path) -> None:
    model, clips = clips_of(tiny_pocket(tmp_path))
    before = {name: value.clone() for name, value in model.passes["first"].state_dict().items()}
    warm_up(model, clips, replace(SETTINGS, warm_steps=3), frozen=("adapters", "mixes"))
    moved = {n for n, value in model.passes["first"].state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {"head.linear.weight", "head.linear.bias"}
