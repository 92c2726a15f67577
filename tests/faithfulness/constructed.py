"""Models whose faults are built in, and one that reads the timeline: what an audit must tell apart.

They know an item by its clip's source and hear of it what is left: an event is heard if the samples under it still
resemble those of the clip as it was.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tests.fakes import FakeEngine

from earnest.audio import Clip
from earnest.conversation import Conversation
from earnest.example import Example
from earnest.faithfulness.grounding import Claim, claims_of
from earnest.world.dataset import world_example, world_item
from earnest.world.mixing import render
from earnest.world.surrogates import clock

ASKED = ("sound_first", "sound_last", "sound_total", "sound_presence", "instrument_last", "word_last", "word_first")
RESEMBLES = 0.5
"""Least correlation at which an event is heard."""


def items(count: int, seed: int = 0) -> list[Example]:
    """So many items of the test split, of the templates that the constructed models can reason about."""
    found: list[Example] = []
    index = 0
    while len(found) < count:
        item = world_item("test", seed, index)
        index += 1
        scene = item.scene
        if item.question.template not in ASKED or len(scene.events) < 2 or scene.duration_s > 12:
            continue
        example = world_example(item, render(scene))
        found.append(Example(**{**vars(example), "meta": {"timeline": scene.to_json()["events"]}}))
    return found


class Reader:
    """Reads what is left of a timeline, says all of it, and answers from what it said.

    Args:
        examples: what it knows, with their clips.
        obeys: whether it gives the option that an injected voice says.
        uses_chain: whether a reasoning that it is given changes its answer.
        hears: whether it listens at all.
        timelines: the same examples with their timelines, where `examples` have none.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        obeys: bool = False,
        uses_chain: bool = True,
        hears: bool = True,
        timelines: Sequence[Example] | None = None,
    ) -> None:
        self._known = {example.clip.source: example for example in examples}
        self._events = {each.id: each.meta["timeline"] for each in timelines or examples}
        self._obeys = obeys
        self._uses_chain = uses_chain
        self._hears = hears

    def engine(self, name: str) -> FakeEngine:
        """As an engine."""
        return FakeEngine(self._reply, name=name)

    def _reply(self, conversation: Conversation) -> str:
        question = conversation.turns[0].text
        asked = question.strip().splitlines()
        choices = re.sub(r"^Choices: |\.$", "", asked[1]).split("; ")
        begun = conversation.last_text if conversation.continues_assistant else ""
        if not self._hears:
            return self._invented(question, choices, begun)
        heard = self._heard(conversation)
        said = self._said(heard)
        if begun:
            return self._continued(begun, said, asked[0], choices, conversation)
        answer = self._answer(claims_of(said), asked[0], choices, conversation)
        if "answer directly" in question:
            return f"<answer> {answer}</answer>"
        conclusion = f" so the answer is {answer}." if answer in choices else ""
        return f"<think> {said}{conclusion}</think><answer> {answer}</answer>"

    def _continued(
        self, begun: str, said: str, question: str, choices: Sequence[str], conversation: Conversation
    ) -> str:
        reasoning = re.sub(r".*<think>", "", begun)
        closed = "</think>" in reasoning
        reasoning = reasoning.partition("</think>")[0]
        rest = ""
        if not closed:
            # It goes on with what comes after what it has said so far.
            last = max((claim.at_s or 0.0 for claim in claims_of(reasoning)), default=-1.0)
            later = [step for step in _steps(said) if (claims_of(step)[0].at_s or 0.0) > last]
            rest = f"{', then ' if later else ''}{', then '.join(later)}" + "." * (not reasoning.endswith("."))
        own = claims_of(reasoning + rest) if self._uses_chain else claims_of(said)
        answer = self._answer(own, question, choices, conversation)
        return f"{'' if closed else rest + '</think><answer>'} {answer}</answer>"

    def _said(self, heard: Sequence[Mapping[str, Any]]) -> str:
        cited = [f"{_caption(event)} [{clock(int(event['start_s']))}]" for event in heard]
        return f"i hear {', then '.join(cited)}." if cited else "i hear no sound."

    def _heard(self, conversation: Conversation) -> list[Mapping[str, Any]]:
        if not conversation.clips:
            return []
        clip = conversation.clips[0]
        example = self._known[clip.source.split(" | ")[0]]
        before, after = example.clip.samples, _without_insert(example.clip, clip)
        return [
            event for event in example.meta["timeline"] if _resemble(before, after, event, example.clip.sample_rate_hz)
        ]

    def _answer(
        self, claims: Sequence[Claim], question: str, choices: Sequence[str], conversation: Conversation
    ) -> str:
        source = conversation.clips[0].source if conversation.clips else ""
        if self._obeys and (told := re.search(r"\|.*?: (?:there is a )?(\w+) (?:spliced in|over it)", source)):
            said = {"one": "1", "two": "2", "three": "3", "four": "4", "zero": "0"}.get(told[1], told[1])
            return said if said in choices else "yes"
        return _by_rule(claims, question, choices)

    def _invented(self, question: str, choices: Sequence[str], begun: str) -> str:
        choice = choices[zlib.crc32(question.strip().splitlines()[0].encode()) % len(choices)]
        if begun:
            return f"{'' if '</think>' in begun else '.</think><answer>'} {choice}</answer>"
        reasoning = f"i hear dog [00:01], then cat [00:02]. so the answer is {choice}."
        return f"<think> {reasoning}</think><answer> {choice}</answer>"


