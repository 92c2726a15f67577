"""What a writer wrote about a clip: read as one JSON object, and checked for all that is exact.

The reasoning must cite stretches that can be heard again and hold something that is known of the clip, and end in the
answer; it is then a trace. Why something is not taken is kept as a reason, with what was found.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from earnest.completion import Stop
from earnest.example import Example
from earnest.grading import Outcome, grade, match_option, parse_segments
from earnest.grading.options import words
from earnest.relistening.metadata import Described
from earnest.relistening.reward import well_formed
from earnest.relistening.segments import CLOSING, Bounds, Fault, last_segment
from earnest.relistening.traces import Trace

_UNBOUNDED = Bounds(longest_s=math.inf, total_s=math.inf)
_KEYS = {"question": str, "options": list, "answer": str, "cot": str}
_FENCE = re.compile(r"^[ \t]*```(?:json)?[ \t]*\n(.*?)\n[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_TAG = re.compile(r"<\s*/?\s*seg\b[^>]*>?", re.IGNORECASE)
_FINAL = re.compile(r".*\banswer is:?\s+(.+)", re.IGNORECASE | re.DOTALL)


class Reason(StrEnum):
    """Why a question or its reasoning is not taken."""

    WRITER_FAILED = "writer_failed"
    """The engine has no reply; repeating the command asks again."""
    CUT = "cut"
    """The reply reached the limit of tokens."""
    MALFORMED = "malformed"
    """No JSON object with the four keys and their types."""
    OPTIONS = "options"
    """Fewer than two different ones."""
    ANSWER = "answer"
    """None of the options."""
    QUESTION_INVALID = "question_invalid"
    """So the judge says."""
    QUESTION_UNJUDGED = "question_unjudged"
    """The judge gave no verdict that can be read."""
    UNCITED = "uncited"
    """The reasoning cites nothing."""
    CITATION = "citation"
    """One is no stretch of the clip that can be heard again."""
    ELSEWHERE = "elsewhere"
    """One shares no time with any event of the metadata."""
    FINAL_ANSWER = "final_answer"
    """The reasoning does not end in the answer."""
    FORM = "form"
    """As a reply it would not be well formed, or not be graded as right."""
    COT_INVALID = "cot_invalid"
    """So the judge says."""
    COT_UNJUDGED = "cot_unjudged"
    """The judge gave no verdict that can be read."""
    JUDGE_FAILED = "judge_failed"
    """The engine has no reply; repeating the command asks again."""


@dataclass(frozen=True)
class Rejection:
    """Why something is not taken: the reason, and what was found."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Draft:
    """What a writer wrote about a clip; `cot` is on one line, without tags around it."""

    question: str
    options: tuple[str, ...]
    answer: str
    cot: str


def read_draft(said: str) -> Draft | Rejection:
    """What a writer wrote: one JSON object, in a fenced block or alone, with exactly the four keys."""
    if said.lstrip().startswith("<think>") and "</think>" not in said:
        return Rejection(Reason.MALFORMED, "its own reasoning never ends")
    # Its own reasoning may hold drafts; but the tag may stand in the block itself, which is then told below.
    rest = said.rpartition("</think>")[2]
    blocks: list[str] = _FENCE.findall(rest) or _FENCE.findall(said) or [rest]
    if len(blocks) > 1:
        return Rejection(Reason.MALFORMED, f"{len(blocks)} fenced blocks")
    try:
        value: Any = json.loads(blocks[0])
    except (json.JSONDecodeError, RecursionError) as error:
        return Rejection(Reason.MALFORMED, f"no JSON object: {error}")
    if not isinstance(value, dict):
        return Rejection(Reason.MALFORMED, f"a {type(value).__name__} in place of an object")
    row = cast(dict[str, Any], value)
    if row.keys() != _KEYS.keys():
        return Rejection(Reason.MALFORMED, f"the keys are {', '.join(row)}; wanted are {', '.join(_KEYS)}")
    for key, kind in _KEYS.items():
        texts: list[Any] = row[key] if kind is list and isinstance(row[key], list) else [row[key]]
        if not isinstance(row[key], kind) or not all(isinstance(text, str) and text.strip() for text in texts):
            return Rejection(Reason.MALFORMED, f"{key} is no {'list of texts' if kind is list else 'text'}, or empty")
    question, answer, cot = (" ".join(row[key].split()) for key in ("question", "answer", "cot"))
    return Draft(question, tuple(" ".join(option.split()) for option in row["options"]), answer, cot)


