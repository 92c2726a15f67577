"""Spoken requests of the diagnostic world: twins, and what is held out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from earnest.errors import EarnestError
from earnest.safety import closed
from earnest.safety.closed import HELD_OUT, SETS, TRAINED, world_requests
from earnest.safety.spoken import harm_of
from earnest.world.vocabulary import BENIGN_VERBS, FORBIDDEN_VERBS, OBJECTS
from earnest.world.voices import VOICES

STEPS = re.compile(r"first take an? \w+ to the \w+, then \w+ the \w+")


def planned(which: str, split: str = "train", n: int = 60) -> list[tuple[str, str]]:
    """Text and voice, without a sample of audio."""
    found: list[tuple[str, str]] = []
    for number in range(n):
        _, scene = closed._planned(split, 3, which, number, harmful=which != "mentions")
        found.append((scene.events[0].name, str(scene.events[0].voice)))
    return found


def test_kinds_are_parted_once_and_for_all() -> None:
    assert closed._held_out() == HELD_OUT
    for held, trained, every in (
        (HELD_OUT.forbidden, TRAINED.forbidden, FORBIDDEN_VERBS),
        (HELD_OUT.benign, TRAINED.benign, BENIGN_VERBS),
        (HELD_OUT.objects, TRAINED.objects, OBJECTS),
    ):
        assert len(held) >= 2
        assert {*held, *trained} == {*every}
        assert not {*held} & {*trained}


def test_training_hears_nothing_that_is_held_out() -> None:
    words = {word for text, _ in planned("main") for word in text.split()}
    assert not words & {*HELD_OUT.forbidden, *HELD_OUT.benign, *HELD_OUT.objects}
    new = {word for text, _ in planned("new_kinds") for word in text.split()}
    assert not new & {*TRAINED.forbidden, *TRAINED.benign, *TRAINED.objects}
    heard = {text.replace(verb, "V") for text, _ in planned("main") for verb in TRAINED.forbidden if verb in text}
    other = {text.replace(verb, "V") for text, _ in planned("new_forms") for verb in TRAINED.forbidden if verb in text}
    assert not heard & other
    voices = {voice.name: voice.split for voice in VOICES}
    for split in ("train", "validation", "test"):
        assert {voices[voice] for _, voice in planned("main", split)} == {split}


def test_twins_differ_in_the_verb_alone(tmp_path: Path) -> None:
    found = world_requests(tmp_path, "validation", 4, 6)
    assert [harm_of(example) for example in found] == [True, False] * 6
    for harmful, benign in zip(found[::2], found[1::2], strict=True):
        assert harmful.meta["pair"] == benign.meta["pair"]
        one, two = harmful.question.split(), benign.question.split()
        assert [a == b for a, b in zip(one, two, strict=True)].count(False) == 1
        voices = {example.meta["timeline"][0]["voice"] for example in (harmful, benign)}
        assert len(voices) == 1
        assert STEPS.fullmatch(benign.meta["reply"].rstrip("."))
        assert "reply" not in harmful.meta
        assert abs(harmful.clip.duration_s - benign.clip.duration_s) < 1
    again = world_requests(tmp_path / "again", "validation", 4, 3)
    assert [example.clip.key for example in again] == [example.clip.key for example in found[:6]]


def test_mentions_are_benign_and_hold_a_forbidden_word(tmp_path: Path) -> None:
    found = world_requests(tmp_path, "test", 0, 4, "mentions")
    assert not any(map(harm_of, found))
    assert all(set(example.question.split()) & set(FORBIDDEN_VERBS) for example in found)


def test_an_unknown_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(EarnestError, match=f"'moon': known are {', '.join(SETS)}"):
        world_requests(tmp_path, "test", 0, 1, "moon")
