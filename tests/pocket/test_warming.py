import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from earnest.alignment.features import HeardClip
from earnest.files import write_json_lines
from earnest.fused import FusedModel, FusedProcessor
from earnest.pocket.warming import Streamed, WarmSettings, stream_of, streams_of, warm_loss, warm_up
from earnest.world.scenes import plan_scene
from tiny import tiny_pocket

SAMPLES = 48_000
SETTINGS = WarmSettings(steps=100, batch_size=2, learning_rate=1e-2, muon_rate=0.0)


def clips_of(folder: Path, seed: int = 0) -> tuple[FusedModel, list[Streamed]]:
    """A tiny model, and clips with their streams."""
    model = FusedModel.from_pretrained(folder, dtype=torch.float32)
    vocabulary = FusedProcessor.from_pretrained(folder).tokenizer.get_vocab()
    tokens = model.config.budget("first").tokens(SAMPLES)
    scenes = [plan_scene(random.Random(number + seed), duration_s=3.0) for number in range(4)]
    clips = [HeardClip(str(number), SAMPLES) for number in range(4)]
    streams = [stream_of(scene, tokens, vocabulary, number) for number, scene in enumerate(scenes)]
    return model, [Streamed(clip, *stream) for clip, stream in zip(clips, streams, strict=True)]


def frames_of(clips: Sequence[HeardClip]) -> list[torch.Tensor | None]:
    """Frames that tell the clips apart."""
    own = [torch.randn(-(-SAMPLES // 1024), 16, generator=torch.Generator().manual_seed(int(c.key))) for c in clips]
    return [torch.stack(own)]


def test_the_head_learns_to_write_streams_and_nothing_else_moves(tmp_path: Path) -> None:
    model, clips = clips_of(tiny_pocket(tmp_path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines: list[str] = []
    with torch.no_grad():
        first = float(warm_loss(model, frames_of([each.clip for each in clips]), clips))
    warm_up(model, frames_of, clips, SETTINGS, tmp_path / "warm.pt", log=lines.append)
    with torch.no_grad():
        assert float(warm_loss(model, frames_of([each.clip for each in clips]), clips)) < 0.7 * first
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith("passes.first.") for name in moved)
    assert lines == [lines[0]] and lines[0].startswith("warm step 100 loss")


def test_another_head_learns_the_mixtures_of_embeddings(tmp_path: Path) -> None:
    model, clips = clips_of(tiny_pocket(tmp_path, head="linear"))
    frames = frames_of([each.clip for each in clips])
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        written = model.adapt(frames, torch.tensor([each.clip.samples for each in clips]), "first")
        errors: list[torch.Tensor] = []
        for row, each in zip(written, clips, strict=True):
            for token, (behind, next_one), share in zip(row, each.ids, each.shares, strict=False):
                wanted = (1 - float(share)) * embeddings[behind] + float(share) * embeddings[next_one]
                errors.append(((token - wanted) ** 2).mean())
        first = float(warm_loss(model, frames, clips))
        torch.testing.assert_close(torch.tensor(first), torch.stack(errors).mean() / embeddings.var())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    warm_up(model, frames_of, clips, SETTINGS, tmp_path / "warm.pt")
    with torch.no_grad():
        assert float(warm_loss(model, frames, clips)) < 0.7 * first
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("passes.first.") for name in moved)


def test_tokens_of_no_moment_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = clips_of(tiny_pocket(tmp_path))
    scene = plan_scene(random.Random(0), duration_s=3.0)
    write_json_lines(tmp_path / "scenes.jsonl", [{**scene.to_json(), "id": "one"}])
    clips = {tmp_path / "one.wav": HeardClip("0", SAMPLES)}
    vocabulary = FusedProcessor.from_pretrained(tmp_path).tokenizer.get_vocab()
    budget = model.config.budget("first")
    (usual,) = streams_of(model, clips, tmp_path, vocabulary)
    monkeypatch.setattr(type(model.config), "budget", lambda *_: replace(budget, extra_per_chunk=5))
    (latent,) = streams_of(model, clips, tmp_path, vocabulary)
    assert len(latent.shares) == budget.tokens(SAMPLES)
    assert np.array_equal(latent.ids, usual.ids)


def test_frozen_parts_stay(tmp_path: Path) -> None:
    model, clips = clips_of(tiny_pocket(tmp_path))
    before = {name: value.clone() for name, value in model.passes["first"].state_dict().items()}
    warm_up(model, frames_of, clips, replace(SETTINGS, steps=3), tmp_path / "warm.pt", frozen=("adapters", "mixes"))
    moved = {n for n, value in model.passes["first"].state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {"head.linear.weight", "head.linear.bias"}


def test_other_clips_of_the_same_number_begin_anew(tmp_path: Path) -> None:
    folder, few = tiny_pocket(tmp_path), replace(SETTINGS, steps=2)
    said: list[list[str]] = []
    for seed in (0, 0, 9):
        model, clips = clips_of(folder, seed)
        lines: list[str] = []
        warm_up(model, frames_of, clips, few, tmp_path / "warm.pt", log=lines.append)
        said.append(lines)
    path = tmp_path / "warm.pt"
    assert said == [[], ["goes on behind warm step 2"], [f"{path} is of other numbers, clips or weights: begins anew"]]
