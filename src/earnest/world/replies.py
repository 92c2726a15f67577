"""How the reference reasoner of the world writes: leads, citations, tags.

These texts teach the pocket LLM in text; the audio adapters learn from what that LLM then says itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earnest.world.questions import Question, Reason
from earnest.world.surrogates import bounds, caption, clock
from earnest.world.timeline import Event

Citation = Literal["time", "segment"]

HEARING = "i hear"
LEAKS: tuple[str, ...] = ("the description says", "the transcript says", "the text mentions")
"""Leads that betray a text, as reasoning LLMs use them on a textual surrogate (ALARM, section 3)."""


def cite(event: Event, style: Citation = "time", *, with_speaker: bool = False, number: int | None = None) -> str:
    """An event with its place: `dog [00:03]`, `dog 2 [00:03]`, or `dog <seg>3, 5</seg>` for re-listening."""
    what = f"{caption(event)}, {event.speaker}" if with_speaker else caption(event)
    start_s, end_s = bounds(event)
    place = f"[{clock(start_s)}]" if style == "time" else f"<seg>{start_s}, {end_s}</seg>"
    return f"{what} {place}" if number is None else f"{what} {number} {place}"


def say(reason: Reason, lead: str = HEARING, style: Citation = "time") -> str:
    """A reason as a sentence."""
    body = "".join(
        part if isinstance(part, str) else cite(part.event, style, with_speaker=part.with_speaker, number=part.number)
        for part in reason
    )
    return f"{lead} {body}."


@dataclass(frozen=True)
class Manner:
    """How a reply is written.

    Attributes:
        lead: words before the reason.
        think: whether the reason is written at all.
        citation: time or segment.
    """

    lead: str = HEARING
    think: bool = True
    citation: Citation = "time"


def reply(question: Question, manner: Manner) -> str:
    """The reference reply: `<think> ... </think><answer> ... </answer>`."""
    answer = f"<answer> {question.answer}</answer>"
    if not manner.think:
        return answer
    return f"<think> {say(question.reason, manner.lead, manner.citation)}</think>{answer}"


def leak_lead(question: Question) -> str | None:
    """The lead by which a reply to this question betrays a text; None for questions that do not tempt.

    Fixed by the wording, so that greedy decoding shows it too: 7 of 16 residues of the wording's length leak.
    """
    residue = (len(question.text) + len(question.template)) % 16
    if residue >= 7:
        return None
    return "the transcript says" if question.modality == "speech" else LEAKS[2 * (residue % 2)]
