"""`earnest.ask`: an answer, or an honest word for why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from tests.fakes import FakeEngine, constant

from earnest.asking import ask, split_choices
from earnest.audio import Clip
from earnest.completion import Completion, Sampling
from earnest.conversation import Conversation
from earnest.errors import AudioError, EarnestError

CLIP = Clip.silence(2.0)


class Probable(FakeEngine):
    """Says its pieces, each with its probability."""

    def __init__(self, *pieces: tuple[str, float]) -> None:
        super().__init__(lambda _: "".join(text for text, _ in pieces))
        self.pieces = pieces

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [
            replace(
                completion,
                logprobs=tuple(math.log(probability) for _, probability in self.pieces),
                token_ends=tuple(accumulate(len(text) for text, _ in self.pieces)),
            )
            for completion in super().generate(conversations, sampling)
        ]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("<think> i hear a dog.</think><answer> dog</answer>", "answered"),
        ("<answer> i don't know</answer>", "abstained"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("<answer> dog</answer><answer> cat</answer>", "malformed"),
        ("", "malformed"),
    ],
)
@pytest.mark.parametrize("choices", [None, ("dog", "cat")])
def test_outcomes_have_honest_names(text: str, outcome: str, choices: tuple[str, ...] | None) -> None:
    reply = ask(constant(text), CLIP, "Which animal is heard?", choices)
    assert reply.outcome == outcome
    assert reply.seconds_heard == 2.0
    assert reply.text == text
    assert reply.confidence is None


def test_a_failed_request_says_why() -> None:
    reply = ask(FakeEngine(lambda _: None), CLIP, "What?")
    assert (reply.outcome, reply.detail) == ("failed", "too long for the fake")
    assert (reply.heard.seconds_given, reply.seconds_heard) == (2.0, 0.0)


def test_confidence_is_the_mean_probability_of_the_graded_answers_own_tokens() -> None:
    before = (("<think>", 0.9), (" or <answer> red dog?", 0.3), ("</think>", 0.9), ("<answer>", 0.9))
    answer = ((" ", 0.1), ("red", 0.5), (" dog", 0.25))
    after = (("</answer>", 0.9), ("", 0.2))
    reply = ask(Probable(*before, *answer, *after), CLIP, "What?")
    assert (reply.outcome, reply.answer) == ("answered", "red dog")
    assert reply.confidence is not None
    assert math.isclose(reply.confidence, (0.5 + 0.25) / 2)


def test_confidence_of_a_reply_without_tags_is_of_all_of_it() -> None:
    reply = ask(Probable(("A", 0.5), (" dog.", 1.0)), CLIP, "What?", ("dog", "cat"))
    assert reply.confidence == 0.75
    assert ask(Probable(("I don't know.", 0.5)), CLIP, "What?").confidence is None


def test_user_errors_come_before_the_model(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        ask("no such model", tmp_path / "nothing.wav", "What?")
    with pytest.raises(EarnestError, match="empty"):
        ask("no such model", CLIP, " ")
    with pytest.raises(EarnestError, match="two"):
        ask("no such model", CLIP, "What?", ("dog",))


def test_choices_are_split_at_semicolons() -> None:
    assert split_choices("dog; cat ;bell") == ("dog", "cat", "bell")
    assert split_choices("") is None
