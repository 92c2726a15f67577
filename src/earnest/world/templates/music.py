"""Questions about music."""

from __future__ import annotations

import random

from earnest.world.templates.drafts import Cite, Draft, counted, names, neighbours, template, then, unique, wrong
from earnest.world.timeline import Scene
from earnest.world.vocabulary import INSTRUMENTS, PITCHES, TEMPI


@template(
    "instrument_presence",
    "music",
    1,
    (
        "does a {x} play?",
        "is a {x} played?",
        "do you hear a {x} play?",
        "can you hear a {x} play?",
        "is a {x} in the music?",
        "is a {x} playing?",
        "is there a {x} playing?",
        "is there a {x} in the music?",
    ),
    ("is there a {x} played?",),
)
def _instrument_presence(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if not music:
        return None
    if rng.random() < 0.5:
        event = rng.choice(music)
        first = next(e for e in music if e.name == event.name)
        return Draft("yes", (Cite(first),), fixed=("yes", "no"), slots={"x": event.name})
    name = rng.choice([i for i in INSTRUMENTS if i not in names(music)])
    return Draft("no", (f"no {name}",), fixed=("yes", "no"), slots={"x": name})


@template(
    "instrument_first",
    "music",
    1,
    (
        "which instrument plays first?",
        "what instrument plays first?",
        "which instrument is heard first?",
        "what instrument do you hear first?",
        "which instrument is the first?",
        "what instrument is played first?",
        "what is the first of the instruments?",
        "what is the first instrument?",
    ),
    ("which is the first instrument?",),
)
def _instrument_first(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if not music:
        return None
    return Draft(music[0].name, (Cite(music[0]),), wrong(music, INSTRUMENTS, music[0].name, rng))


@template(
    "instrument_last",
    "music",
    1,
    (
        "which instrument plays last?",
        "what instrument plays last?",
        "which instrument is heard last?",
        "what instrument do you hear last?",
        "which instrument is the last?",
        "what instrument is played last?",
        "what is the last of the instruments?",
        "what is the last instrument?",
    ),
    ("which is the last instrument?",),
)
def _instrument_last(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if len(set(names(music))) < 2:
        return None
    return Draft(music[-1].name, (Cite(music[-1]),), wrong(music, INSTRUMENTS, music[-1].name, rng))


@template(
    "instrument_after",
    "music",
    2,
    (
        "which instrument plays after the {x}?",
        "what instrument follows the {x}?",
        "what instrument do you hear after the {x}?",
        "which instrument is heard after the {x}?",
        "after the {x}, what instrument plays?",
        "what instrument comes after the {x}?",
        "which instrument is next after the {x}?",
        "what instrument plays after the {x}?",
    ),
    ("which instrument follows the {x}?",),
)
def _instrument_after(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    pivots = [*unique(scene.of_kind("sound")), *unique(music)]
    found = neighbours(scene, pivots, music, rng, 1)
    if not found:
        return None
    pivot, answer = (event.name for event in found)
    return Draft(answer, then(*found), wrong(music, INSTRUMENTS, answer, rng, named=pivot), {"x": pivot})


@template(
    "pitch_of",
    "music",
    1,
    (
        "what is the pitch of the {x}?",
        "how high is the {x}?",
        "which pitch does the {x} have?",
        "what pitch is the {x}?",
        "does the {x} play high, middle or low?",
        "is the {x} high, middle or low?",
        "which pitch is played by the {x}?",
        "what pitch does the {x} play?",
    ),
    ("how high does the {x} play?",),
)
def _pitch_of(scene: Scene, rng: random.Random) -> Draft | None:
    music = unique(scene.of_kind("music"))
    if not music:
        return None
    event = rng.choice(music)
    return Draft(event.pitch or "", (Cite(event),), fixed=PITCHES, slots={"x": event.name})


@template(
    "tempo_of",
    "music",
    1,
    (
        "what is the tempo of the {x}?",
        "how fast is the {x}?",
        "which tempo does the {x} have?",
        "what tempo is the {x}?",
        "does the {x} play slow or fast?",
        "is the {x} slow or fast?",
        "which tempo is played by the {x}?",
        "what tempo does the {x} play?",
    ),
    ("how fast does the {x} play?",),
)
def _tempo_of(scene: Scene, rng: random.Random) -> Draft | None:
    music = unique(scene.of_kind("music"))
    if not music:
        return None
    event = rng.choice(music)
    return Draft(event.tempo or "", (Cite(event),), fixed=TEMPI, slots={"x": event.name})


@template(
    "pitch_compare",
    "music",
    2,
    (
        "which plays higher, the {x} or the {y}?",
        "what is higher, the {x} or the {y}?",
        "which has the higher pitch, the {x} or the {y}?",
        "what has the higher pitch, the {x} or the {y}?",
        "what is played higher, the {x} or the {y}?",
        "which instrument is higher, the {x} or the {y}?",
        "which is higher, the {x} or the {y}?",
    ),
    ("what plays higher, the {x} or the {y}?",),
)
def _pitch_compare(scene: Scene, rng: random.Random) -> Draft | None:
    music = unique(scene.of_kind("music"))
    rank = PITCHES.index
    pairs = [(a, b) for a in music for b in music if rank(a.pitch or "low") > rank(b.pitch or "low")]
    if not pairs:
        return None
    high, low = rng.choice(pairs)
    x, y = rng.sample([high, low], 2)
    reason = (Cite(x), ", ", Cite(y))
    return Draft(high.name, reason, fixed=(high.name, low.name), slots={"x": x.name, "y": y.name})


@template(
    "music_total",
    "music",
    1,
    (
        "how many times does an instrument play?",
        "how often does an instrument play?",
        "how many instruments do you hear?",
        "how many instruments can you hear?",
        "how many instruments are there?",
        "how often do you hear an instrument?",
        "how many times is an instrument heard?",
        "what is the number of instruments?",
        "count the instruments.",
        "how many instruments play?",
    ),
    ("how often is an instrument played?", "how many instruments are played?"),
)
def _music_total(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if len(music) != len(set(names(music))):
        return None
    return counted(music, "music", "no instrument", rng)