def _by_rule(claims: Sequence[Claim], question: str, choices: Sequence[str]) -> str:
    """The world's answer, as far as claims settle it."""
    from earnest.world.vocabulary import INSTRUMENTS, SOUNDS, WORDS

    events = sorted((claim for claim in claims if claim.heard), key=lambda claim: claim.at_s or 0.0)
    pool: Callable[[str], bool]
    if "instrument" in question:
        pool = INSTRUMENTS.__contains__
    elif "word" in question:
        pool = WORDS.__contains__
    else:
        pool = SOUNDS.__contains__
    own = [claim.name for claim in events if pool(claim.name) and ("word" in question) == bool(claim.details)]
    if "instrument" in question:
        own = [claim.name for claim in events if pool(claim.name)]
    if "how many" in question:
        return str(len(own)) if events else "i don't know"
    if set(choices) == {"yes", "no"}:
        if not events:
            return "i don't know"
        return "yes" if any(name in re.findall(r"[a-z]+", question) for name in own) else "no"
    if not own:
        return "i don't know"
    return own[0] if "first" in question else own[-1]


def _caption(event: Mapping[str, Any]) -> str:
    details = [str(event[key]) for key in ("pitch", "tempo", "speaker") if event.get(key)]
    return ", ".join([event["name"], *details])


def _steps(said: str) -> list[str]:
    return [step for step in re.sub(r"^i hear |\.$", "", said).split(", then ") if "[" in step]


def _without_insert(before: Clip, after: Clip) -> np.ndarray[Any, Any]:
    """What a splice pushed apart, joined again."""
    extra = after.samples.size - before.samples.size
    if extra <= 0:
        return after.samples
    differs = np.flatnonzero(after.samples[: before.samples.size] != before.samples)
    at = int(differs[0]) if differs.size else before.samples.size
    return np.concatenate([after.samples[:at], after.samples[at + extra :]])


def _resemble(before: Any, after: Any, event: Mapping[str, Any], rate_hz: int) -> bool:
    span = slice(round(event["start_s"] * rate_hz), round(event["end_s"] * rate_hz))
    one, two = before[span], after[span]
    norm = float(np.linalg.norm(one) * np.linalg.norm(two))
    return norm > 0 and float(one @ two) / norm > RESEMBLES
