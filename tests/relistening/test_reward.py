"""What replies earn, by the numbers of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from tests.tiny import tone

from earnest.completion import Completion, Stop
from earnest.conversation import Conversation
from earnest.example import Example
from earnest.grading import Outcome
from earnest.relistening.loop import Relistened, Turn
from earnest.relistening.reward import (
    HIGHEST,
    Reward,
    broken_sentences,
    confident,
    deciding_probability,
    reward,
    well_formed,
)
from earnest.relistening.segments import Fault, Segment

ASKED = Example("one", (tone(440, 1.0),), "what?", ("dog", "a red car"), "dog")
VALID = Segment("1, 2", 1.0, 2.0)
INVALID = Segment("2, 1", 2.0, 1.0, Fault.INVERTED)
THOUGHT = "<think> i hear it <seg>1, 2</seg> bark.</think>"
RIGHT, WRONG = f"{THOUGHT}<answer>dog</answer>", f"{THOUGHT}<answer>a red car</answer>"


def said(
    text: str, segments: Sequence[Segment] = (VALID,), stop: Stop = Stop.END, probability: float | None = None
) -> Relistened:
    """One token a character; the answer's first has the given probability, all others that of a coin."""
    logprobs = None
    if probability is not None:
        logprobs = [math.log(0.5)] * len(text)
        logprobs[text.index("<answer>") + len("<answer>")] = math.log(probability) if probability else -math.inf
    completion = Completion(
        text, stop, tuple(map(ord, text)), logprobs and tuple(logprobs), token_ends=tuple(range(1, len(text) + 1))
    )
    return Relistened(text, stop, tuple(segments), (Turn(Conversation(), completion),), ())


def parts(found: Reward) -> tuple[float, float, float, float]:
    return found.format, found.consist, found.accuracy, found.segment


def test_the_highest_reward() -> None:
    found = reward(said(RIGHT), ASKED)
    assert parts(found) == (0.5, 0.0, 0.5, 0.5)
    assert found.total == HIGHEST == 1.5
    assert found.outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("text", "segments", "expected"),
    [
        (RIGHT, (INVALID, VALID), (0.5, 0.0, 0.5, 0.5)),
        (RIGHT, (INVALID,), (0.5, 0.0, 0.5, 0.0)),
        (RIGHT, (), (0.5, 0.0, 0.5, 0.0)),
        (WRONG, (VALID,), (0.5, 0.0, 0.0, 0.0)),
        ("<think></think><answer>i don't know</answer>", (VALID,), (0.5, 0.0, 0.0, 0.0)),
    ],
)
def test_a_segment_counts_where_it_is_heard_and_the_answer_right(
    text: str, segments: Sequence[Segment], expected: tuple[float, ...]
) -> None:
    assert parts(reward(said(text, segments), ASKED)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "<answer>dog</answer>",
        "dog",
        f"{RIGHT}<answer>dog</answer>",
        f"<think> a</think>{RIGHT}",
        f"{THOUGHT}<answer>dog",
        "<think> i hear it<answer>dog</answer>",
        "<answer>dog</answer><think> it barks</think>",
        "<think><answer>dog</answer></think>",
    ],
)
def test_without_exactly_one_block_of_each_kind_nothing_is_earned(text: str) -> None:
    assert not well_formed(text, Stop.END)
    assert parts(reward(said(text), ASKED)) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("stop", [Stop.LENGTH, Stop.STOP_STRING, Stop.FAILED])
def test_a_reply_that_the_model_did_not_end_earns_no_format(stop: Stop) -> None:
    found = reward(said(RIGHT, stop=stop), ASKED)
    assert parts(found) == (0.0, 0.0, 0.0, 0.0)
    cut = reward(said(f"{THOUGHT}<answer>do", stop=Stop.LENGTH), ASKED)
    assert (cut.total, cut.outcome) == (0.0, Outcome.UNFINISHED)


