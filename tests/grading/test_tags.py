import pytest

from earnest.grading import Cited, parse_reply, parse_segments


@pytest.mark.parametrize(
    ("text", "reasoning", "answer", "closed"),
    [
        ("<think> a dog at 3 </think><answer> dog</answer>", "a dog at 3", "dog", True),
        ("<THINK>x</THINK>\n<Answer>dog</ANSWER>", "x", "dog", True),
        ("<answer> dog</answer>", None, "dog", True),
        ("dog", None, "dog", False),
        ("<think> x </think> dog", "x", "dog", False),
        ("i hear it </think><answer> dog</answer>", "i hear it", "dog", True),
        ("<think> x <answer> dog</answer>", "x", "dog", True),
        ("<think> x </think><answer> do", "x", "do", False),
        ("dog</answer>", None, "dog", True),
        ("<think> a <answer> cat</answer> b </think><answer> dog</answer>", "a <answer> cat</answer> b", "dog", True),
        ("<think>a</think><think>b</think><answer>dog</answer>", "a\nb", "dog", True),
        ("", None, "", False),
    ],
)  # fmt: skip
def test_forms_of_replies(text: str, reasoning: str | None, answer: str, closed: bool):
    reply = parse_reply(text)
    assert (reply.reasoning, reply.answer, reply.closed) == (reasoning, answer, closed)
    assert not reply.thinking


def test_endless_reasoning_and_several_answers():
    endless = parse_reply("<think> a dog, then")
    assert endless.thinking and endless.answer == "" and endless.reasoning == "a dog, then"
    assert parse_reply("<answer>a</answer><answer>b</answer>").answers == ("a", "b")
    assert parse_reply("<answer>a</answer> so <answer> a </answer>").answers == ("a",)
    assert parse_reply("<answer>a</answer><answer>b").closed is False


def test_segments():
    text = "<seg>2.5, 4</seg> x <SEG>00:03,01:04.5</SEG> <seg>2.5s, 4 s</seg>"
    text += "<seg>soon</seg><seg>1</seg><seg>4, 2</seg><seg>1,"
    assert parse_segments(text) == (
        Cited("2.5, 4", 2.5, 4.0),
        Cited("00:03,01:04.5", 3.0, 64.5),
        Cited("2.5s, 4 s", 2.5, 4.0),
        Cited("soon", None, None),
        Cited("1", None, None),
        Cited("4, 2", 4.0, 2.0),
    )
