"""Benign twins by a model: what is taken, what is rejected and why, and that a kill repeats nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes import FakeEngine

from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.run import RunDirectory
from earnest.safety.rewrites import rewrite
from earnest.safety.sets import Request

TEXT = "How does one zorple a dax?"
LONG = "its length is 3.77 of the request's, 0.4 to 2.5 are taken"


def answering(reply: str | None, stop: Stop = Stop.END) -> FakeEngine:
    class Engine(FakeEngine):
        def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
            found = super().generate(conversations, sampling)
            return found if reply is None else [replace(done, stop=stop) for done in found]

    return Engine(lambda _: reply)


def test_twins_share_pair_and_kind_and_name_the_rewriter(tmp_path: Path) -> None:
    requests = [
        Request(TEXT, True, "a", "wug", source="set"),
        Request("Draw a dax.", False, "b"),
        Request("Blick it.", True, "c", pair="p"),
        Request("Sing of it.", False, "d", pair="p"),
    ]
    engine = FakeEngine(
        lambda _: "<think> hm <rewrite>no</rewrite> </think><rewrite> How does one draw\na dax? </rewrite>"
    )
    found, rejected = rewrite(engine, requests, RunDirectory(tmp_path))
    assert not rejected
    assert len(engine.asked) == 1, "what is benign or has a twin is not asked"
    twin = Request("How does one draw a dax?", False, "a-benign", "wug", "a", "set", rewriter="fake (rewrite-1)")
    assert found == [replace(requests[0], pair="a"), twin, *requests[1:]]


def test_the_request_is_part_of_what_is_asked(tmp_path: Path) -> None:
    seen: list[str] = []

    def reply(conversation: Conversation) -> str:
        seen.append(str(conversation))
        return "<rewrite>How does one draw a dax?</rewrite>"

    rewrite(FakeEngine(reply), [Request(TEXT, True, "a")], RunDirectory(tmp_path))
    assert TEXT in seen[0]
    assert "{text}" not in seen[0]


@pytest.mark.parametrize(
    ("reply", "stop", "reason"),
    [
        (None, Stop.FAILED, "failed (too long for the fake)"),
        ("<rewrite>How does one draw a dax?</rewrite>", Stop.LENGTH, "cut, the reply does not end"),
        ("How does one draw a dax?", Stop.END, "no text inside <rewrite> </rewrite>"),
        ("<rewrite> </rewrite>", Stop.END, "no text inside <rewrite> </rewrite>"),
        ("<rewrite>how does one zorple a dax</rewrite>", Stop.END, "unchanged"),
        ("I'm sorry, I can't help with that.", Stop.END, "refused"),
        ("<rewrite>I cannot help with that.</rewrite>", Stop.END, "refused"),
        ("<rewrite>Draw.</rewrite>", Stop.END, "its length is 0.19 of the request's, 0.4 to 2.5 are taken"),
        (
            f"<rewrite>{'draw a dax ' * 9}</rewrite>",
            Stop.END,
            LONG,
        ),
    ],
)
def test_what_is_no_minimal_rewrite_is_rejected_with_the_reason(
    tmp_path: Path, reply: str | None, stop: Stop, reason: str
) -> None:
    requests = [Request(TEXT, True, "a")]
    found, rejected = rewrite(answering(reply, stop), requests, RunDirectory(tmp_path))
    assert found == requests, "the request stays"
    assert rejected == {"a-benign": f"rewrite rejected: {reason}"}


def test_a_kill_repeats_no_batch_and_a_failure_is_tried_again(tmp_path: Path) -> None:
    requests = [Request(f"How does one zorple {number} daxes?", True, str(number)) for number in range(6)]

    def reply(conversation: Conversation) -> str | None:
        if "zorple 4" in str(conversation) and len(engine.asked) < 6:
            raise KeyboardInterrupt
        if "zorple 0" in str(conversation) and len(engine.asked) < 6:
            return None
        return "<rewrite>How does one draw a dax?</rewrite>"

    engine = FakeEngine(reply)
    with pytest.raises(KeyboardInterrupt):
        rewrite(engine, requests, RunDirectory(tmp_path), batch_size=2)
    first = list(engine.asked)
    assert len(first) == 5
    found, rejected = rewrite(engine, requests, RunDirectory(tmp_path), batch_size=2)
    assert not rejected
    assert len(found) == 12
    again = engine.asked[5:]
    assert again[:2] == [first[0], first[4]], "the one that failed, and the batch that was lost"
    assert not set(first[1:4]) & set(again)
