"""`earnest.ask`: an answer, or an honest word for why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeEngine, constant

from earnest.asking import ask, split_choices
from earnest.audio import Clip
from earnest.conversation import Conversation
from earnest.engines import Capabilities
from earnest.errors import AudioError, EarnestError

CLIP = Clip.silence(2.0)


class Probable(FakeEngine):
    """Gives every token of a continuation the probability of its place: 1/2, 1/4, ..."""

    continued: tuple[Conversation, str] | None = None

    def logprobs(self, conversations: Sequence[Conversation], continuations: Sequence[str]) -> list[object]:
        self.continued = conversations[0], continuations[0]
        return [np.log([2.0 ** -(i + 1) for i in range(len(continuations[0].split()))])]


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


def test_confidence_is_the_mean_probability_of_the_answers_tokens() -> None:
    engine = Probable(lambda _: "<think> i hear it.</think><answer> red dog</answer>")
    engine.capabilities = Capabilities(continues_assistant=True, logprobs=True)
    reply = ask(engine, CLIP, "What?")
    assert reply.confidence is not None
    assert math.isclose(reply.confidence, (1 / 2 + 1 / 4) / 2)
    assert engine.continued is not None
    before, answer = engine.continued
    assert before.last_text == "<think> i hear it.</think><answer>"
    assert answer == " red dog"


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