def test_what_broke_off_costs_even_where_nothing_is_earned() -> None:
    assert parts(reward(said("<think> <seg>1, 2</seg> The dog"), ASKED)) == (0.0, -0.1, 0.0, 0.0)


@pytest.mark.parametrize(
    ("behind", "broken"),
    [(" bark", 0), (", bark", 0), (" [00:03] bark", 0), (" 3 dogs", 0), ("A dog", 1), ("  \n A dog", 1), ("<b>", 1)],
)
def test_a_sentence_goes_on_behind_a_segment(behind: str, broken: int) -> None:
    assert broken_sentences(f"it is <seg>1, 2</seg>{behind}.") == broken


def test_a_tag_right_behind_a_segment_breaks_the_sentence() -> None:
    assert broken_sentences("<think> it is <seg>1, 2</seg></think>") == 1
    assert broken_sentences("it is <seg>1, 2</seg> <seg>3, 4</seg> so") == 1
    assert broken_sentences("It is <seg>1, 2</seg>") == 0


@pytest.mark.parametrize(("count", "consist"), [(0, 0.0), (1, -0.1), (3, -0.3), (5, -0.5), (9, -0.5)])
def test_broken_sentences_cost_up_to_a_floor(count: int, consist: float) -> None:
    text = f"<think> a{' <seg>1, 2</seg> So it is' * count}</think><answer>dog</answer>"
    assert reward(said(text), ASKED).consist == pytest.approx(consist)


@pytest.mark.parametrize(("probability", "right", "wrong"), [(0.0, 0.0, 0.0), (0.3, 0.255, -0.045), (1.0, 0.5, -0.5)])
def test_accuracy_by_confidence(probability: float, right: float, wrong: float) -> None:
    assert confident(probability, right=True) == pytest.approx(right)
    assert confident(probability, right=False) == pytest.approx(wrong)
    sure = reward(said(RIGHT, probability=probability), ASKED, by_confidence=True)
    assert parts(sure) == (0.5, 0.0, pytest.approx(right), 0.5)
    astray = reward(said(WRONG, probability=probability), ASKED, by_confidence=True)
    assert parts(astray) == (0.5, 0.0, pytest.approx(wrong), 0.0)


def test_without_probabilities_there_is_no_confidence() -> None:
    assert deciding_probability(said(RIGHT).completion) is None
    assert parts(reward(said(RIGHT), ASKED, by_confidence=True)) == (0.5, 0.0, 0.0, 0.5)


def test_the_deciding_token_is_the_first_that_no_other_choice_has_in_common() -> None:
    text = f"{THOUGHT}<answer> a red car</answer>"
    ends = tuple(text.index(end) + len(end) for end in (THOUGHT, "<answer>", " a", " red", " car", "</answer>"))
    probabilities = (0.1, 0.2, 0.3, 0.4, 0.6, 0.9)
    logprobs = tuple(math.log(p) for p in probabilities)
    completion = Completion(text, Stop.END, tuple(range(6)), logprobs, token_ends=ends)

    def decides(*choices: str) -> float:
        probability = deciding_probability(completion, choices)
        assert probability is not None
        return round(probability, 6)

    assert decides() == decides("a red car") == decides("dog", "A red car") == 0.3
    assert decides("a dog", "a red car") == 0.4
    assert decides("A Red Bus", "a red car", "a dog") == 0.6
    # One that only goes on from it is never left behind; the last token of the answer is as far as it goes.
    assert decides("a red car with a horn", "a red car") == 0.6


def test_the_deciding_token_is_the_first_of_the_answer_also_behind_a_blank() -> None:
    text = f"{THOUGHT}<answer> dog</answer>"
    ends = (len(THOUGHT), text.index(" dog"), text.index("</answer>"), len(text))
    logprobs = tuple(math.log(p) for p in (0.1, 0.2, 0.7, 0.9))
    assert deciding_probability(Completion(text, Stop.END, (1, 2, 3, 4), logprobs, token_ends=ends)) == pytest.approx(
        0.7
    )