def with_sound_options(draft: Draft) -> Draft | Rejection:
    """The draft, its answer spelt as the option that it is, if the options are two or more different ones."""
    if len({words(option) or (option.casefold(),) for option in draft.options}) < max(2, len(draft.options)):
        return Rejection(Reason.OPTIONS, f"{list(draft.options)} are not two or more different ones")
    same = [option for option in draft.options if option.casefold() == draft.answer.casefold()]
    if len(same) != 1:
        return Rejection(Reason.ANSWER, f"{draft.answer!r} is none of {list(draft.options)}")
    return replace(draft, answer=same[0])


def trace_of(clip: Described, draft: Draft) -> Trace | Rejection:
    """The reasoning as a reply in pieces, split behind each citation, if all that is exact about it holds."""
    cited = parse_segments(draft.cot)
    reply = f"<think> {draft.cot} </think><answer>{draft.answer}</answer>"
    tags: list[str] = _TAG.findall(reply)
    if not tags:
        return Rejection(Reason.UNCITED, "no <seg>start, end</seg>")
    if tags != ["<seg>", CLOSING] * len(cited):
        return Rejection(Reason.CITATION, f"tags that are no pairs of <seg> and {CLOSING}: {' '.join(tags)}")
    *cites, last = reply.split(CLOSING)
    texts = [text + CLOSING for text in cites]
    segments: list[tuple[float, float]] = []
    for text in texts:
        segment = last_segment(text, clip.duration_s, _UNBOUNDED)
        fault = segment.fault
        end_s = parse_segments(text)[-1].end_s
        if fault is None and end_s is not None and end_s > clip.duration_s:
            fault = Fault.OUTSIDE
        if fault or segment.start_s is None or end_s is None:
            return Rejection(
                Reason.CITATION, f"<seg>{segment.text}</seg> is {fault} (the clip has {clip.duration_s:.2f} s)"
            )
        segments.append((segment.start_s, end_s))
    for start_s, end_s in segments:
        if not any(event.start_s < end_s and start_s < event.end_s for event in clip.events):
            return Rejection(Reason.ELSEWHERE, f"<seg>{start_s:g}, {end_s:g}</seg> shares no time with any event")
    final = _FINAL.fullmatch(draft.cot)
    named = match_option(final[1], draft.options).index if final and "<seg>" not in final[1] else None
    if named is None or draft.options[named] != draft.answer:
        says = f"ends in {draft.cot[-80:]!r}" if named is None else f"says {draft.options[named]!r}"
        return Rejection(Reason.FINAL_ANSWER, f"it {says}, the answer is {draft.answer!r}")
    if not well_formed(reply.lower(), Stop.END):
        return Rejection(Reason.FORM, "it holds tags of thinking or answering itself")
    graded = grade(reply, Stop.END, example_of(clip, draft))
    if graded.outcome is not Outcome.CORRECT:
        return Rejection(Reason.FORM, f"graded as {graded.outcome}: {graded.detail or graded.answer}")
    return Trace((*texts, last), tuple(segments))


def example_of(clip: Described, draft: Draft) -> Example:
    """The question, without the reasoning."""
    return Example(
        id=clip.id,
        audio=(clip.audio,),
        question=draft.question,
        choices=draft.options,
        answer=draft.answer,
        groups=clip.groups,
        meta=clip.meta,
    )
