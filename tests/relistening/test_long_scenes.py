"""Long scenes, their questions and the reasoning that goes back to the evidence."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import tone

from earnest.audio import Clip
from earnest.completion import Stop
from earnest.conversation import Audio, Text
from earnest.errors import EarnestError
from earnest.example import Example, load_manifest
from earnest.grading import Outcome, grade, parse_segments
from earnest.pocket.tokenizer import build_tokenizer
from earnest.relistening import long_scenes
from earnest.relistening.long_scenes import (
    LONGEST_S,
    MOST_PLACES,
    NOUNS,
    ORDERS,
    SHORTEST_S,
    TEMPLATES,
    TOKEN_S,
    long_examples,
    long_scene,
    make_long,
    mark,
    places_of,
)
from earnest.relistening.reward import broken_sentences, well_formed
from earnest.relistening.segments import Bounds, last_segment
from earnest.relistening.traces import Trace
from earnest.world.timeline import Scene

COUNT = 60


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [long_scene("test", 0, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def asked() -> list[tuple[Example, Scene, Trace]]:
    return [
        (example, scene, Trace.from_json(example.meta["trace"]))
        for index in range(COUNT)
        for example, scene in long_examples("test", 0, index, 3)
    ]


def test_scenes_are_long_and_hold_their_events(scenes: list[Scene]) -> None:
    assert all(SHORTEST_S <= scene.duration_s <= LONGEST_S for scene in scenes)
    assert min(scene.duration_s for scene in scenes) < 20 < 40 < max(scene.duration_s for scene in scenes)
    for scene in scenes:
        assert all(0 <= event.start_s < event.end_s <= scene.duration_s for event in scene.events)
        assert list(scene.events) == sorted(scene.events, key=lambda event: event.start_s)
    assert len({scene.id for scene in scenes}) == COUNT
    assert {scene.snr_db is None for scene in scenes} == {False, True}


def test_a_scene_depends_on_split_seed_and_index_alone(scenes: list[Scene]) -> None:
    assert long_scene("test", 0, 7) == scenes[7]
    assert long_scene("test", 1, 7).events != scenes[7].events
    assert long_scene("train", 0, 7).events != scenes[7].events


def test_every_scene_is_asked_about_the_modality_whose_turn_it_is(asked: list[tuple[Example, Scene, Trace]]) -> None:
    first = [example for example, _, _ in asked if example.id.endswith("-0")]
    assert len(first) == COUNT
    own = [example.groups["modality"] == list(TEMPLATES)[index % 3] for index, example in enumerate(first)]
    assert sum(own) > 0.8 * COUNT
    assert len({example.groups["template"] for example in first}) > 8
    assert len({example.id for example, _, _ in asked}) == len(asked) > 2 * COUNT


def test_an_order_is_asked_where_a_first_pass_cannot_tell_it(asked: list[tuple[Example, Scene, Trace]]) -> None:
    orders = [example for example, _, _ in asked if example.groups["template"] in ORDERS]
    assert {example.groups["template"] for example in orders} == set(ORDERS)
    for example in orders:
        assert len({int(start_s / TOKEN_S) for start_s, _ in example.evidence}) == 1


def test_a_trace_goes_back_to_all_of_the_evidence(asked: list[tuple[Example, Scene, Trace]]) -> None:
    for example, scene, trace in asked:
        assert example.evidence
        for start_s, end_s in example.evidence:
            assert any(a <= start_s and end_s <= b for a, b in trace.segments), example.id
        assert all(0 <= a < b and a < scene.duration_s for a, b in trace.segments)


def test_a_trace_is_a_reply_that_would_be_heard_and_graded_right(asked: list[tuple[Example, Scene, Trace]]) -> None:
    for example, scene, trace in asked:
        cited = [(one.start_s, one.end_s) for one in parse_segments(trace.text)]
        assert cited == list(trace.segments)
        assert broken_sentences(trace.text) == 0
        assert well_formed(trace.text, Stop.END)
        assert grade(trace.text, Stop.END, example).outcome is Outcome.CORRECT, example.id
        for text, (start_s, end_s) in zip(trace.texts, trace.segments, strict=False):
            segment = last_segment(text, scene.duration_s, Bounds())
            assert (segment.fault, segment.cut) == (None, False)
            assert (segment.start_s, segment.end_s) == (start_s, min(end_s, scene.duration_s))


def test_a_trace_does_not_say_the_answer_before_it_has_heard_it(asked: list[tuple[Example, Scene, Trace]]) -> None:
    for example, _, trace in asked:
        assert example.answer is not None
        assert f" {example.answer} " not in trace.texts[0] or example.answer in example.question, example.id


def test_a_single_pass_answers_right_and_cites_nothing(asked: list[tuple[Example, Scene, Trace]]) -> None:
    for example, _, _ in asked:
        text = example.meta["single_pass"]
        assert grade(text, Stop.END, example).outcome is Outcome.CORRECT
        assert not parse_segments(text)
        assert well_formed(text, Stop.END)


def test_the_timeline_goes_along(asked: list[tuple[Example, Scene, Trace]]) -> None:
    for example, scene, _ in asked:
        assert example.meta["timeline"] == scene.to_json()["events"]


# ---- look-up exercises

PLACED = re.compile(r"([a-z]+) \[(\d\d):(\d\d)\]")


def looked_up(scenes: list[Scene]) -> list[tuple[Scene, str, list[tuple[str, int]]]]:
    """Scene, question, and the names with their seconds in the reply, of those that have an exercise."""
    found: list[tuple[Scene, str, list[tuple[str, int]]]] = []
    for number, scene in enumerate(scenes):
        if exercise := places_of(scene, random.Random(number)):
            places = [(name, 60 * int(m) + int(s)) for name, m, s in PLACED.findall(exercise["reply"])]
            said = ", ".join(f"{name} [{second // 60:02d}:{second % 60:02d}]" for name, second in places)
            assert exercise["reply"] == f"{said}."
            found.append((scene, exercise["question"], places))
    return found


def test_marks_are_those_before_the_scans_tokens() -> None:
    for moment in (0.0, 2.04, 2.05, 4.1, 33.3, 59.9):
        token_s = TOKEN_S * int(moment / TOKEN_S)
        assert mark(moment) == int(token_s)
        assert mark(moment) <= moment < mark(moment) + 1 + TOKEN_S


def test_a_look_up_finds_what_is_heard_once(scenes: list[Scene]) -> None:
    asked = [one for one in looked_up(scenes) if one[1].startswith("find: ")]
    assert len(asked) > 10
    assert max(len(places) for _, _, places in asked) == MOST_PLACES
    for scene, question, places in asked:
        assert question == f"find: {', '.join(name for name, _ in places)}."
        assert len({name for name, _ in places}) == len(places)
        for name, second in places:
            (event,) = [event for event in scene.events if event.name == name]
            assert event.kind != "speech"
            assert second == mark(event.start_s)


def test_a_look_up_lists_all_of_a_kind(scenes: list[Scene]) -> None:
    asked = [one for one in looked_up(scenes) if one[1].startswith("what are the ")]
    assert len(asked) > 10
    kinds = {"sounds": "sound", "instruments": "music", "words": "speech"}
    assert {question for _, question, _ in asked} == {f"what are the {name}?" for name in kinds}
    for scene, question, places in asked:
        kind = kinds[question.removeprefix("what are the ").removesuffix("?")]
        seconds = [mark(event.start_s) for event in scene.events if event.kind == kind]
        assert [second for _, second in places] == list(dict.fromkeys(seconds))
        assert {name for name, _ in places} == {NOUNS[kind]}


def test_a_look_up_is_made_of_known_pieces(scenes: list[Scene]) -> None:
    tokenizer = build_tokenizer()
    for number, scene in enumerate(scenes):
        for text in (places_of(scene, random.Random(number)) or {}).values():
            assert not [piece for piece in tokenizer.tokenize(text) if len(piece) == 1 and piece.isalpha()], text


def test_a_look_up_asks_for_nothing_that_is_heard_twice(scenes: list[Scene]) -> None:
    twice = replace(scenes[0], events=scenes[0].events * 2)
    for number in range(20):
        found = places_of(scenes[0], random.Random(number))
        assert found == places_of(scenes[0], random.Random(number))
        doubled = places_of(twice, random.Random(number))
        assert doubled is None or not doubled["question"].startswith("find")
    assert any(places_of(twice, random.Random(number)) is None for number in range(20))


def test_the_exercises_of_a_scene_go_along_and_differ(asked: list[tuple[Example, Scene, Trace]]) -> None:
    by_scene: dict[str, list[str]] = {}
    for example, scene, _ in asked:
        if example.meta["places"]:
            by_scene.setdefault(scene.id, []).append(example.meta["places"]["question"])
    several = [questions for questions in by_scene.values() if len(questions) > 1]
    assert sum(len(set(questions)) > 1 for questions in several) > 0.8 * len(several)


# ---- on disk


def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Clips that cost nothing to render; which are rendered is noted."""
    rendered: list[str] = []

    def render(scene: Scene) -> Clip:
        rendered.append(scene.id)
        return tone(200 + sum(map(ord, scene.id)), 0.5)

    monkeypatch.setattr(long_scenes, "render", render)
    return rendered


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_number_of_workers_makes_the_same_files(tmp_path: Path) -> None:
    monkey = pytest.MonkeyPatch()
    monkey.setattr(long_scenes, "_CHUNK", 1)
    one = make_long(tmp_path / "one", 3, split="validation", seed=2, per_scene=2)
    two = make_long(tmp_path / "two", 3, split="validation", seed=2, per_scene=2, workers=2)
    monkey.undo()
    assert one == tmp_path / "one" / "manifest.jsonl"
    files = content(one.parent)
    assert files == content(two.parent)
    assert len(files) == 5, "three clips, the manifest, and the note of what the folder holds"
    examples = load_manifest(one)
    assert 3 < len(examples) <= 6
    for example in examples:
        scene = long_scene("validation", 2, int(example.id.split("-")[-2]))
        assert example.clip.duration_s == pytest.approx(scene.duration_s, abs=1e-3)
        parts = Trace.from_json(example.meta["trace"]).parts(example.clip)
        assert [type(part) for part in parts] == [Text, Audio]


