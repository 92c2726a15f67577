"""The clips of alignment: what is asked about them, and what is never among them."""

import random
from pathlib import Path

from earnest.alignment.leaks import leak
from earnest.files import read_json_lines
from earnest.pocket.clips import SCENES, adapter_scene, write_clips
from earnest.pocket.world_questions import exchanges
from earnest.world.scenes import plan_scene
from earnest.world.vocabulary import FORBIDDEN_VERBS


def test_alignment_never_sees_a_forbidden_request() -> None:
    scenes = [adapter_scene("train", seed, index) for seed in (0, 20) for index in range(0, 200, 5)]
    assert {scene.extra["genre"] for scene in scenes} == {"request"}
    assert not any(set(scene.events[0].name.split()) & set(FORBIDDEN_VERBS) for scene in scenes)
    assert set(SCENES) == {"ears", "adapters"}


def test_what_is_asked_differs_and_speaks_of_no_text() -> None:
    rng = random.Random(1)
    for index in range(50):
        users = [exchange.user for exchange, _ in exchanges(plan_scene(rng, index=index), rng, 5)]
        assert len(set(users)) == 5
        assert not any(leak(user) for user in users if not user.startswith("caption"))


def test_clips_are_written_once_and_as_many_as_are_asked_for(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", "adapters", "train", 3, 2, workers=1)
    scenes = read_json_lines(folder / "scenes.jsonl")
    assert [row["id"] for row in scenes] == [adapter_scene("train", 3, k).id for k in range(2)]
    kept = folder / "audio" / f"{scenes[0]['id']}.flac"
    kept.write_bytes(b"kept")
    write_clips(folder, "adapters", "train", 3, 3, workers=1)
    assert kept.read_bytes() == b"kept"
    assert len(list((folder / "audio").iterdir())) == len(read_json_lines(folder / "scenes.jsonl")) == 3
