"""Questions about speech."""

from __future__ import annotations

import random

from earnest.world.templates.drafts import (
    Cite,
    Draft,
    Reason,
    counted,
    names,
    neighbours,
    only_words,
    plain_words,
    template,
    then,
    told_off,
    unique,
    wrong,
    yes_or_no,
)
from earnest.world.timeline import Scene
from earnest.world.vocabulary import NUMBERS, SOUNDS, SPEAKERS, WORDS


@template(
    "word_presence",
    "speech",
    1,
    (
        "is the word {x} spoken?",
        "does anyone say {x}?",
        "do you hear the word {x}?",
        "can you hear the word {x}?",
        "is {x} spoken?",
        "does a voice say {x}?",
        "does anyone speak the word {x}?",
        "is the word {x} said?",
    ),
    ("does anyone say the word {x}?",),
)
def _word_presence(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not words or not only_words(scene):
        return None
    firsts: dict[str, Reason] = {event.name: (Cite(event),) for event in reversed(words)}
    return yes_or_no(firsts, names(scene.of_kind("sound")), WORDS, "word ", rng)


@template(
    "word_first",
    "speech",
    1,
    (
        "what is the first word?",
        "which word is spoken first?",
        "what word is spoken first?",
        "which word comes first?",
        "what word do you hear first?",
        "which word is the first?",
        "what is the first of the words?",
        "what word is said first?",
    ),
    ("which word is said first?", "which is the first word?"),
)
def _word_first(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not words or not only_words(scene):
        return None
    return Draft(words[0].name, (Cite(words[0]),), wrong(words, WORDS, words[0].name, rng))


@template(
    "word_last",
    "speech",
    1,
    (
        "what is the last word?",
        "which word is spoken last?",
        "what word is spoken last?",
        "which word comes last?",
        "what word do you hear last?",
        "which word is the last?",
        "what is the last of the words?",
        "what word is said last?",
    ),
    ("which word is said last?", "which is the last word?"),
)
def _word_last(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if len(set(names(words))) < 2 or not only_words(scene):
        return None
    return Draft(words[-1].name, (Cite(words[-1]),), wrong(words, WORDS, words[-1].name, rng))


@template(
    "word_after",
    "speech",
    2,
    (
        "what word comes after the word {x}?",
        "which word follows the word {x}?",
        "what word is spoken after the word {x}?",
        "which word is said after the word {x}?",
        "after the word {x}, what word comes?",
        "what word do you hear after the word {x}?",
        "which word is next after the word {x}?",
        "what word follows the word {x}?",
    ),
    ("which word comes after the word {x}?",),
)
def _word_after(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not only_words(scene):
        return None
    found = neighbours(scene, unique(words), words, rng, 1)
    if not found:
        return None
    pivot, answer = (event.name for event in found)
    return Draft(answer, then(*found), wrong(words, WORDS, answer, rng, named=pivot), {"x": pivot})


@template(
    "word_after_sound",
    "speech",
    2,
    (
        "what word is spoken after the {x}?",
        "which word is said after the {x}?",
        "which word follows the {x}?",
        "after the {x}, what word is spoken?",
        "what word do you hear after the {x}?",
        "what word comes after the {x}?",
        "which word do you hear after the {x}?",
        "what word is said after the {x}?",
    ),
    ("which word is spoken after the {x}?",),
)
def _word_after_sound(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not only_words(scene):
        return None
    found = neighbours(scene, unique(scene.of_kind("sound")), words, rng, 1)
    if not found:
        return None
    pivot, answer = (event.name for event in found)
    return Draft(answer, then(*found), wrong(words, WORDS, answer, rng, named=pivot), {"x": pivot})


@template(
    "word_total",
    "speech",
    1,
    (
        "how many words are spoken?",
        "how many words are said?",
        "how many words do you hear?",
        "how many words can you hear?",
        "what is the number of words?",
        "count the words.",
        "how many words are in the audio?",
        "how many words are heard?",
        "how many words does anyone say?",
        "how many spoken words are there?",
        "how many words are there?",
    ),
    ("how many words can be heard?",),
)
def _word_total(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    return counted(words, "speech", "no word", rng) if only_words(scene) else None


@template(
    "who_says",
    "speech",
    1,
    (
        "who says {x}?",
        "who speaks the word {x}?",
        "is the word {x} spoken by a man or a woman?",
        "does a man or a woman say {x}?",
        "by whom is {x} spoken?",
        "who speaks {x}?",
        "does a man or a woman say the word {x}?",
        "is {x} said by a man or a woman?",
    ),
    ("who says the word {x}?",),
)
def _who_says(scene: Scene, rng: random.Random) -> Draft | None:
    words = unique(plain_words(scene))
    if not words or not only_words(scene):
        return None
    event = rng.choice(words)
    reason = (Cite(event, with_speaker=True),)
    return Draft(event.speaker or "", reason, fixed=SPEAKERS, slots={"x": event.name})


@template(
    "last_speaker",
    "speech",
    1,
    (
        "who speaks last?",
        "is the last word said by a man or a woman?",
        "who speaks the last word?",
        "does a man or a woman speak last?",
        "who is the last speaker?",
        "by whom is the last word said?",
        "does a man or a woman say the last word?",
        "is the last word spoken by a man or a woman?",
    ),
    ("who says the last word?",),
)
def _last_speaker(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if not words or not only_words(scene):
        return None
    return Draft(words[-1].speaker or "", (Cite(words[-1], with_speaker=True),), fixed=SPEAKERS)


@template(
    "speaker_count",
    "speech",
    2,
    (
        "how many speakers are there?",
        "how many people speak?",
        "how many speakers do you hear?",
        "how many people do you hear?",
        "how many speakers can you hear?",
        "how many people can you hear?",
        "what is the number of speakers?",
        "count the speakers.",
        "how many people are in the audio?",
        "how many voices speak?",
        "how many voices do you hear?",
        "does one person speak or do two?",
        "how many speakers speak?",
    ),
    ("how many people are there?",),
)
def _speaker_count(scene: Scene, rng: random.Random) -> Draft | None:
    words = plain_words(scene)
    if len(words) < 2 or not only_words(scene):
        return None
    # What settles it: all words up to the first by a second speaker, or every word if there is none.
    another = [place for place, event in enumerate(words) if event.speaker != words[0].speaker]
    if not another and rng.random() < 0.5:
        return None
    heard = words[: another[0] + 1] if another else words
    new = [place == 0 or place in another for place in range(len(heard))]
    return Draft("2" if another else "1", told_off(heard, new, with_speaker=True), fixed=("1", "2"))


@template(
    "number_spoken",
    "speech",
    1,
    (
        "which number is spoken?",
        "what number is said?",
        "which number do you hear?",
        "what number do you hear?",
        "what is the number that is spoken?",
        "which number does the voice say?",
        "what number can you hear?",
        "what number is spoken?",
    ),
    ("which number is said?",),
)
def _number_spoken(scene: Scene, rng: random.Random) -> Draft | None:
    numbers = [event for event in plain_words(scene) if event.name in NUMBERS]
    if len(numbers) != 1 or not only_words(scene):
        return None
    return Draft(numbers[0].name, (Cite(numbers[0]),), wrong(numbers, NUMBERS, numbers[0].name, rng))


@template(
    "narrated",
    "speech",
    1,
    (
        "what does the speaker say there is?",
        "what does the voice say there is?",
        "what sound does the voice tell of?",
        "which sound does the speaker tell of?",
        "what does the speaker tell of?",
        "what is there, as the voice says?",
        "what sound is there, as the speaker says?",
        "of which sound does the voice speak?",
        "which sound does the voice name?",
        "what does the voice tell you there is?",
        "there is a sound, the voice says: which one?",
        "which sound does the speaker say there is?",
    ),
    ("which sound does the voice say there is?",),
)
def _narrated(scene: Scene, rng: random.Random) -> Draft | None:
    told = [event for event in scene.of_kind("speech") if event.style == "narration"]
    if not told:
        return None
    answer = told[0].name.split()[-1]
    return Draft(answer, (Cite(told[0]),), wrong(scene.of_kind("sound"), SOUNDS, answer, rng))
