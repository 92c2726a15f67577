"""Metadata becomes surrogates: the spec's strings, whole seconds, and what cannot be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from earnest.alignment.recordings import Passage, Reason, Recording, joined, whole_seconds

CLIP = Recording("a", "crema", Path("a.wav"), "crema/a", "hello", spoken=True)


def test_golden_single_speech() -> None:
    recording = replace(
        CLIP,
        content="I think I have a doctor's  appointment.\n",
        details={"emotion": "Disgust", "gender": "Female", "age": "29", "language": "English", "Accent": ""},
        speaker="crema/1001",
    )
    row = recording.row(2.97, "train")
    assert row.surrogate == (
        "[00:00-00:03] I think I have a doctor's appointment. "
        "(duration: 3s, emotion: Disgust, gender: Female, age: 29, language: English)"
    )
    assert (row.id, row.corpus, row.speaker, row.recording) == ("crema-a", "crema", "crema/1001", "crema/a")
    assert (row.duration_s, row.split, row.instruction) == (2.97, "train", False)


def test_golden_single_tags() -> None:
    recording = replace(CLIP, content=joined(["Music", "Exciting  music", " "]), spoken=False)
    assert recording.row(10.03, "train").surrogate == "[00:00-00:10] |Music, Exciting music| (duration: 10s)"


def test_golden_multi() -> None:
    recording = replace(
        CLIP,
        content="",
        passages=(
            Passage(2.4, 4.9, "good morning", True, "c/bo"),
            Passage(0.2, 1.6, "hello", True, "c/al", {"Gender": "Female"}),
            Passage(4.9, 6.3, "a door"),
            Passage(6.0, 7.1, "bye", True, "c/al"),
        ),
        details={"language": "English"},
    )
    row = recording.row(7.05, "test")
    assert row.surrogate == (
        "[00:00-00:02, the first speaker, gender: Female] hello [00:02-00:05, the second speaker] good morning "
        "[00:04-00:07] |a door| [00:06-00:07, the first speaker] bye "
        "(duration: 7s, the number of speakers: 2, language: English)"
    )
    assert row.speaker == "c/al; c/bo"


def test_a_known_text_is_taken_as_it_is() -> None:
    assert replace(CLIP, content="", surrogate="[x]").row(1.0, "train").surrogate == "[x]"


@pytest.mark.parametrize(
    ("duration_s", "seconds"), [(0.02, 1), (1.0, 1), (1.1, 1), (1.11, 2), (3.0, 3), (10.05, 10), (59.99, 60)]
)
def test_whole_seconds(duration_s: float, seconds: int) -> None:
    assert whole_seconds(duration_s) == seconds


def test_a_passage_is_never_empty() -> None:
    recording = replace(CLIP, content="", passages=(Passage(10.01, 10.04, "click"),))
    assert recording.row(10.04, "train").surrogate == "[00:09-00:10] |click| (duration: 10s)"


@pytest.mark.parametrize(
    ("recording", "reason", "says"),
    [
        (replace(CLIP, content=" \n"), Reason.NO_TEXT, "no transcript"),
        (replace(CLIP, passages=(Passage(0, 1, ""),)), Reason.NO_TEXT, "1 of 1 segments without"),
        (replace(CLIP, passages=(Passage(1, 5.6, "x"),)), Reason.OUTSIDE, "1 to 5.6 s reaches outside the clip (5.00"),
        (replace(CLIP, passages=(Passage(5, 5.1, "x"),)), Reason.OUTSIDE, "5 to 5.1 s"),
        (
            replace(CLIP, passages=tuple(Passage(0, 1, "x", True, f"c/{number}") for number in range(11))),
            Reason.TOO_MANY_SPEAKERS,
            "11 speakers, at most 10",
        ),
    ],
)
def test_what_cannot_be_written(recording: Recording, reason: Reason, says: str) -> None:
    why = recording.unusable(5.0)
    assert why is not None
    assert why.reason is reason
    assert says in why.detail


def test_what_can_be_written() -> None:
    assert CLIP.unusable(5.0) is None
    assert replace(CLIP, passages=(Passage(0, 5.4, "rounded"),)).unusable(5.0) is None
