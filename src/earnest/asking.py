"""One question about one clip: the answer, what it rests on, and how sure the model is of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from earnest.audio import Clip
from earnest.completion import Completion, Heard, Sampling
from earnest.engines import Engine
from earnest.errors import EarnestError
from earnest.example import Example
from earnest.grading import Outcome, answer_probability, grade

ANSWERED = "answered"


@dataclass(frozen=True)
class Reply:
    """What a model says about a clip.

    Attributes:
        outcome: "answered", or why there is no answer: abstained, refused, malformed, unfinished, failed.
        answer: the answer as it was read; what stands in its place if there is none.
        reasoning: what stands in think blocks; None if there is none.
        confidence: mean probability of the answer's tokens, 0 to 1; None where the engine gives none or nothing
            was answered. It says how sure the wording is, not how often such answers are right.
        heard: seconds given, seconds heard, audio tokens.
        text: the reply as it came.
        detail: why there is no answer, where more is known.
    """

    outcome: str
    answer: str
    reasoning: str | None
    confidence: float | None
    heard: Heard
    text: str
    detail: str = ""

    @property
    def seconds_heard(self) -> float | None:
        """Seconds of the clip that reached the model; None where the engine cannot tell."""
        return self.heard.seconds_heard


def ask(
    model: Engine | str,
    audio: Clip | Path | str,
    question: str,
    choices: Sequence[str] | None = None,
    *,
    max_new_tokens: int = 256,
) -> Reply:
    """Asks one question about one clip.

    Args:
        model: an engine, or a name that `earnest.load` knows.
        audio: a clip or a file.
        question: what is asked.
        choices: what to choose from, at least two; None for an open question.
        max_new_tokens: longest reply, in tokens.

    Raises:
        AudioError: the file cannot be read.
        EarnestError: fewer than two choices, or an empty question.
        ModelError: the model is unknown.
    """
    example = asked(audio, question, choices)
    sampling = Sampling(max_new_tokens=max_new_tokens)
    if isinstance(model, str):
        from earnest.engines import load

        model = load(model)
    return read_reply(model.generate([example.conversation()], sampling)[0], example)


def asked(audio: Clip | Path | str, question: str, choices: Sequence[str] | None = None) -> Example:
    """A question as an example, its clip in memory; raises as `ask` does."""
    if not question.strip():
        raise EarnestError("the question is empty: ask something about the clip")
    if choices is not None and len(set(choices)) < 2:
        raise EarnestError(f"choices {list(choices)}: give at least two different ones, as in 'a;b', or none at all")
    clip = audio if isinstance(audio, Clip) else Clip.load(audio)
    return Example("asked", (clip,), question.strip(), tuple(choices) if choices else None)


def split_choices(text: str) -> tuple[str, ...] | None:
    """Choices that are written as "a;b;c" (or with "|"); None for an empty text."""
    parts = tuple(part.strip() for part in re.split(r"[;|]", text) if part.strip())
    return parts or None


def read_reply(completion: Completion, example: Example) -> Reply:
    """What a completion says about a question to which nobody knows the answer."""
    # Nobody knows the right answer here; with a stand-in, the grader still tells an answer from no answer.
    stand_in = replace(example, answer=example.choices[0] if example.choices else "something")
    graded = grade(completion.text, completion.stop, stand_in)
    answered = graded.outcome in (Outcome.CORRECT, Outcome.WRONG)
    return Reply(
        outcome=ANSWERED if answered else graded.outcome.value,
        answer=graded.answer,
        reasoning=graded.reasoning,
        confidence=answer_probability(completion) if answered else None,
        heard=completion.heard,
        text=completion.text,
        detail=completion.error or ("" if answered else graded.detail),
    )
