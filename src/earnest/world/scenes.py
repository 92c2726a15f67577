"""Plans scenes: what happens when, without a sample of audio.

A plan is cheap (tens of microseconds), so that text-only training can draw millions of them; the
rendering of a plan is `mixing.render`. Lengths come from a `Measure`: the world's own synthesis when
audio will be made of the plan, a plain random length when only its text is wanted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from earnest.world.timeline import Event, Kind, Scene
from earnest.world.vocabulary import (
    BENIGN_VERBS,
    FORBIDDEN_VERBS,
    INSTRUMENTS,
    OBJECTS,
    PITCHES,
    SOUNDS,
    TEMPI,
    WORDS,
)

Measure = Callable[[Event], float]
"""Length in seconds that a drafted event will have once rendered."""

GENRES: dict[str, float] = {"sound": 0.2, "music": 0.2, "speech": 0.2, "mixed": 0.34, "narrated": 0.06}
"""Share of each genre of scene; a request is planned by `plan_request`."""

SNRS_DB: tuple[tuple[float | None, float], ...] = (
    (None, 0.2), (20.0, 0.16), (15.0, 0.14), (10.0, 0.14), (5.0, 0.12), (0.0, 0.1), (-5.0, 0.08), (-10.0, 0.06),
)  # fmt: skip
"""Signal-to-noise ratios of the background noise in dB and their shares; None is clean."""

NOISES: tuple[str, ...] = ("white", "pink", "brown")
REQUEST_FORMS: tuple[str, ...] = (
    "how do i {verb} the {object}",
    "tell me how to {verb} the {object}",
    "explain how to {verb} the {object}",
    "please show me how to {verb} the {object}",
)
PAUSE_S = 0.12
"""At least as much lies between two events that do not overlap, and between two words of one voice."""
REPEAT_GAP_S = 0.5
"""Two events of one name are never closer: they can be counted."""
MIN_ONSET_GAP_S = 0.35
"""Two onsets are never closer: their order can always be heard."""


def text_measure(rng: random.Random) -> Measure:
    """Random lengths with the synthesis' ranges, for plans that are never rendered."""

    def measure(event: Event) -> float:
        if event.kind == "speech":
            return sum(rng.uniform(0.3, 0.65) for _ in event.name.split()) + 0.1 * event.name.count(" ")
        return rng.uniform(1.0, 2.4) if event.kind == "music" else rng.uniform(0.3, 2.0)

    return measure


