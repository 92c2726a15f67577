"""One grader for audits, rewards and re-scoring, so that a number means the same everywhere.

The first that holds is the outcome:

    failed      the engine has no reply
    unfinished  the reply was cut before its answer was closed
    abstained   the answer says that it does not know
    refused     the reply declines
    malformed   no single answer can be read
    correct / wrong
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from earnest.completion import Stop
from earnest.example import Example
from earnest.grading.abstention import abstains
from earnest.grading.mmau import mmau_match, mmsu_letter
from earnest.grading.options import match_option, mentions, words
from earnest.grading.outcomes import Outcome
from earnest.grading.refusal import refuses
from earnest.grading.tags import Reply, parse_reply


@dataclass(frozen=True)
class Grade:
    """What a reply is worth, and why.

    Attributes:
        outcome: exactly one of the seven.
        answer: the final answer as it was read: the choice that it names, else its text.
        reasoning: the think blocks' text; None if there is none.
        rule: the rule by which it was matched.
        detail: how it was matched, or why it was not.
    """

    outcome: Outcome
    answer: str
    reasoning: str | None
    rule: str
    detail: str = ""


def grade(text: str, stop: Stop, example: Example, rule: str | None = None) -> Grade:
    """Grades one reply. Nothing that a model may write raises an error.

    Args:
        text: the reply, without the prompt.
        stop: why it ended.
        example: the question with its answer.
        rule: another rule than the example's, to score the same reply twice; one of `earnest.example.RULES`.
    """
    rule = rule or example.rule
    reply = parse_reply(text)
    outcome, answer, detail = _outcome(reply, stop, example, rule)
    return Grade(outcome, answer, reply.reasoning, rule, detail)


def _outcome(reply: Reply, stop: Stop, example: Example, rule: str) -> tuple[Outcome, str, str]:
    assert example.answer is not None, f"{example.id} has no answer to grade against"
    answer, choices = reply.answer, example.choices
    if stop is Stop.FAILED:
        return Outcome.FAILED, "", "the engine has no reply"
    if stop is Stop.LENGTH and not reply.closed:
        return Outcome.UNFINISHED, answer, "cut at the limit of new tokens, before an answer was closed"
    # A choice that is quoted word for word is an answer, whatever it says ("I can't help you" was the line).
    chosen = choices is not None and words(answer) in [words(choice) for choice in choices]
    if abstains(answer, choices) and not abstains(example.answer):
        return Outcome.ABSTAINED, answer, ""
    if not chosen and (refuses(answer) or refuses(reply.rest)):
        return Outcome.REFUSED, answer, ""
    if fault := _fault(reply):
        return Outcome.MALFORMED, answer, fault
    if choices is None:
        return _open(reply, example.answer)
    match rule:
        case "option":
            return _option(reply, choices, example.answer)
        case "mmau":
            right = mmau_match(answer, example.answer, choices)
            return Outcome.CORRECT if right else Outcome.WRONG, answer, "official string match"
        case "letter":
            index = mmsu_letter(answer)
            if index is None or index >= len(choices):
                return (
                    Outcome.MALFORMED,
                    answer,
                    "neither the first nor the second-last character is a choice's letter",
                )
            right = choices[index] == example.answer
            return Outcome.CORRECT if right else Outcome.WRONG, choices[index], "official letter rule"
        case _:
            raise AssertionError(f"unknown rule {rule!r}: manifests are checked against earnest.example.RULES")


def _fault(reply: Reply) -> str:
    if len(reply.answers) > 1:
        return f"{len(reply.answers)} different answers in tags"
    if reply.answer:
        return ""
    if reply.thinking:
        return "the reasoning never ends and holds no answer"
    return "the answer is empty" if reply.tagged or reply.reasoning is not None else "the reply is empty"


def _option(reply: Reply, choices: Sequence[str], wanted: str) -> tuple[Outcome, str, str]:
    found = match_option(reply.answer, choices)
    if found.index is not None:
        right = choices[found.index] == wanted
        return Outcome.CORRECT if right else Outcome.WRONG, choices[found.index], found.how
    # In tags the answer is clear even if it is none of the choices; a sentence without tags may be anything.
    outside = reply.tagged and not found.named
    return Outcome.WRONG if outside else Outcome.MALFORMED, reply.answer, found.detail


def _open(reply: Reply, wanted: str) -> tuple[Outcome, str, str]:
    if words(reply.answer) == words(wanted):
        return Outcome.CORRECT, reply.answer, "text"
    # Without tags a sentence stands around the answer; in tags there is nothing but the answer.
    if not reply.tagged and mentions(reply.answer, [wanted]):
        return Outcome.CORRECT, reply.answer, "mention"
    return Outcome.WRONG, reply.answer, "another text"
