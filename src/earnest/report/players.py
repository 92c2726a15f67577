"""Examples to listen to: the clip, its spectrogram and timeline, the question and what became of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earnest.audio import Clip
from earnest.completion import Heard
from earnest.example import Example
from earnest.grading import parse_reply
from earnest.report.plots import RATE_HZ, spectrogram_png


@dataclass(frozen=True)
class Bar:
    """One event of the timeline, placed in per cent of the clip's length.

    Attributes:
        kind: sound, music or speech; the page colours by it.
        label: what is heard.
        left: start.
        width: length.
        lane: row, counted from 0: bars of one lane do not overlap.
        span: as in "1.2-3.4 s".
    """

    kind: str
    label: str
    left: float
    width: float
    lane: int
    span: str


@dataclass(frozen=True)
class Again:
    """A stretch that a reply cited: playable if it was heard again, else with the reason why it was not.

    Attributes:
        label: as in "<seg>3, 6</seg> 3.0-6.0 s".
        audio: data URI; empty if it was not heard.
        bar: where it lies in the clip.
        fault: why it was not heard; empty if it was.
    """

    label: str
    audio: str
    bar: Bar | None
    fault: str


@dataclass(frozen=True)
class Player:
    """One playable example; all that the page shows of it."""

    id: str
    audio: str
    spectrogram: str
    duration_s: float
    bars: tuple[Bar, ...]
    lanes: int
    evidence: tuple[Bar, ...]
    question: str
    choices: tuple[str, ...]
    gold: str
    answer: str
    reasoning: str
    reply: str
    outcome: str
    heard: str
    groups: Mapping[str, str]
    occlusion: tuple[Bar, ...] = ()
    again: tuple[Again, ...] = ()


@dataclass(frozen=True)
class Pair:
    """The same question before and after something was changed, both to be listened to."""

    title: str
    before: Player
    after: Player


def choose(records: Sequence[Mapping[str, Any]], count: int = 20) -> list[int]:
    """Indices of records to show: every modality and every outcome in turn, in the order of the records.

    Taking turns, not a proportional draw, makes rare outcomes visible; equal records give the same choice.
    """
    buckets: dict[tuple[str, str], list[int]] = {}
    for index, record in enumerate(records):
        buckets.setdefault((record["groups"].get("modality", ""), record["outcome"]), []).append(index)
    queues = [buckets[key] for key in sorted(buckets)]
    chosen: list[int] = []
    while len(chosen) < min(count, len(records)):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return sorted(chosen)


def player(example: Example, record: Mapping[str, Any], clip: Clip | None = None) -> Player:
    """Everything that the page shows of one example, audio included.

    Args:
        example: the question, with its clip; `meta["timeline"]`, if there, is a list of events
            {kind, name, start_s, end_s}.
        record: what became of it (`earnest.grading.Record.to_json`); `occlusion`, if there, is a list of windows
            {start, end (shares of the clip), moved}; `segments`, if there, is a list of stretches that were cited
            {text, start_s, end_s, fault}.
        clip: what was heard in place of the example's own, whose timeline is then not shown.
    """
    own, clip = clip is None, clip or example.clip
    segments = example.evidence or () if own else ()
    timeline: Sequence[Mapping[str, Any]] = example.meta.get("timeline", ()) if own else ()
    bars = _lanes(timeline, clip.duration_s)
    evidence = _lanes(
        [{"kind": "evidence", "name": "", "start_s": a, "end_s": b} for a, b in segments],
        clip.duration_s,
    )
    return Player(
        id=example.id,
        audio=audio_uri(clip),
        spectrogram=_uri("image/png", spectrogram_png(clip)),
        duration_s=clip.duration_s,
        bars=bars,
        lanes=1 + max((bar.lane for bar in bars), default=-1),
        evidence=evidence,
        question=example.question,
        choices=example.choices or (),
        gold=example.answer or "",
        answer=record["answer"],
        reasoning=parse_reply(record["reply"]).reasoning or "",
        reply=record["reply"],
        outcome=str(record["outcome"]),
        heard=f"heard {Heard(**record['heard']).shown}",
        groups=example.groups,
        occlusion=tuple(_window(window, clip.duration_s) for window in record.get("occlusion", ())),
        again=tuple(_again(segment, clip) for segment in record.get("segments", ())),
    )


def audio_uri(clip: Clip) -> str:
    """The clip as a data URI: 16 kHz, 16 bit, as FLAC or as WAV, whichever is smaller.

    A clip that peaks above full scale is turned down to it, so that what is played is not clipped.
    """
    samples = clip.resampled(RATE_HZ).samples
    played = Clip(samples / max(1.0, float(np.abs(samples).max())), RATE_HZ)
    encoded = (("audio/flac", played.flac_bytes()), ("audio/wav", played.wav_bytes()))
    return _uri(*min(encoded, key=lambda pair: len(pair[1])))


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _window(window: Mapping[str, Any], duration_s: float) -> Bar:
    start, end = float(window["start"]), float(window["end"])
    kind, label = ("moves", "moves the answer") if window["moved"] else ("", "changes nothing")
    span = f"{start * duration_s:.1f}-{end * duration_s:.1f} s"
    return Bar(kind, label, round(100 * start, 3), round(100 * (end - start), 3), 0, span)


def _again(segment: Mapping[str, Any], clip: Clip) -> Again:
    cited = f"<seg>{segment['text']}</seg>"
    if segment["fault"]:
        return Again(cited, "", None, str(segment["fault"]))
    start_s, end_s = float(segment["start_s"]), float(segment["end_s"])
    (bar,) = _lanes([{"kind": "again", "name": cited, "start_s": start_s, "end_s": end_s}], clip.duration_s)
    return Again(cited, audio_uri(clip.crop(start_s, end_s)), bar, "")


def _lanes(events: Sequence[Mapping[str, Any]], duration_s: float) -> tuple[Bar, ...]:
    """Puts every event into the first lane that is free at its start."""
    free_s: list[float] = []
    bars: list[Bar] = []
    for event in sorted(events, key=lambda event: event["start_s"]):
        start_s, end_s = float(event["start_s"]), float(event["end_s"])
        lane = next((number for number, end in enumerate(free_s) if end <= start_s), len(free_s))
        free_s[lane : lane + 1] = [end_s]
        details = [str(event[name]) for name in ("name", "pitch", "tempo", "speaker") if event.get(name)]
        bars.append(
            Bar(
                kind=str(event["kind"]),
                label=", ".join(details),
                left=round(100 * start_s / duration_s, 3),
                width=round(100 * (end_s - start_s) / duration_s, 3),
                lane=lane,
                span=f"{start_s:.1f}-{end_s:.1f} s",
            )
        )
    return tuple(bars)
