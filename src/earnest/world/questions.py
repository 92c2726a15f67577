"""Questions about a scene: templates, wordings, choices, answers, evidence and the reasons for them.

A template draws its slots from a timeline and answers from the timeline alone. Answers and choices are
balanced so that the question's text tells nothing: yes and no alternate by a coin, counts are offered in
a window around the truth whose place is random, and the order of choices is shuffled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from earnest.world.surrogates import bounds, clock
from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import INSTRUMENTS, NUMBERS, PITCHES, SOUNDS, SPEAKERS, TEMPI, WORDS

Modality = Literal["sound", "music", "speech"]
UNKNOWN = "i don't know"
"""The answer to a question that the scene does not settle."""


@dataclass(frozen=True)
class Cite:
    """An event as a reason: written with its time, or with its segment when re-listening is asked for."""

    event: Event
    with_speaker: bool = False


Reason = tuple[str | Cite, ...]


@dataclass(frozen=True)
class Draft:
    """What a template draws from a scene.

    Attributes:
        answer: the right answer.
        reason: why, in the order in which it is said.
        others: wrong answers to choose from; empty if the choices are fixed by `fixed`.
        slots: what fills the wording.
        fixed: closed set of choices (yes / no, the three pitches, ...).
    """

    answer: str
    reason: Reason
    others: Sequence[str] = ()
    slots: dict[str, str] = field(default_factory=dict[str, str])
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """One kind of question.

    Attributes:
        name: identifier, also the group in reports.
        modality: what one must listen to.
        hops: number of look-ups needed.
        wordings: texts used in training; the last one is kept for validation.
        held_out: texts used in the test split only.
        draw: Draft from a scene, None if the scene cannot be asked this.
    """

    name: str
    modality: Modality
    hops: int
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    draw: Callable[[Scene, random.Random], Draft | None]

    def wordings_of(self, split: str) -> tuple[str, ...]:
        """The texts of one split: no wording is used in two of them."""
        if split == "test":
            return self.held_out
        return self.wordings[-1:] if split == "validation" else self.wordings[:-1]


@dataclass(frozen=True)
class Question:
    """A question about a scene with everything that is known about it."""

    template: str
    modality: Modality
    hops: int
    text: str
    choices: tuple[str, ...]
    answer: str
    reason: Reason
    difficulty: str

    @property
    def evidence(self) -> tuple[tuple[float, float], ...]:
        """The segments in seconds that hold the answer."""
        return tuple((part.event.start_s, part.event.end_s) for part in self.reason if isinstance(part, Cite))


TEMPLATES: dict[str, Template] = {}


def _template(
    name: str, modality: Modality, hops: int, wordings: Iterable[str], held_out: Iterable[str]
) -> Callable[[Callable[[Scene, random.Random], Draft | None]], Callable[[Scene, random.Random], Draft | None]]:
    def register(draw: Callable[[Scene, random.Random], Draft | None]) -> Callable[..., Draft | None]:
        TEMPLATES[name] = Template(name, modality, hops, tuple(wordings), tuple(held_out), draw)
        return draw

    return register


def ask(scene: Scene, rng: random.Random, template: str | None = None, *, n_choices: int = 4) -> Question | None:
    """Asks one question about a scene.

    Args:
        scene: whose timeline holds the answer; its split decides the wordings.
        rng: source of every choice.
        template: name of the template; drawn if None (None comes back only if it is given).
        n_choices: number of choices where the set is open.

    Returns:
        A question, or None if the scene cannot be asked the given template.
    """
    for _ in range(200):
        chosen = TEMPLATES[template or rng.choice(list(TEMPLATES))]
        draft = chosen.draw(scene, rng)
        if draft is None:
            if template:
                return None
            continue
        wordings = chosen.wordings_of(scene.split)
        return Question(
            template=chosen.name,
            modality=chosen.modality,
            hops=chosen.hops,
            text=_worded(rng.choice(wordings), draft.slots),
            choices=_choices(draft, rng, n_choices),
            answer=draft.answer,
            reason=draft.reason,
            difficulty=difficulty(scene, chosen.hops),
        )
    return None


def ask_unanswerable(scene: Scene, rng: random.Random) -> Question | None:
    """Asks about something that the scene does not hold; the answer is `UNKNOWN`."""
    name = rng.choice(list(_ABSENT))
    template = TEMPLATES[name]
    pool, noun = _ABSENT[name]
    heard = {event.name for event in scene.events} | {
        word for event in scene.of_kind("speech") for word in event.name.split()
    }
    thing = rng.choice([item for item in pool if item not in heard])
    draft = Draft(UNKNOWN, (f"no {noun}{thing}",), _DISTRACTORS[name], {"x": thing})
    wordings = template.wordings_of(scene.split)
    choices = tuple(rng.sample([c for c in draft.others if c != thing], min(4, len(draft.others) - 1)))
    return Question(
        name, template.modality, template.hops, _worded(rng.choice(wordings), draft.slots), choices,
        UNKNOWN, draft.reason, difficulty(scene, template.hops),
    )  # fmt: skip


def difficulty(scene: Scene, hops: int) -> str:
    """easy, medium or hard: by events, hops, overlap and noise."""
    overlaps = any(b.start_s < a.end_s for a, b in zip(scene.events, scene.events[1:], strict=False))
    noisy = scene.snr_db is not None and scene.snr_db < 5
    points = (len(scene.events) > 4) + (hops > 1) + overlaps + 2 * noisy
    return ("easy", "medium", "hard")[min(points, 2)]


def _worded(wording: str, slots: dict[str, str]) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", wording.format(**slots))


def _choices(draft: Draft, rng: random.Random, n_choices: int) -> tuple[str, ...]:
    if draft.fixed:
        choices = list(draft.fixed)
    else:
        others = [other for other in dict.fromkeys(draft.others) if other != draft.answer]
        near = others[: n_choices - 1] if len(others) <= n_choices - 1 else rng.sample(others, n_choices - 1)
        choices = [draft.answer, *near]
    rng.shuffle(choices)
    return tuple(choices)


# --- what templates share ---------------------------------------------------------------------------


def _names(events: Iterable[Event]) -> list[str]:
    return [event.name for event in events]


def _words(scene: Scene) -> list[Event]:
    """The events that are one plainly spoken word."""
    return [event for event in scene.of_kind("speech") if event.style == "words"]


def _only_words(scene: Scene) -> bool:
    return all(event.style == "words" for event in scene.of_kind("speech"))


def _unique(events: Sequence[Event]) -> list[Event]:
    names = _names(events)
    return [event for event in events if names.count(event.name) == 1]


def _cites(events: Iterable[Event]) -> Reason:
    parts: list[str | Cite] = []
    for event in events:
        if parts:
            parts.append(", ")
        parts.append(Cite(event))
    return tuple(parts)


def _then(first: Event, second: Event) -> Reason:
    return (Cite(first), ", then ", Cite(second))


def _wrong(events: Sequence[Event], pool: Sequence[str], answer: str, rng: random.Random) -> list[str]:
    """Wrong answers: up to two that are heard as well, the rest from the pool."""
    heard = [name for name in dict.fromkeys(_names(events)) if name != answer and name in pool]
    rng.shuffle(heard)
    rest = [name for name in rng.sample(list(pool), 6) if name != answer and name not in heard[:2]]
    return [*heard[:2], *rest][:3]


def _window(count: int, rng: random.Random) -> Draft:
    """Four consecutive numbers around a count; where the count stands among them is random."""
    low = max(0, count - rng.randrange(4))
    return Draft(str(count), (), fixed=tuple(str(number) for number in range(low, low + 4)))


def _count(events: Sequence[Event], none: str, rng: random.Random, slots: dict[str, str] | None = None) -> Draft:
    window = _window(len(events), rng)
    return Draft(window.answer, _cites(events) or (none,), fixed=window.fixed, slots=slots or {})


def _neighbours(
    scene: Scene, pivots: Sequence[Event], answers: Sequence[Event], rng: random.Random, step: int
) -> tuple[Event, Event] | None:
    """A pivot heard once and the next (step 1) or previous (step -1) event among the answers."""
    ordered = list(scene.events)
    options: list[tuple[Event, Event]] = []
    for pivot in pivots:
        place = ordered.index(pivot)
        rest = ordered[place + 1 :] if step > 0 else ordered[:place][::-1]
        following = [event for event in rest if any(event is answer for answer in answers)]
        if following and following[0].name != pivot.name:
            options.append((pivot, following[0]))
    return rng.choice(options) if options else None


# --- sound ------------------------------------------------------------------------------------------


@_template(
    "sound_presence", "sound", 1,
    ("is there a {x}?", "can you hear a {x}?", "is a {x} heard?", "does a {x} sound?"),
    ("is a {x} there?", "can a {x} be heard?"),
)  # fmt: skip
def _sound_presence(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    told = [e for e in scene.of_kind("speech") if e.style == "narration"]
    present = {e.name: (Cite(e),) for e in sounds} | {e.name.split()[-1]: ("told ", Cite(e)) for e in told}
    if not present:
        return None
    if rng.random() < 0.5:
        name = rng.choice(list(present))
        if told and rng.random() < 0.6:
            name = told[0].name.split()[-1]
        return Draft("yes", present[name], fixed=("yes", "no"), slots={"x": name})
    spoken = [word for word in _names(_words(scene)) if word in SOUNDS and word not in present]
    name = rng.choice(spoken if spoken and rng.random() < 0.5 else [s for s in SOUNDS if s not in present])
    return Draft("no", (f"no {name}",), fixed=("yes", "no"), slots={"x": name})


@_template(
    "sound_count", "sound", 1,
    ("how many times is the {x} heard?", "how often is the {x} heard?", "how many times does the {x} sound?"),
    ("how often does the {x} sound?",),
)  # fmt: skip
def _sound_count(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if any(e.style == "narration" for e in scene.of_kind("speech")):
        return None
    wanted = rng.choice((0, 1, 2, 2, 3, 3))
    names = _names(sounds)
    fitting = [n for n in SOUNDS if n not in names] if wanted == 0 else [n for n in names if names.count(n) == wanted]
    if not fitting or (wanted == 1 and rng.random() < 0.4):
        return None
    name = rng.choice(fitting)
    return _count([e for e in sounds if e.name == name], f"no {name}", rng, {"x": name})


@_template(
    "sound_total", "sound", 1,
    ("how many sounds are there?", "how many sounds can you hear?", "how many sounds are heard?"),
    ("how many sounds can be heard?",),
)  # fmt: skip
def _sound_total(scene: Scene, rng: random.Random) -> Draft | None:
    return _count(scene.of_kind("sound"), "no sound", rng) if scene.of_kind("sound") or rng.random() < 0.3 else None


@_template(
    "sound_first", "sound", 1,
    ("what sound comes first?", "which sound comes first?", "what is the first sound?"),
    ("which is the first sound?",),
)  # fmt: skip
def _sound_first(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if len(set(_names(sounds))) < 2:
        return None
    return Draft(sounds[0].name, (Cite(sounds[0]),), _wrong(sounds, SOUNDS, sounds[0].name, rng))


@_template(
    "sound_last", "sound", 1,
    ("what sound comes last?", "which sound comes last?", "what is the last sound?"),
    ("which is the last sound?",),
)  # fmt: skip
def _sound_last(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if len(set(_names(sounds))) < 2:
        return None
    return Draft(sounds[-1].name, (Cite(sounds[-1]),), _wrong(sounds, SOUNDS, sounds[-1].name, rng))


@_template(
    "sound_after", "sound", 2,
    ("what sound comes after the {x}?", "which sound follows the {x}?", "what sound is heard after the {x}?"),
    ("which sound comes after the {x}?", "what sound follows the {x}?"),
)  # fmt: skip
def _sound_after(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    found = _neighbours(scene, _unique(sounds), sounds, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, _then(*found), _wrong(sounds, SOUNDS, answer, rng), {"x": found[0].name})


@_template(
    "sound_before", "sound", 2,
    ("what sound comes before the {x}?", "which sound is heard before the {x}?", "what sound is heard before the {x}?"),
    ("which sound comes before the {x}?",),
)  # fmt: skip
def _sound_before(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    found = _neighbours(scene, _unique(sounds), sounds, rng, -1)
    if not found:
        return None
    upto = sounds[: sounds.index(found[0])]
    answer = found[1].name
    reason = (*_cites(upto), ", then ", Cite(found[0]))
    return Draft(answer, reason, _wrong(sounds, SOUNDS, answer, rng), {"x": found[0].name})


@_template(
    "sound_order", "sound", 2,
    (
        "which comes first, the {x} or the {y}?",
        "what is heard first, the {x} or the {y}?",
        "what comes first, the {x} or the {y}?",
    ),
    ("which is heard first, the {x} or the {y}?",),
)  # fmt: skip
def _sound_order(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = _unique(scene.of_kind("sound"))
    pairs = [(a, b) for a in sounds for b in sounds if bounds(a)[0] < bounds(b)[0]]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    x, y = rng.sample([first, second], 2)
    reason = (Cite(x), ", ", Cite(y))
    return Draft(first.name, reason, fixed=(first.name, second.name), slots={"x": x.name, "y": y.name})


@_template(
    "sound_when", "sound", 1,
    ("when is the {x} heard?", "when does the {x} sound?", "at what time is the {x} heard?"),
    ("at what time does the {x} sound?",),
)  # fmt: skip
def _sound_when(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = _unique(scene.of_kind("sound"))
    last = int(scene.duration_s)
    if not sounds or last < 7:
        return None
    event = rng.choice(sounds)
    start = bounds(event)[0]
    far = [second for second in range(last) if abs(second - start) >= 2]
    picks: list[int] = []
    for second in rng.sample(far, len(far)):
        if all(abs(second - pick) >= 2 for pick in picks):
            picks.append(second)
    if len(picks) < 2:
        return None
    return Draft(clock(start), (Cite(event),), [clock(pick) for pick in picks[:3]], {"x": event.name})


@_template(
    "sound_after_word", "sound", 2,
    (
        "what sound comes after the word {x}?",
        "which sound is heard after the word {x}?",
        "what sound is heard after the word {x}?",
    ),
    ("which sound comes after the word {x}?",),
)  # fmt: skip
def _sound_after_word(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if not _only_words(scene):
        return None
    found = _neighbours(scene, _unique(_words(scene)), sounds, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, _then(*found), _wrong(sounds, SOUNDS, answer, rng), {"x": found[0].name})


# --- music ------------------------------------------------------------------------------------------


@_template(
    "instrument_presence", "music", 1,
    ("does a {x} play?", "is a {x} played?", "is there a {x} in the music?"),
    ("is there a {x} played?",),
)  # fmt: skip
def _instrument_presence(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if not music:
        return None
    if rng.random() < 0.5:
        event = rng.choice(music)
        first = next(e for e in music if e.name == event.name)
        return Draft("yes", (Cite(first),), fixed=("yes", "no"), slots={"x": event.name})
    name = rng.choice([i for i in INSTRUMENTS if i not in _names(music)])
    return Draft("no", (f"no {name}",), fixed=("yes", "no"), slots={"x": name})


@_template(
    "instrument_first", "music", 1,
    ("which instrument plays first?", "what instrument plays first?", "what is the first instrument?"),
    ("which is the first instrument?",),
)  # fmt: skip
def _instrument_first(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if not music:
        return None
    return Draft(music[0].name, (Cite(music[0]),), _wrong(music, INSTRUMENTS, music[0].name, rng))


@_template(
    "instrument_last", "music", 1,
    ("which instrument plays last?", "what instrument plays last?", "what is the last instrument?"),
    ("which is the last instrument?",),
)  # fmt: skip
def _instrument_last(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if len(set(_names(music))) < 2:
        return None
    return Draft(music[-1].name, (Cite(music[-1]),), _wrong(music, INSTRUMENTS, music[-1].name, rng))


@_template(
    "instrument_after", "music", 2,
    (
        "which instrument plays after the {x}?",
        "what instrument follows the {x}?",
        "what instrument plays after the {x}?",
    ),
    ("which instrument follows the {x}?",),
)  # fmt: skip
def _instrument_after(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    pivots = [*_unique(scene.of_kind("sound")), *_unique(music)]
    found = _neighbours(scene, pivots, music, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, _then(*found), _wrong(music, INSTRUMENTS, answer, rng), {"x": found[0].name})


@_template(
    "pitch_of", "music", 1,
    ("what is the pitch of the {x}?", "how high is the {x}?", "what pitch does the {x} play?"),
    ("how high does the {x} play?",),
)  # fmt: skip
def _pitch_of(scene: Scene, rng: random.Random) -> Draft | None:
    music = _unique(scene.of_kind("music"))
    if not music:
        return None
    event = rng.choice(music)
    return Draft(event.pitch or "", (Cite(event),), fixed=PITCHES, slots={"x": event.name})


@_template(
    "tempo_of", "music", 1,
    ("what is the tempo of the {x}?", "how fast is the {x}?", "what tempo does the {x} play?"),
    ("how fast does the {x} play?",),
)  # fmt: skip
def _tempo_of(scene: Scene, rng: random.Random) -> Draft | None:
    music = _unique(scene.of_kind("music"))
    if not music:
        return None
    event = rng.choice(music)
    return Draft(event.tempo or "", (Cite(event),), fixed=TEMPI, slots={"x": event.name})


@_template(
    "pitch_compare", "music", 2,
    (
        "which plays higher, the {x} or the {y}?",
        "what is higher, the {x} or the {y}?",
        "which is higher, the {x} or the {y}?",
    ),
    ("what plays higher, the {x} or the {y}?",),
)  # fmt: skip
def _pitch_compare(scene: Scene, rng: random.Random) -> Draft | None:
    music = _unique(scene.of_kind("music"))
    rank = PITCHES.index
    pairs = [(a, b) for a in music for b in music if rank(a.pitch or "low") > rank(b.pitch or "low")]
    if not pairs:
        return None
    high, low = rng.choice(pairs)
    x, y = rng.sample([high, low], 2)
    reason = (Cite(x), ", ", Cite(y))
    return Draft(high.name, reason, fixed=(high.name, low.name), slots={"x": x.name, "y": y.name})


@_template(
    "music_total", "music", 1,
    ("how many times does an instrument play?", "how often does an instrument play?", "how many instruments play?"),
    ("how often is an instrument played?", "how many instruments are played?"),
)  # fmt: skip
def _music_total(scene: Scene, rng: random.Random) -> Draft | None:
    music = scene.of_kind("music")
    if not music or len(music) != len(set(_names(music))) or (len(music) == 1 and rng.random() < 0.55):
        return None
    return _count(music, "no instrument", rng)


# --- speech -----------------------------------------------------------------------------------------


@_template(
    "word_presence", "speech", 1,
    ("is the word {x} spoken?", "does anyone say {x}?", "is the word {x} said?"),
    ("does anyone say the word {x}?",),
)  # fmt: skip
def _word_presence(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if not words or not _only_words(scene):
        return None
    if rng.random() < 0.5:
        first = rng.choice(_first_of_each(words))
        return Draft("yes", (Cite(first),), fixed=("yes", "no"), slots={"x": first.name})
    sounding = [s for s in _names(scene.of_kind("sound")) if s in WORDS and s not in _names(words)]
    absent = sounding if sounding and rng.random() < 0.5 else [w for w in WORDS if w not in _names(words)]
    name = rng.choice(absent)
    return Draft("no", (f"no word {name}",), fixed=("yes", "no"), slots={"x": name})


def _first_of_each(events: Sequence[Event]) -> list[Event]:
    return list({event.name: event for event in reversed(events)}.values())


@_template(
    "word_first", "speech", 1,
    ("what is the first word?", "which word is spoken first?", "what word is said first?"),
    ("which word is said first?", "which is the first word?"),
)  # fmt: skip
def _word_first(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if not words or not _only_words(scene):
        return None
    return Draft(words[0].name, (Cite(words[0]),), _wrong(words, WORDS, words[0].name, rng))


@_template(
    "word_last", "speech", 1,
    ("what is the last word?", "which word is spoken last?", "what word is said last?"),
    ("which word is said last?", "which is the last word?"),
)  # fmt: skip
def _word_last(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if len(set(_names(words))) < 2 or not _only_words(scene):
        return None
    return Draft(words[-1].name, (Cite(words[-1]),), _wrong(words, WORDS, words[-1].name, rng))


@_template(
    "word_after", "speech", 2,
    ("what word comes after the word {x}?", "which word follows the word {x}?", "what word follows the word {x}?"),
    ("which word comes after the word {x}?",),
)  # fmt: skip
def _word_after(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if not _only_words(scene):
        return None
    found = _neighbours(scene, _unique(words), words, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, _then(*found), _wrong(words, WORDS, answer, rng), {"x": found[0].name})


@_template(
    "word_after_sound", "speech", 2,
    ("what word is spoken after the {x}?", "which word is said after the {x}?", "what word is said after the {x}?"),
    ("which word is spoken after the {x}?",),
)  # fmt: skip
def _word_after_sound(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if not _only_words(scene):
        return None
    found = _neighbours(scene, _unique(scene.of_kind("sound")), words, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, _then(*found), _wrong(words, WORDS, answer, rng), {"x": found[0].name})


@_template(
    "word_total", "speech", 1,
    ("how many words are spoken?", "how many words are said?", "how many words are there?"),
    ("how many words can be heard?",),
)  # fmt: skip
def _word_total(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if not _only_words(scene) or (not words and rng.random() < 0.7):
        return None
    return _count(words, "no word", rng)


@_template(
    "who_says", "speech", 1,
    ("who says {x}?", "who speaks the word {x}?", "is {x} said by a man or a woman?"),
    ("who says the word {x}?",),
)  # fmt: skip
def _who_says(scene: Scene, rng: random.Random) -> Draft | None:
    words = _unique(_words(scene))
    if not words or not _only_words(scene):
        return None
    event = rng.choice(words)
    reason = (Cite(event, with_speaker=True),)
    return Draft(event.speaker or "", reason, fixed=SPEAKERS, slots={"x": event.name})


@_template(
    "last_speaker", "speech", 1,
    ("who speaks last?", "is the last word said by a man or a woman?", "is the last word spoken by a man or a woman?"),
    ("who says the last word?",),
)  # fmt: skip
def _last_speaker(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if not words or not _only_words(scene):
        return None
    return Draft(words[-1].speaker or "", (Cite(words[-1], with_speaker=True),), fixed=SPEAKERS)


@_template(
    "speaker_count", "speech", 2,
    ("how many speakers are there?", "how many people speak?", "how many speakers speak?"),
    ("how many people are there?",),
)  # fmt: skip
def _speaker_count(scene: Scene, rng: random.Random) -> Draft | None:
    words = _words(scene)
    if len(words) < 2 or not _only_words(scene):
        return None
    firsts = list({event.speaker: event for event in reversed(words)}.values())
    firsts.sort(key=lambda event: event.start_s)
    if len(firsts) == 1 and rng.random() < 0.5:
        return None
    parts: list[str | Cite] = []
    for event in firsts:
        parts += [", ", Cite(event, with_speaker=True)] if parts else [Cite(event, with_speaker=True)]
    return Draft(str(len(firsts)), tuple(parts), fixed=("1", "2"))


@_template(
    "number_spoken", "speech", 1,
    ("which number is spoken?", "what number is said?", "what number is spoken?"),
    ("which number is said?",),
)  # fmt: skip
def _number_spoken(scene: Scene, rng: random.Random) -> Draft | None:
    numbers = [event for event in _words(scene) if event.name in NUMBERS]
    if len(numbers) != 1 or not _only_words(scene):
        return None
    return Draft(numbers[0].name, (Cite(numbers[0]),), _wrong(numbers, NUMBERS, numbers[0].name, rng))


@_template(
    "narrated", "speech", 1,
    (
        "what does the speaker say there is?",
        "what does the voice say there is?",
        "which sound does the speaker say there is?",
    ),
    ("which sound does the voice say there is?",),
)  # fmt: skip
def _narrated(scene: Scene, rng: random.Random) -> Draft | None:
    told = [event for event in scene.of_kind("speech") if event.style == "narration"]
    if not told:
        return None
    answer = told[0].name.split()[-1]
    return Draft(answer, (Cite(told[0]),), _wrong(scene.of_kind("sound"), SOUNDS, answer, rng))


_ABSENT: dict[str, tuple[Sequence[str], str]] = {
    "sound_after": (SOUNDS, ""),
    "sound_before": (SOUNDS, ""),
    "sound_when": (SOUNDS, ""),
    "word_after": (WORDS, "word "),
    "who_says": (WORDS, "word "),
    "pitch_of": (INSTRUMENTS, ""),
    "tempo_of": (INSTRUMENTS, ""),
    "instrument_after": (INSTRUMENTS, ""),
}
_DISTRACTORS: dict[str, Sequence[str]] = {
    "sound_after": SOUNDS, "sound_before": SOUNDS, "sound_when": [clock(s) for s in range(0, 12, 2)],
    "word_after": WORDS, "who_says": SPEAKERS, "pitch_of": PITCHES, "tempo_of": TEMPI,
    "instrument_after": INSTRUMENTS,
}  # fmt: skip