def test_what_is_there_is_not_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = short(monkeypatch)
    seen: list[tuple[int, int]] = []
    make_long(tmp_path / "a", 12, progress=lambda done, every: seen.append((done, every)))
    assert len(rendered) == 12
    assert seen == [(8, 12), (12, 12)]
    whole = content(tmp_path / "a")
    (tmp_path / "a" / "audio" / "long-test-0-000005.flac").unlink()
    (tmp_path / "a" / "manifest.jsonl").unlink()
    rendered.clear()
    make_long(tmp_path / "a", 12)
    assert rendered == ["long-test-0-000005"]
    assert content(tmp_path / "a") == whole
    make_long(tmp_path / "a", 13)
    assert rendered == ["long-test-0-000005", "long-test-0-000012"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"split": "dev"}, "split 'dev' is unknown; known: train"),
        ({"scenes": 0}, "scenes is 0"),
        ({"per_scene": 0}, "per_scene 0"),
        ({"workers": 0}, "workers 0"),
    ],
)
def test_numbers_out_of_range_are_named(change: dict[str, object], text: str, tmp_path: Path) -> None:
    with pytest.raises(EarnestError, match=text):
        make_long(tmp_path, **{"scenes": 2, **change})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_long_scenes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = short(monkeypatch)
    make_long(tmp_path, 2, seed=3)
    before = content(tmp_path)
    rendered.clear()
    with pytest.raises(EarnestError, match=r"holds other long scenes: seed 3 \(asked for: 4\); give another folder"):
        make_long(tmp_path, 2, seed=4)
    with pytest.raises(EarnestError, match=r"split 'test' \(asked for: 'train'\)"):
        make_long(tmp_path, 2, seed=3, split="train")
    monkeypatch.setattr(long_scenes, "long_version", lambda: "another")
    with pytest.raises(EarnestError, match="asked for: 'another'"):
        make_long(tmp_path, 2, seed=3)
    assert content(tmp_path) == before
    assert not rendered
