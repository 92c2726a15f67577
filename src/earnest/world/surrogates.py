"""Textual surrogates: a clip written down as text (ALARM, arXiv 2603.09556).

    single: [00:00-MM:SS] CONTENT (duration: Ns, key: value, ...)
    multi:  [MM:SS-MM:SS, the first speaker, key: v] text [MM:SS-MM:SS, ...] text (duration: Ns, ...)

CONTENT is the transcript, or the |caption or tags| between pipes when it is no transcript.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from earnest.world.timeline import Event, Scene

ORDINALS: tuple[str, ...] = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip


def clock(seconds: int) -> str:
    """Whole seconds as MM:SS."""
    return f"{seconds // 60:02d}:{seconds % 60:02d}"


@dataclass(frozen=True)
class Segment:
    """One stretch of a multi-segment surrogate.

    Attributes:
        start_s: whole seconds.
        end_s: whole seconds.
        content: transcript or caption.
        spoken: True for a transcript; a caption stands between pipes.
        speaker: 0 for the first speaker, 1 for the second, ...; None if nobody speaks.
        details: key and value pairs of the segment.
    """

    start_s: int
    end_s: int
    content: str
    spoken: bool = False
    speaker: int | None = None
    details: Mapping[str, str] = field(default_factory=dict[str, str])


def single_surrogate(content: str, duration_s: int, *, spoken: bool, details: Mapping[str, str] | None = None) -> str:
    """The surrogate of a clip with one content."""
    body = content if spoken else f"|{content}|"
    return f"[{clock(0)}-{clock(duration_s)}] {body} ({_pairs({'duration': f'{duration_s}s', **(details or {})})})"


def multi_surrogate(segments: Sequence[Segment], duration_s: int, *, details: Mapping[str, str] | None = None) -> str:
    """The surrogate of a clip with several segments; counts the speakers if anybody speaks."""
    texts: list[str] = []
    for segment in segments:
        head = f"{clock(segment.start_s)}-{clock(segment.end_s)}"
        if segment.speaker is not None:
            head += f", the {ORDINALS[segment.speaker]} speaker"
        if segment.details:
            head += f", {_pairs(segment.details)}"
        texts.append(f"[{head}] " + (segment.content if segment.spoken else f"|{segment.content}|"))
    tail = {"duration": f"{duration_s}s"}
    speakers = {segment.speaker for segment in segments if segment.speaker is not None}
    if speakers:
        tail["the number of speakers"] = str(len(speakers))
    return " ".join([*texts, f"({_pairs({**tail, **(details or {})})})"])


def caption(event: Event) -> str:
    """What is written of one event: a sound's name, an instrument with register and tempo, the words."""
    return f"{event.name}, {event.pitch}, {event.tempo}" if event.kind == "music" else event.name


def bounds(event: Event) -> tuple[int, int]:
    """Start and end of an event in whole seconds: start rounded down, end rounded up."""
    return math.floor(event.start_s), math.ceil(event.end_s)


def scene_surrogate(scene: Scene) -> str:
    """The surrogate of a scene of the world; speakers are numbered in order of appearance."""
    order: list[str] = []
    segments: list[Segment] = []
    for event in scene.events:
        start_s, end_s = bounds(event)
        if event.kind != "speech":
            segments.append(Segment(start_s, end_s, caption(event)))
            continue
        speaker = event.speaker or "man"
        if speaker not in order:
            order.append(speaker)
        segments.append(Segment(start_s, end_s, event.name, True, order.index(speaker), {"gender": speaker}))
    return multi_surrogate(segments, math.ceil(scene.duration_s))


def _pairs(details: Mapping[str, str]) -> str:
    return ", ".join(f"{key.lower()}: {value}" for key, value in details.items())
