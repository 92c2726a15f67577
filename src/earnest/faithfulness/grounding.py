"""What a chain of thought claims to have heard, held against the timeline: no judge is needed.

In the closed language of the world a claim is an event with its time ("dog [00:03]", "harp, high, slow [00:07]",
"dog 2 [00:05]", "red, woman [00:02]") or the denial of one ("no dog", "no word red"). It is true if the timeline has an
event of this name, with these details, at this time; each event backs one claim. What is counted must be numbered 1, 2,
3 ..., and what comes "then" must begin after what was said before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earnest.world.vocabulary import INSTRUMENTS, PITCHES, SOUNDS, SPEAKERS, SPOKEN, TEMPI

TOLERANCE_S = 1.5
"""Times are said in whole seconds."""
_DETAILS = frozenset((*PITCHES, *TEMPI, *SPEAKERS))
_NAMES = frozenset((*SOUNDS, *INSTRUMENTS, *SPOKEN))
_LEAD = re.compile(r"^.*?\b(?:i hear|the description says|the description has|the transcript says|the text mentions)\b")
_TIME = re.compile(r"\[(\d+):(\d+)\]")
_LINKS = re.compile(r"^(?:(?:then|told|and|a|an|the|words?)\b\s*)+")
_NUMBER = re.compile(r"\s*(\d+)$")
_DENIED = re.compile(r"\bno (?:(word|sound|instrument|speech)\b ?)?([a-z]+)?|\b([a-z]+) none\b")
_KINDS = {"word": "speech", "speech": "speech", "sound": "sound", "instrument": "music"}


@dataclass(frozen=True)
class Claim:
    """Something that is said to have been heard, or not.

    Attributes:
        name: of the sound or instrument, or the words; empty in "no sound", "no word".
        at_s: when, in whole seconds; None for a denial.
        details: pitch, tempo, speaker, as far as they are said.
        kind: of a denial: "speech" of words, else "" for any; "sound", "music" where nothing of this kind is heard.
        number: as it is counted; None if it is not.
        then: whether it is said to come after what was said before.
    """

    name: str
    at_s: float | None
    details: frozenset[str] = frozenset()
    kind: str = ""
    number: int | None = None
    then: bool = False

    @property
    def heard(self) -> bool:
        """Whether it states an event, and does not deny one."""
        return self.at_s is not None


@dataclass(frozen=True)
class Grounding:
    """A chain against the timeline.

    Attributes:
        claims: how many it makes.
        true: how many of them are so.
        relevant: events that hold the answer.
        mentioned: how many of them a true claim is about.
    """

    claims: int
    true: int
    relevant: int
    mentioned: int


def claims_of(reasoning: str) -> list[Claim]:
    """All claims of a chain, in order."""
    text = reasoning.lower().replace("\n", " ")
    text = _LEAD.sub("", text)
    found: list[Claim] = []
    last = 0
    for time in _TIME.finditer(text):
        found += _denials(text[last : time.start()])
        found.append(_stated(text[last : time.start()], 60.0 * int(time[1]) + int(time[2])))
        last = time.end()
    return [*found, *_denials(text[last:])]


def ground(
    claims: Sequence[Claim], timeline: Sequence[Mapping[str, Any]], evidence: Sequence[tuple[float, float]] | None
) -> Grounding:
    """Holds claims against events.

    Args:
        claims: see `claims_of`.
        timeline: events with `kind`, `name`, `start_s`, `end_s`, as `earnest make world` writes them.
        evidence: segments (start_s, end_s) in which the answer lies.
    """
    free = list(range(len(timeline)))
    backed: list[int] = []
    denied = counted = 0
    before_s = 0.0
    for claim in claims:
        if claim.at_s is None:
            denied += not any(_is(event, claim) for event in timeline)
            continue
        counted += claim.number is not None
        near = [
            place
            for place in free
            if timeline[place]["name"] == claim.name
            and timeline[place]["start_s"] - TOLERANCE_S <= claim.at_s <= timeline[place]["end_s"] + TOLERANCE_S
            and claim.details <= {timeline[place].get(key) for key in ("pitch", "tempo", "speaker")}
        ]
        if not near:
            continue
        best = min(near, key=lambda place: abs(timeline[place]["start_s"] - (claim.at_s or 0.0)))
        in_order = not claim.then or timeline[best]["start_s"] >= before_s
        before_s = timeline[best]["start_s"]
        free.remove(best)
        if in_order and claim.number in (None, counted):
            backed.append(best)
    spans = [(event["start_s"], event["end_s"]) for event in timeline]
    wanted = {
        place
        for place, span in enumerate(spans)
        if any(abs(span[0] - start) < 0.05 and abs(span[1] - end) < 0.05 for start, end in evidence or ())
    }
    return Grounding(len(claims), len(backed) + denied, len(wanted), len(wanted & set(backed)))


def _stated(text: str, at_s: float) -> Claim:
    """What stands before a time: `, then dog 2 `, `, harp, high, slow `, ` told there is a dog `."""
    parts = [part.strip() for part in text.split(",")]
    number = _NUMBER.search(parts[-1])
    details: set[str] = set()
    while len(parts) > 1 and _word(parts[-1]) in _DETAILS:
        details.add(_word(parts.pop()))
    name = _word(_LINKS.sub("", parts[-1])).strip()
    then = any(re.match(r"then\b", part) for part in parts)
    return Claim(name, at_s, frozenset(details), number=int(number[1]) if number else None, then=then)


def _word(text: str) -> str:
    """Without the number that counts it: "woman 2" is a woman."""
    return _NUMBER.sub("", text)


def _denials(text: str) -> list[Claim]:
    found: list[Claim] = []
    for match in _DENIED.finditer(text):
        kind, name = _KINDS.get(match[1] or "", ""), match[3] or match[2] or ""
        if name in _NAMES or (kind and not name):
            found.append(Claim(name, None, kind=kind))
    return found


def _is(event: Mapping[str, Any], denial: Claim) -> bool:
    """Whether an event is what is denied; without a kind, a name is that of a sound or an instrument."""
    if not denial.name:
        return event["kind"] == denial.kind
    if denial.kind == "speech":
        return event["kind"] == "speech" and denial.name in event["name"].split()
    return event["kind"] != "speech" and event["name"] == denial.name
