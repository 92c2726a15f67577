"""Scenes as dense streams of pieces: the form in which the LLM will one day read the ears' soft tokens.

A stream has one slot every `SLOT_S` seconds and the time every second. A slot holds a piece of the event
that is heard there, a mixture of two where events overlap, or the blank. In text-only training these
streams are made from the timeline, with soft boundaries, confusions and noise, so that the frozen LLM later
reads imperfect embeddings as well (spec: "stream-robust"). Where nothing sounds, what was heard holds some air beside
the blank; a stream without is a text like any other, and an LLM speaks of it as of a text.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from earnest.pocket.tokenizer import AIR, BLANK, TIME
from earnest.world.surrogates import clock
from earnest.world.timeline import Event, Scene

SLOT_S = 0.256
"""Length of a slot in seconds: 16000 / (256 * 16) = 3.906 slots a second."""
AIR_SHARES = (0.05, 0.4)
"""Of a slot between two events."""


class Slot(NamedTuple):
    """A mixture of two pieces: (1 - share) of the first, share of the second."""

    piece: str
    other: str
    share: float


def scene_stream(scene: Scene, rng: random.Random, *, robust: bool, heard: bool) -> list[Slot]:
    """Writes a scene as slots with a time every second.

    Args:
        scene: the timeline.
        rng: source of every choice.
        robust: blur boundaries, confuse some slots.
        heard: put air between the events.
    """
    n_slots = max(1, round(scene.duration_s / SLOT_S))
    layers: list[list[Slot]] = [[] for _ in range(n_slots)]
    for event in scene.events:
        first = min(n_slots - 1, int(event.start_s / SLOT_S + 0.5 * rng.random()))
        last = max(first, min(n_slots - 1, int(event.end_s / SLOT_S - 0.5 * rng.random())))
        for place, slot in zip(range(first, last + 1), _spread(event, last - first + 1, rng), strict=True):
            layers[place].append(slot)
    slots = [_merge(layer, rng) for layer in layers]
    if robust:
        slots = _blur(slots, rng)
    if heard:
        share = rng.uniform(*AIR_SHARES)
        slots = [Slot(BLANK, AIR, share) if slot.piece == slot.other == BLANK else slot for slot in slots]
    stream: list[Slot] = []
    second = 0
    for place, slot in enumerate(slots):
        if place * SLOT_S >= second:
            stream.append(time_slot(second))
            second += 1
        stream.append(slot)
    return stream


def time_slot(second: int) -> Slot:
    """The marker of a second."""
    piece = TIME.format(clock=clock(second))
    return Slot(piece, piece, 0.0)


def event_pieces(event: Event) -> list[list[str]]:
    """The pieces of an event: one group per part that is heard one after the other."""
    if event.kind == "sound":
        return [[f"▁|{event.name}|"]]
    if event.kind == "music":
        return [[f"▁|{event.name}", f",▁{event.pitch},▁{event.tempo}"]]
    return [[f"▁{word}", f",▁{event.speaker}"] for word in event.name.split()]


def _spread(event: Event, n_slots: int, rng: random.Random) -> list[Slot]:
    """Fills an event's slots with its pieces, in order; where there is no room, two share a slot."""
    groups = event_pieces(event)
    slots: list[Slot] = []
    for number, group in enumerate(groups):
        room = n_slots * (number + 1) // len(groups) - n_slots * number // len(groups)
        if room == 0 and number == len(groups) - 1 and not slots:
            room = 1
        slots += _fill(group, room, rng)
    return slots


def _fill(group: list[str], room: int, rng: random.Random) -> list[Slot]:
    if room == 0:
        return []
    if len(group) > 1 and (room < len(group) or rng.random() < 0.4):
        pairs = [(group[k], group[(k + 1) % len(group)]) for k in range(max(1, len(group) - 1))]
        if room < len(pairs):
            pairs = [pairs[0]] if rng.random() < 0.5 else [(group[0], rng.choice(group[1:]))]
        shares = [Slot(a, b, rng.uniform(0.3, 0.65)) for a, b in pairs]
        return [shares[k * len(shares) // room] for k in range(room)]
    return [Slot(group[k * len(group) // room], group[k * len(group) // room], 0.0) for k in range(room)]


def _merge(layer: list[Slot], rng: random.Random) -> Slot:
    if not layer:
        return Slot(BLANK, BLANK, 0.0)
    if len(layer) == 1:
        return layer[0]
    first, second = layer[-2:]
    return Slot(first.piece, second.piece, rng.uniform(0.3, 0.7))


def _blur(slots: list[Slot], rng: random.Random) -> list[Slot]:
    """A quarter of the pure slots takes up to 40 % of a neighbour, of the blank or of a wrong piece."""
    blurred = list(slots)
    pieces = [slot.piece for slot in slots]
    for place, slot in enumerate(slots):
        if slot.share or rng.random() > 0.25:
            continue
        kind = rng.random()
        if kind < 0.6:
            other = slots[max(0, place - 1)].piece if kind < 0.3 else slots[min(len(slots) - 1, place + 1)].piece
        else:
            other = BLANK if kind < 0.8 else rng.choice(pieces)
        blurred[place] = Slot(slot.piece, other, rng.uniform(0.0, 0.4))
    return blurred
