"""Reasoning in pieces."""

from __future__ import annotations

import json

import pytest
from tests.tiny import tone

from earnest.conversation import Audio, Text
from earnest.relistening.traces import Trace

TRACE = Trace(("<think> a <seg>1, 2</seg>", " b <seg>3, 6</seg>", " c</think>"), ((1.0, 2.0), (3.0, 6.0)))


def test_the_text_is_all_that_is_written() -> None:
    assert TRACE.text == "<think> a <seg>1, 2</seg> b <seg>3, 6</seg> c</think>"


@pytest.mark.parametrize("fine", [False, True])
def test_the_turn_holds_each_text_and_then_its_segment_within_the_clip(fine: bool) -> None:
    clip = tone(440, 5.5)
    parts = TRACE.parts(clip, fine=fine)
    assert parts == (
        Text(TRACE.texts[0]), Audio(clip.crop(1.0, 2.0), fine), Text(TRACE.texts[1]), Audio(clip.crop(3.0, 5.5), fine),
    )  # fmt: skip
    assert [part.clip.offset_s for part in parts if isinstance(part, Audio)] == [1.0, 3.0]


def test_a_trace_comes_back_from_json() -> None:
    assert Trace.from_json(json.loads(json.dumps(TRACE.to_json()))) == TRACE


def test_each_text_but_the_last_has_a_segment() -> None:
    with pytest.raises(AssertionError, match="one text more"):
        Trace(("a", "b"), ())
