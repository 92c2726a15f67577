"""One line of `records.jsonl`: a question, its reply, what it is worth, and how much was heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from earnest.completion import Completion, Heard
from earnest.example import Example
from earnest.grading.grade import Grade, grade
from earnest.grading.outcomes import Outcome


@dataclass(frozen=True)
class Record:
    """What happened to one example.

    Attributes:
        id: the example's.
        groups: the example's.
        question: the example's.
        choices: the example's.
        expected: the right answer.
        outcome: exactly one of the seven.
        answer: the final answer as it was read.
        reply: the whole reply.
        stop: why the reply ended.
        rule: the rule by which it was graded.
        detail: how it was matched, why it was not, or the engine's error.
        heard: seconds given, seconds heard, audio tokens.
        seconds: wall-clock seconds of the reply.
    """

    id: str
    groups: dict[str, str]
    question: str
    choices: tuple[str, ...] | None
    expected: str
    outcome: Outcome
    answer: str
    reply: str
    stop: str
    rule: str
    detail: str
    heard: Heard
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Record:
        """Inverse of `to_json`, also after a round trip through JSON."""
        choices = row["choices"]
        values: dict[str, Any] = {
            **row,
            "choices": None if choices is None else tuple(choices),
            "outcome": Outcome(row["outcome"]),
            "heard": Heard(**row["heard"]),
        }
        return Record(**values)


def make_record(example: Example, completion: Completion, graded: Grade | None = None) -> Record:
    """The record of one example; graded here unless a grade is given."""
    graded = graded or grade(completion.text, completion.stop, example)
    return Record(
        id=example.id,
        groups=dict(example.groups),
        question=example.question,
        choices=example.choices,
        expected=example.answer or "",
        outcome=graded.outcome,
        answer=graded.answer,
        reply=completion.text,
        stop=completion.stop.value,
        rule=graded.rule,
        detail=completion.error or graded.detail,
        heard=completion.heard,
        seconds=completion.seconds,
    )
