"""What a template is, and what templates share."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import SOUNDS, WORDS

Modality = Literal["sound", "music", "speech"]
UNKNOWN = "i don't know"
"""The answer to a question that the scene does not settle."""


@dataclass(frozen=True)
class Cite:
    """An event as a reason: written with its time, or with its segment when re-listening is asked for.

    Attributes:
        event: what is cited.
        with_speaker: whether it is said who speaks.
        number: its number among those that are counted.
    """

    event: Event
    with_speaker: bool = False
    number: int | None = None


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


TEMPLATES: dict[str, Template] = {}


def template(
    name: str, modality: Modality, hops: int, wordings: Iterable[str], held_out: Iterable[str]
) -> Callable[[Callable[[Scene, random.Random], Draft | None]], Callable[[Scene, random.Random], Draft | None]]:
    """Registers a template; see `Template`."""

    def register(draw: Callable[[Scene, random.Random], Draft | None]) -> Callable[..., Draft | None]:
        TEMPLATES[name] = Template(name, modality, hops, tuple(wordings), tuple(held_out), draw)
        return draw

    return register


def names(events: Iterable[Event]) -> list[str]:
    """Their names, in order."""
    return [event.name for event in events]


def plain_words(scene: Scene) -> list[Event]:
    """The events that are one plainly spoken word."""
    return [event for event in scene.of_kind("speech") if event.style == "words"]


def only_words(scene: Scene) -> bool:
    """Whether every voice says plain words only."""
    return all(event.style == "words" for event in scene.of_kind("speech"))


def untold(scene: Scene) -> bool:
    """Whether no voice tells of a sound: what is heard and what is there are then the same."""
    return all(event.style != "narration" for event in scene.of_kind("speech"))


def unique(events: Sequence[Event]) -> list[Event]:
    """Those whose name occurs once."""
    heard = names(events)
    return [event for event in events if heard.count(event.name) == 1]


def cites(events: Iterable[Event]) -> Reason:
    """Their citations, separated by commas."""
    every = tuple(events)
    return told_off(every, [False] * len(every))


def told_off(events: Iterable[Event], counts: Iterable[bool], *, with_speaker: bool = False) -> Reason:
    """Citations of all events, those that count with their number: `owl [00:01], dog 1 [00:03], dog 2 [00:06]`."""
    parts: list[str | Cite] = []
    number = 0
    for event, counted in zip(events, counts, strict=True):
        number += counted
        parts += [", "] * bool(parts)
        parts.append(Cite(event, with_speaker, number if counted else None))
    return tuple(parts)


def then(first: Event, second: Event) -> Reason:
    """Two citations, one after the other."""
    return (Cite(first), ", then ", Cite(second))


def wrong(
    events: Sequence[Event], pool: Sequence[str], answer: str, rng: random.Random, *, named: str | None = None
) -> list[str]:
    """Wrong answers: up to two that are heard as well, the rest from the pool; never what the question names."""
    heard = [name for name in dict.fromkeys(names(events)) if name not in (answer, named) and name in pool]
    rng.shuffle(heard)
    rest = [name for name in rng.sample(list(pool), 6) if name not in (answer, named, *heard[:2])]
    return [*heard[:2], *rest][:3]


def yes_or_no(
    present: Mapping[str, Reason], spoken: Container[str], pool: Sequence[str], noun: str, rng: random.Random
) -> Draft | None:
    """Whether a thing is there: yes and no by a coin, for names that sounds and words share and for the others.

    Args:
        present: what is there, with the reason.
        spoken: names that are there as the other kind (a word for a sound, a sound for a word): asked about
            in half of the questions that are answered by no, where they can be.
        pool: all names.
        noun: what stands before the name in the reason for no ("word " or nothing).
        rng: source of every choice.
    """
    shared = rng.random() < len(_SHARED) / len(pool)
    # Both answers need such a name in the scene: no kind of name is then asked about in one of them more often.
    there = [name for name in present if (name in _SHARED) == shared]
    if not there:
        return None
    if rng.random() < 0.5:
        name = rng.choice(there)
        return Draft("yes", present[name], fixed=("yes", "no"), slots={"x": name})
    absent = [name for name in pool if (name in _SHARED) == shared and name not in present]
    near = [name for name in absent if name in spoken]
    name = rng.choice(near if near and rng.random() < 0.5 else absent)
    return Draft("no", (f"no {noun}{name}",), fixed=("yes", "no"), slots={"x": name})


_SHARED = frozenset(SOUNDS) & frozenset(WORDS)


COUNT_SHARES: dict[str, tuple[float, ...]] = {
    "sound": (0.17, 0.276, 0.273, 0.165, 0.073),
    "music": (0.189, 0.284, 0.244, 0.093, 0.028),
    "speech": (0.175, 0.278, 0.266, 0.155, 0.075),
}
"""How often a scene that suits the modality holds 0, 1, 2, 3 or 4 events of it (measured on 6,000 plans)."""


def counted(events: Sequence[Event], kind: Modality, none: str, rng: random.Random) -> Draft | None:
    """How many: four consecutive numbers to choose from, 0 to 3 or 1 to 4, each of them right equally often.

    Scenes hold small numbers more often than large ones; common counts are turned down at that rate, so that
    the numbers offered tell nothing about the right one.
    """
    low = rng.randrange(2)
    shares = COUNT_SHARES[kind][low : low + 4]
    place = len(events) - low
    if not 0 <= place < 4 or rng.random() > min(shares) / shares[place]:
        return None
    choices = tuple(str(number) for number in range(low, low + 4))
    return Draft(str(len(events)), cites(events) or (none,), fixed=choices)


def neighbours(
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
