import json

import pytest

from earnest.completion import Completion, Heard, Stop
from earnest.example import RULES, Example
from earnest.grading import Outcome, Record, count, grade, make_record

EXAMPLE = Example("x", (), "What?", ("dog", "cat"), "dog", {"modality": "sound"})
END, LENGTH, FAILED, STRING = Stop.END, Stop.LENGTH, Stop.FAILED, Stop.STOP_STRING


@pytest.mark.parametrize(
    ("text", "stop", "outcome"),
    [
        ("<think> a dog </think><answer> dog</answer>", END, "correct"),
        ("<answer> dog</answer>", STRING, "correct"),
        ("<answer> dog", END, "correct"),
        ("dog", END, "correct"),
        ("<answer> (a)</answer>", END, "correct"),
        ("<think> a dog </think><answer> cat</answer>", END, "wrong"),
        ("<answer> elephant</answer>", END, "wrong"),
        ("<answer> i don't know</answer>", END, "abstained"),
        ("<think> i don't know, a dog perhaps </think><answer> dog</answer>", END, "correct"),
        ("i don't know", END, "abstained"),
        ("sorry, i cannot help with that.", END, "refused"),
        ("<think> hm </think>sorry, i cannot help with that.", END, "refused"),
        ("<answer> sorry, i cannot help with that.</answer>", END, "refused"),
        ("<think> i cannot help with that </think><answer> dog</answer>", END, "correct"),
        ("", END, "malformed"),
        ("<think> a dog", END, "malformed"),
        ("<think> a dog </think>", END, "malformed"),
        ("<answer> </answer>", END, "malformed"),
        ("<answer> dog</answer><answer> cat</answer>", END, "malformed"),
        ("<answer> dog or cat</answer>", END, "malformed"),
        ("I hear music.", END, "malformed"),
        ("<think> a dog", LENGTH, "unfinished"),
        ("<answer> do", LENGTH, "unfinished"),
        ("the answer is a dog and", LENGTH, "unfinished"),
        ("<answer> dog</answer> and", LENGTH, "correct"),
        ("i don't know", LENGTH, "unfinished"),
        ("", FAILED, "failed"),
        ("<answer> dog</answer>", FAILED, "failed"),
    ],
)
def test_each_outcome(text: str, stop: Stop, outcome: str):
    assert grade(text, stop, EXAMPLE).outcome == outcome


def test_a_grade_says_what_it_read():
    got = grade("<think> a dog @3 </think><answer> A.</answer>", END, EXAMPLE)
    assert (got.answer, got.reasoning, got.rule, got.detail) == ("dog", "a dog @3", "option", "letter")
    assert grade("<answer> cow</answer>", END, EXAMPLE).detail == "names none of the choices"


def test_the_grader_before_the_model():
    """Gold scores, and what is no answer does not; for every rule and whatever the gold is."""
    golds = [
        ("dog", "cat"),
        ("10", "100"),
        ("I don't know", "a dog"),
        ("can't help you", "help me"),
        ("unknown", "yes"),
    ]
    for choices in golds:
        for index, gold in enumerate(choices):
            example = Example("x", (), "q", choices, gold)
            other = choices[1 - index]
            assert grade(f"<answer>{gold}</answer>", END, example).outcome is Outcome.CORRECT, gold
            assert grade(gold, END, example).outcome is Outcome.CORRECT, gold
            for empty in ("", "...", "<answer></answer>", other, f"{gold} or {other}"):
                assert grade(empty, END, example).outcome is not Outcome.CORRECT, (gold, empty)


def test_official_rules_score_the_same_reply_again():
    example = Example("x", (), "q", ("10", "100"), "10", rule="mmau")
    assert grade("10.5", END, example).outcome is Outcome.CORRECT
    assert grade("10.5", END, example, rule="option").outcome is Outcome.MALFORMED
    assert grade("A", END, example, rule="letter").outcome is Outcome.CORRECT
    assert grade("B", END, example, rule="letter").outcome is Outcome.WRONG
    assert grade("D", END, example, rule="letter").outcome is Outcome.MALFORMED
    for rule in RULES:
        assert grade("", END, example, rule=rule).outcome is Outcome.MALFORMED
        assert grade("i don't know", END, example, rule=rule).outcome is Outcome.ABSTAINED


def test_open_questions():
    example = Example("x", (), "q", None, "two dogs")
    for text, outcome in (
        ("<answer>2 dogs</answer>", "correct"),
        ("I hear two dogs.", "correct"),
        ("<answer>two dogs and a cat</answer>", "wrong"),
        ("not two dogs", "wrong"),
        ("one dog", "wrong"),
        ("", "malformed"),
    ):
        assert grade(text, END, example).outcome == outcome, text


def test_counts_name_all_outcomes():
    assert list(count([])) == list(Outcome) and count([Outcome.WRONG] * 2)[Outcome.WRONG] == 2


def test_record_keeps_the_hearing_account_and_survives_json():
    completion = Completion("<answer> dog</answer>", END, heard=Heard(5.0, 4.0, 20), seconds=0.5)
    record = make_record(EXAMPLE, completion)
    assert (record.outcome, record.expected, record.heard) == (Outcome.CORRECT, "dog", Heard(5.0, 4.0, 20))
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    failed = make_record(EXAMPLE, Completion("", FAILED, error="clip too long"))
    assert (failed.outcome, failed.detail) == (Outcome.FAILED, "clip too long")
