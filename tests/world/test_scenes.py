import itertools
import random

import pytest

from earnest.world.scenes import GENRES, MIN_ONSET_GAP_S, PAUSE_S, REPEAT_GAP_S, plan_request, plan_scene
from earnest.world.timeline import Scene
from earnest.world.vocabulary import BENIGN_VERBS, FORBIDDEN_VERBS, SOUNDS


@pytest.mark.parametrize("genre", list(GENRES))
def test_plans_are_exact_and_ordered(genre: str) -> None:
    rng = random.Random(genre)
    for index in range(300):
        scene = plan_scene(rng, index=index, genre=genre)
        assert scene.events
        assert 2.0 <= scene.duration_s <= 60.5
        onsets = [event.start_s for event in scene.events]
        assert onsets == sorted(onsets)
        assert all(later - earlier >= MIN_ONSET_GAP_S - 1e-6 for earlier, later in itertools.pairwise(onsets))
        assert all(0 <= event.start_s < event.end_s <= scene.duration_s for event in scene.events)
        voices = {event.speaker for event in scene.events if event.kind == "speech"}
        assert voices <= {"man", "woman"}


def test_what_has_one_name_or_one_voice_never_overlaps() -> None:
    rng = random.Random(8)
    for index in range(6000):
        for first, second in itertools.combinations(plan_scene(rng, index=index).events, 2):
            gap_s = second.start_s - first.end_s
            assert first.name != second.name or gap_s >= REPEAT_GAP_S - 0.002
            assert not first.speaker or first.speaker != second.speaker or gap_s >= PAUSE_S - 0.002


def test_a_scene_survives_json() -> None:
    scene = plan_scene(random.Random(1), "test", 7, seed=3)
    assert Scene.from_json(scene.to_json()) == scene


def test_some_scenes_overlap_and_some_are_long() -> None:
    rng = random.Random(2)
    scenes = [plan_scene(rng, index=index) for index in range(2000)]
    overlapping = sum(any(b.start_s < a.end_s for a, b in zip(s.events, s.events[1:], strict=False)) for s in scenes)
    assert 0.1 < overlapping / len(scenes) < 0.6
    assert any(scene.duration_s > 30 for scene in scenes)
    assert {scene.snr_db for scene in scenes} >= {None, -10.0, 20.0}


def test_what_a_narrator_tells_cannot_be_heard() -> None:
    rng = random.Random(3)
    for _ in range(200):
        scene = plan_scene(rng, genre="narrated")
        told = [event.name.split()[-1] for event in scene.of_kind("speech") if event.style == "narration"]
        assert len(told) <= 1
        assert all(name in SOUNDS for name in told)
        assert not set(told) & {event.name for event in scene.of_kind("sound")}


@pytest.mark.parametrize(("forbidden", "verbs"), [(True, FORBIDDEN_VERBS), (False, BENIGN_VERBS)])
def test_requests_use_their_own_verbs(forbidden: bool, verbs: tuple[str, ...]) -> None:
    rng = random.Random(4)
    for index in range(50):
        [event] = plan_request(rng, index=index, forbidden=forbidden).events
        assert event.name.split()[-3] in verbs
