"""The data set: the same for any number of workers, resumable, readable as a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from earnest.audio import Clip
from earnest.errors import EarnestError
from earnest.example import load_manifest
from earnest.world.dataset import make_world, world_examples, world_item
from earnest.world.mixing import render
from earnest.world.timeline import Scene


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_world_is_a_manifest_with_clips_timelines_and_evidence(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    manifest = make_world(tmp_path / "w", 6, split="test", seed=5, progress=lambda *at: seen.append(at))
    assert seen == [(0, 6), (6, 6)]
    examples = load_manifest(manifest)
    scenes = [Scene.from_json(json.loads(line)) for line in (tmp_path / "w/scenes.jsonl").read_text().splitlines()]
    assert [example.id for example in examples] == [scene.id for scene in scenes] and len(examples) == 6
    for index, (example, scene) in enumerate(zip(examples, scenes, strict=True)):
        assert scene == world_item("test", 5, index).scene
        assert example.choices and example.answer in example.choices
        assert set(example.groups) == {"modality", "template", "difficulty", "hops", "snr_db", "split"}
        assert all(0 <= start < end <= scene.duration_s for start, end in example.evidence or ())
        assert np.abs(example.clip.samples - render(scene).samples).max() < 1e-4
    in_memory = list(world_examples(6, split="test", seed=5))
    assert [(e.id, e.question, e.answer) for e in in_memory] == [(e.id, e.question, e.answer) for e in examples]


def test_any_number_of_workers_and_any_interruption_give_the_same_files(tmp_path: Path):
    make_world(tmp_path / "one", 36, split="validation", seed=1)
    make_world(tmp_path / "two", 36, split="validation", seed=1, workers=2)
    whole = files(tmp_path / "one")
    assert len(whole) == 36 + 3 and files(tmp_path / "two") == whole
    # A run that was killed before the manifest was written, with some clips missing.
    for name in [*list(whole)[3:10], "manifest.jsonl"]:
        (tmp_path / "two" / name).unlink()
    seen: list[tuple[int, int]] = []
    make_world(tmp_path / "two", 36, split="validation", seed=1, progress=lambda *at: seen.append(at))
    assert seen == [(29, 36), (36, 36)]
    assert files(tmp_path / "two") == whole


def test_more_items_add_to_those_that_are_there(tmp_path: Path):
    make_world(tmp_path, 2, split="test", seed=2)
    before = (tmp_path / "manifest.jsonl").read_text().splitlines()
    make_world(tmp_path, 3, split="test", seed=2)
    assert (tmp_path / "manifest.jsonl").read_text().splitlines()[:2] == before


def test_another_world_is_not_mixed_in(tmp_path: Path):
    make_world(tmp_path, 1, split="test", seed=2)
    with pytest.raises(EarnestError, match=r"holds another world: seed 2 \(asked for: 3\)"):
        make_world(tmp_path, 1, split="test", seed=3)
    bank = tmp_path / "bank"
    (bank / "sound" / "dog").mkdir(parents=True)
    Clip(np.sin(np.arange(8000, dtype=np.float32)), 16_000).save(bank / "sound" / "dog" / "a.wav")
    with pytest.raises(EarnestError, match="holds another world: bank None"):
        make_world(tmp_path, 1, split="test", seed=2, bank=bank)
    make_world(tmp_path / "other", 1, split="test", seed=2, bank=bank)
    held = json.loads((tmp_path / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps({**held, "version": "older"}))
    with pytest.raises(EarnestError, match="holds another world: version 'older'"):
        make_world(tmp_path, 1, split="test", seed=2)
    with pytest.raises(EarnestError, match="split 'dev' is unknown; known: train, validation, test"):
        make_world(tmp_path, 1, split="dev")
    with pytest.raises(EarnestError, match="n is 0; it must be 1 or more"):
        make_world(tmp_path, 0)
