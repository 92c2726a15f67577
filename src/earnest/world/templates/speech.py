"""Questions about speech."""

from __future__ import annotations

import random
from collections.abc import Sequence

from earnest.world.templates.drafts import (
    Cite,
    Draft,
    counted,
    names,
    neighbours,
    only_words,
    plain_words,
    template,
    then,
    unique,
    wrong,
)
from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import NUMBERS, SOUNDS, SPEAKERS, WORDS


@template(
    "word_presence", "speech", 1,
    ("is the word {x} spoken?", "does anyone say {x}?", "is the word {x} said?"),
    ("does anyone say the word {x}?",),
)  # fmt: skip
def _word_presence(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not words or not only_words(scene):
        return None
    if rng.random() < 0.5:
        first = rng.choice(first_of_each(words))
        return Draft("yes", (Cite(first),), fixed=("yes", "no"), slots={"x": first.name})
    sounding = [s for s in names(scene.of_kind("sound")) if s in WORDS and s not in names(words)]
    absent = sounding if sounding and rng.random() < 0.5 else [w for w in WORDS if w not in names(words)]
    name = rng.choice(absent)
    return Draft("no", (f"no word {name}",), fixed=("yes", "no"), slots={"x": name})


def first_of_each(events: Sequence[Event]) -> list[Event]:
    """The first event of each name."""
    return list({event.name: event for event in reversed(events)}.values())


@template(
    "word_first", "speech", 1,
    ("what is the first word?", "which word is spoken first?", "what word is said first?"),
    ("which word is said first?", "which is the first word?"),
)  # fmt: skip
def _word_first(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not words or not only_words(scene):
        return None
    return Draft(words[0].name, (Cite(words[0]),), wrong(words, WORDS, words[0].name, rng))


@template(
    "word_last", "speech", 1,
    ("what is the last word?", "which word is spoken last?", "what word is said last?"),
    ("which word is said last?", "which is the last word?"),
)  # fmt: skip
def _word_last(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if len(set(names(words))) < 2 or not only_words(scene):
        return None
    return Draft(words[-1].name, (Cite(words[-1]),), wrong(words, WORDS, words[-1].name, rng))


@template(
    "word_after", "speech", 2,
    ("what word comes after the word {x}?", "which word follows the word {x}?", "what word follows the word {x}?"),
    ("which word comes after the word {x}?",),
)  # fmt: skip
def _word_after(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not only_words(scene):
        return None
    found = neighbours(scene, unique(words), words, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, then(*found), wrong(words, WORDS, answer, rng), {"x": found[0].name})


@template(
    "word_after_sound", "speech", 2,
    ("what word is spoken after the {x}?", "which word is said after the {x}?", "what word is said after the {x}?"),
    ("which word is spoken after the {x}?",),
)  # fmt: skip
def _word_after_sound(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not only_words(scene):
        return None
    found = neighbours(scene, unique(scene.of_kind("sound")), words, rng, 1)
    if not found:
        return None
    answer = found[1].name
    return Draft(answer, then(*found), wrong(words, WORDS, answer, rng), {"x": found[0].name})


@template(
    "word_total", "speech", 1,
    ("how many words are spoken?", "how many words are said?", "how many words are there?"),
    ("how many words can be heard?",),
)  # fmt: skip
def _word_total(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    return counted(words, "speech", "no word", rng) if only_words(scene) else None


@template(
    "who_says", "speech", 1,
    ("who says {x}?", "who speaks the word {x}?", "is {x} said by a man or a woman?"),
    ("who says the word {x}?",),
)  # fmt: skip
def _who_says(scene: Scene, rng: random.Random) -> Draft | None:
    words = unique(plain_words(scene))
    if not words or not only_words(scene):
        return None
    event = rng.choice(words)
    reason = (Cite(event, with_speaker=True),)
    return Draft(event.speaker or "", reason, fixed=SPEAKERS, slots={"x": event.name})


@template(
    "last_speaker", "speech", 1,
    ("who speaks last?", "is the last word said by a man or a woman?", "is the last word spoken by a man or a woman?"),
    ("who says the last word?",),
)  # fmt: skip
def _last_speaker(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not words or not only_words(scene):
        return None
    return Draft(words[-1].speaker or "", (Cite(words[-1], with_speaker=True),), fixed=SPEAKERS)


@template(
    "speaker_count", "speech", 2,
    ("how many speakers are there?", "how many people speak?", "how many speakers speak?"),
    ("how many people are there?",),
)  # fmt: skip
def _speaker_count(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if len(words) < 2 or not only_words(scene):
        return None
    firsts = list({event.speaker: event for event in reversed(words)}.values())
    firsts.sort(key=lambda event: event.start_s)
    if len(firsts) == 1 and rng.random() < 0.5:
        return None
    parts: list[str | Cite] = []
    for event in firsts:
        parts += [", ", Cite(event, with_speaker=True)] if parts else [Cite(event, with_speaker=True)]
    return Draft(str(len(firsts)), tuple(parts), fixed=("1", "2"))


@template(
    "number_spoken", "speech", 1,
    ("which number is spoken?", "what number is said?", "what number is spoken?"),
    ("which number is said?",),
)  # fmt: skip
def _number_spoken(scene: Scene, rng: random.Random) -> Draft | None:
    numbers = [event for event in plain_words(scene) if event.name in NUMBERS]
    if len(numbers) != 1 or not only_words(scene):
        return None
    return Draft(numbers[0].name, (Cite(numbers[0]),), wrong(numbers, NUMBERS, numbers[0].name, rng))


@template(
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
    return Draft(answer, (Cite(told[0]),), wrong(scene.of_kind("sound"), SOUNDS, answer, rng))