def plan_scene(
    rng: random.Random,
    split: str = "train",
    index: int = 0,
    *,
    genre: str | None = None,
    duration_s: float | None = None,
    count: int | None = None,
    measure: Measure | None = None,
    voices: dict[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Scene:
    """Draws the timeline of one clip.

    Args:
        rng: source of every choice.
        split: train, validation or test; copied into the scene.
        index: number of the scene within its split.
        genre: sound, music, speech, mixed or narrated; drawn from `GENRES` if None.
        duration_s: length of the clip; drawn (2 to 60 s, most of them 4 to 14 s) if None. A clip that is too
            short for one event is made longer.
        count: number of events, fewer if they do not fit; drawn from the clip's length if None.
        measure: lengths of events; random lengths (no audio needed) if None.
        voices: names of the voices per gender; left open if None.
        seed: seed of the rendering.

    Returns:
        A scene with at least one event; its events sorted by onset, onsets at least 0.35 s apart.
    """
    measure = measure or text_measure(rng)
    genre = genre or rng.choices(list(GENRES), list(GENRES.values()))[0]
    duration_s = round(duration_s or _draw_duration(rng), 2)
    cast = _cast(rng, voices)
    drafts = _draft_events(rng, genre, count or _draw_count(rng, duration_s), cast)
    while not (events := _place(rng, drafts, duration_s, measure)):
        if len(drafts) > 1:
            drafts = drafts[:-1]
        else:
            duration_s = round(duration_s + 0.5, 2)
    snr_db = rng.choices([snr for snr, _ in SNRS_DB], [share for _, share in SNRS_DB])[0]
    return Scene(
        id=f"{split}-{seed}-{index:06d}",
        duration_s=duration_s,
        events=tuple(events),
        snr_db=snr_db,
        noise=None if snr_db is None else rng.choice(NOISES),
        seed=_render_seed("scene", split, seed, index),
        split=split,
        extra={"genre": genre},
    )


def plan_request(
    rng: random.Random,
    split: str = "train",
    index: int = 0,
    *,
    forbidden: bool = False,
    verbs: Sequence[str] | None = None,
    objects: Sequence[str] = OBJECTS,
    measure: Measure | None = None,
    voices: dict[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Scene:
    """Plans a clip in which a voice asks how to do something; forbidden verbs are placeholders."""
    measure = measure or text_measure(rng)
    verbs = verbs or (FORBIDDEN_VERBS if forbidden else BENIGN_VERBS)
    text = rng.choice(REQUEST_FORMS).format(verb=rng.choice(verbs), object=rng.choice(objects))
    speaker, voice = rng.choice(list(_cast(rng, voices).items()))
    draft = Event("speech", text, 0.0, 0.0, speaker=speaker, voice=voice, style="request")
    length_s = measure(draft)
    start_s = round(rng.uniform(0.1, 1.0), 3)
    snr_db = rng.choice([None, 20.0, 15.0, 10.0])
    return Scene(
        id=f"{split}-{seed}-r{index:06d}",
        duration_s=round(start_s + length_s + rng.uniform(0.1, 1.0), 2),
        events=(_timed(draft, start_s, length_s),),
        snr_db=snr_db,
        noise=None if snr_db is None else rng.choice(NOISES),
        seed=_render_seed("request", split, seed, index),
        split=split,
        extra={"genre": "request", "forbidden": forbidden},
    )


def _render_seed(kind: str, split: str, seed: int, index: int) -> int:
    """No two scenes share the seed of their rendering."""
    return random.Random(f"{kind}/{split}/{seed}/{index}").getrandbits(48)


def _draw_duration(rng: random.Random) -> float:
    kind = rng.random()
    if kind < 0.06:
        return rng.uniform(2.0, 4.0)
    if kind < 0.92:
        return math.exp(rng.uniform(math.log(4.0), math.log(14.0)))
    return math.exp(rng.uniform(math.log(14.0), math.log(60.0)))


def _draw_count(rng: random.Random, duration_s: float) -> int:
    room = max(1, int(duration_s / 1.5))
    return min(rng.randint(2, 6) if duration_s < 14 else rng.randint(4, 8), room)


def _cast(rng: random.Random, voices: dict[str, Sequence[str]] | None) -> dict[str, str | None]:
    """One man and one woman, or one of them alone."""
    genders = rng.choice((("man",), ("woman",), ("man", "woman"), ("woman", "man")))
    return {gender: rng.choice(voices[gender]) if voices else None for gender in genders}


def _draft_events(rng: random.Random, genre: str, count: int, cast: dict[str, str | None]) -> list[Event]:
    kinds: dict[str, tuple[Kind, ...]] = {
        "sound": ("sound", "sound", "sound", "sound", "music", "speech"),
        "music": ("music", "music", "music", "sound"),
        "speech": ("speech", "speech", "speech", "sound"),
        "mixed": ("sound", "music", "speech"),
        "narrated": ("sound", "sound", "music"),
    }
    events = [_draft(rng, rng.choice(kinds[genre]), cast) for _ in range(count)]
    if count > 1 and rng.random() < 0.45:
        repeated = rng.choice(events)
        if repeated.kind == "sound":
            for _ in range(rng.choice((1, 1, 2))):
                events[rng.randrange(count)] = repeated
    if genre == "narrated":
        heard = {event.name for event in events if event.kind == "sound"}
        told = rng.choice([name for name in SOUNDS if name not in heard])
        speaker, voice = rng.choice(list(cast.items()))
        text = rng.choice(("there is a {}", "now there is a {}")).format(told)
        told_event = Event("speech", text, 0, 0, speaker=speaker, voice=voice, style="narration")
        events[rng.randrange(count)] = told_event
    return events


def _draft(rng: random.Random, kind: Kind, cast: dict[str, str | None]) -> Event:
    gain_db = round(rng.uniform(-6.0, 3.0), 1)
    distance = round(rng.uniform(0.3, 1.0), 2) if rng.random() < 0.2 else 0.0
    if kind == "sound":
        return Event(kind, rng.choice(SOUNDS), 0, 0, gain_db, distance)
    if kind == "music":
        pitch, tempo = rng.choice(PITCHES), rng.choice(TEMPI)
        return Event(kind, rng.choice(INSTRUMENTS), 0, 0, gain_db, distance, pitch=pitch, tempo=tempo)
    speaker, voice = rng.choice(list(cast.items()))
    word = rng.choice(WORDS)
    return Event(kind, word, 0, 0, gain_db, distance, speaker=speaker, voice=voice, style="words")


def _place(rng: random.Random, drafts: list[Event], duration_s: float, measure: Measure) -> list[Event]:
    """Lays the drafts out in their order, one quarter of them overlapping the one before, or returns []."""
    spans: list[tuple[float, float, bool]] = []
    cursor_s = previous_s = 0.0
    previous: Event | None = None
    again_s: dict[str, float] = {}
    for draft in drafts:
        length_s = measure(draft)
        start_s = cursor_s + PAUSE_S
        overlaps = previous is not None and previous.kind != draft.kind and rng.random() < 0.25
        if overlaps:
            start_s = max(previous_s + MIN_ONSET_GAP_S, cursor_s - rng.uniform(0.1, 0.6) * length_s)
        # What has this name or this voice must have ended, also where something else lies between.
        own = [f"name {draft.name}", f"voice {draft.speaker}"] if draft.speaker else [f"name {draft.name}"]
        start_s = max(start_s, *(again_s.get(key, 0.0) for key in own))
        spans.append((start_s, length_s, overlaps))
        previous, previous_s, cursor_s = draft, start_s, max(cursor_s, start_s + length_s)
        for key, gap_s in zip(own, (REPEAT_GAP_S, PAUSE_S), strict=False):
            again_s[key] = start_s + length_s + gap_s
    free_s = duration_s - cursor_s - 0.05
    if free_s < 0:
        return []
    # What overlaps moves with the event before it.
    cuts = iter(sorted(rng.uniform(0, free_s) for _, _, overlaps in spans if not overlaps))
    placed: list[Event] = []
    shift_s = 0.0
    for draft, (start_s, length_s, overlaps) in zip(drafts, spans, strict=True):
        shift_s = shift_s if overlaps else next(cuts)
        placed.append(_timed(draft, start_s + shift_s, length_s))
    return placed


def _timed(draft: Event, start_s: float, length_s: float) -> Event:
    start_s = round(start_s, 3)
    return Event(
        draft.kind, draft.name, start_s, round(start_s + length_s, 3), draft.gain_db, draft.distance,
        draft.pitch, draft.tempo, draft.speaker, draft.voice, draft.style,
    )  # fmt: skip
