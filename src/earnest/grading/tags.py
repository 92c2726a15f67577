"""What stands in a reply: reasoning, answer and cited segments, from whatever tags it has.

    <think> why <seg>2.5, 4</seg> what I hear </think><answer> dog</answer>

Understood too: no tags at all, no think block, a block that the prompt opened, an answer that is not closed.
Answers are looked for outside the reasoning only. The format is Echo's (arXiv 2602.11909, section 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_THINK = re.compile(r"<think>(.*?)</think>", re.IGNORECASE | re.DOTALL)
_THINK_OPEN = re.compile(r"<think>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(r"</answer>", re.IGNORECASE)
_SEGMENT = re.compile(r"<seg>(.*?)</seg>", re.IGNORECASE | re.DOTALL)
_TIME = r"(?:(\d+):)?(\d+(?:\.\d+)?)\s*s?"
_TIMES = re.compile(rf"\s*{_TIME}\s*,\s*{_TIME}\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """A reply taken apart.

    Attributes:
        reasoning: what stands in think blocks, stripped; None if there is no block.
        answers: the different answers in tags, stripped, in order; several are a contradiction.
        closed: whether the last answer's tag is closed.
        rest: what stands outside all blocks, stripped: the whole reply if it has no tags.
        thinking: whether it ends inside a think block that holds no answer.
    """

    reasoning: str | None
    answers: tuple[str, ...]
    closed: bool
    rest: str
    thinking: bool

    @property
    def tagged(self) -> bool:
        """Whether an answer tag was opened."""
        return bool(self.answers)

    @property
    def answer(self) -> str:
        """The last answer in tags; without tags, all that is not reasoning."""
        return self.answers[-1] if self.answers else self.rest


@dataclass(frozen=True)
class Cited:
    """One `<seg>` tag.

    Attributes:
        text: what stands between the tags.
        start_s: start in seconds; None if the text is no pair of times.
        end_s: end in seconds; None if the text is no pair of times. It may lie before the start.
    """

    text: str
    start_s: float | None
    end_s: float | None


def parse_reply(text: str) -> Reply:
    """Takes a reply apart; never fails, whatever the text is."""
    blocks: list[str] = []
    opened, closed = _THINK_OPEN.search(text), _THINK_CLOSE.search(text)
    if closed and (opened is None or closed.start() < opened.start()):
        # The prompt opened the block: the reply begins inside it.
        blocks.append(text[: closed.start()])
        text = text[closed.end() :]
    blocks += _THINK.findall(text)
    text = _THINK.sub(" ", text)
    thinking = False
    if opened := _THINK_OPEN.search(text):
        inside = text[opened.end() :]
        answer = _ANSWER_OPEN.search(inside)
        thinking = answer is None
        blocks.append(inside[: answer.start()] if answer else inside)
        text = text[: opened.start()] + (inside[answer.start() :] if answer else "")
    answers = [found.strip() for found in _ANSWER.findall(text)]
    rest = _ANSWER.sub(" ", text)
    complete = bool(answers)
    if opened := _ANSWER_OPEN.search(rest):
        answers.append(rest[opened.end() :].strip())
        rest = rest[: opened.start()]
        complete = False
    elif not answers and (end := _ANSWER_CLOSE.search(rest)):
        # The prompt opened the answer: the reply begins inside it.
        answers.append(rest[: end.start()].strip())
        rest = rest[end.end() :]
        complete = True
    return Reply(
        reasoning="\n".join(block.strip() for block in blocks) if blocks else None,
        answers=tuple(dict.fromkeys(answers)),
        closed=complete,
        rest=rest.strip(),
        thinking=thinking,
    )


def answer_span(text: str) -> tuple[int, int] | None:
    """Where the answer that is graded stands in a reply, as [start, end) in characters.

    None if there is no answer, or if it is pieced together around reasoning.
    """
    reply = parse_reply(text)
    if not reply.answer:
        return None
    opening = r"<answer>\s*" if reply.tagged and _ANSWER_OPEN.search(text) else ""
    found = list(re.finditer(f"{opening}({re.escape(reply.answer)})", text, re.IGNORECASE))
    return found[-1].span(1) if found else None


def parse_segments(text: str) -> tuple[Cited, ...]:
    """All closed `<seg>START, END</seg>` tags in order; times are seconds (`2.5`, `2.5 s`) or `MM:SS`.

    A tag whose content is no pair of times is kept, with `None` as its times, so that it can be counted.
    """
    return tuple(_cited(content) for content in _SEGMENT.findall(text))


def _cited(content: str) -> Cited:
    match = _TIMES.fullmatch(content)
    if match is None:
        return Cited(content, None, None)
    minutes_a, seconds_a, minutes_b, seconds_b = match.groups()
    return Cited(
        content,
        60.0 * int(minutes_a or 0) + float(seconds_a),
        60.0 * int(minutes_b or 0) + float(seconds_b),
    )
