"""Questions about sounds."""

from __future__ import annotations

import random

from earnest.world.surrogates import bounds, clock
from earnest.world.templates.drafts import (
    Cite,
    Draft,
    cites,
    counted,
    names,
    neighbours,
    only_words,
    plain_words,
    template,
    then,
    told_off,
    unique,
    untold,
    wrong,
    yes_or_no,
)
from earnest.world.timeline import Scene
from earnest.world.vocabulary import SOUNDS


@template(
    "sound_presence",
    "sound",
    1,
    (
        "is there a {x}?",
        "can you hear a {x}?",
        "is a {x} heard?",
        "do you hear a {x}?",
        "is a {x} in the audio?",
        "is there a {x} in the audio?",
        "does a {x} sound?",
    ),
    ("is a {x} there?", "can a {x} be heard?"),
)
def _sound_presence(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    told = [e for e in scene.of_kind("speech") if e.style == "narration"]
    present = {e.name: (Cite(e),) for e in sounds} | {e.name.split()[-1]: ("told ", Cite(e)) for e in told}
    return yes_or_no(present, names(plain_words(scene)), SOUNDS, "", rng)


@template(
    "sound_count",
    "sound",
    1,
    (
        "how many times is the {x} heard?",
        "how often is the {x} heard?",
        "how often do you hear the {x}?",
        "how many times do you hear the {x}?",
        "how many times can you hear the {x}?",
        "how often can the {x} be heard?",
        "how many times has the {x} sounded?",
        "does the {x} sound never, once or twice?",
        "count how often the {x} sounds.",
        "how many times will you hear the {x}?",
        "how often is there a {x}?",
        "how many times does the {x} sound?",
    ),
    ("how often does the {x} sound?",),
)
def _sound_count(scene: Scene, rng: random.Random) -> Draft | None:
    wanted = rng.randrange(3)
    # Scenes in which a sound is heard twice are rarest; the other counts are turned down to their number.
    if not untold(scene) or rng.random() > (0.17, 0.226, 1.0)[wanted]:
        return None
    sounds = scene.of_kind("sound")
    heard = names(sounds)
    fitting = [name for name in (SOUNDS if wanted == 0 else heard) if heard.count(name) == wanted]
    if not fitting:
        return None
    name = rng.choice(fitting)
    # What settles it: all sounds, counted where it is one of them.
    reason = told_off(sounds, [event.name == name for event in sounds]) if wanted else (f"no {name}",)
    return Draft(str(wanted), reason, fixed=("0", "1", "2"), slots={"x": name})


@template(
    "sound_total",
    "sound",
    1,
    (
        "how many sounds are there?",
        "how many sounds can you hear?",
        "how many sounds do you hear?",
        "how many sounds are in the audio?",
        "what is the number of sounds?",
        "count the sounds.",
        "how many sounds are heard?",
    ),
    ("how many sounds can be heard?",),
)
def _sound_total(scene: Scene, rng: random.Random) -> Draft | None:
    return counted(scene.of_kind("sound"), "sound", "no sound", rng) if untold(scene) else None


@template(
    "sound_first",
    "sound",
    1,
    (
        "what sound comes first?",
        "which sound comes first?",
        "what sound is heard first?",
        "which sound is heard first?",
        "what sound do you hear first?",
        "which sound is the first?",
        "what is the first of the sounds?",
        "what is the first sound?",
    ),
    ("which is the first sound?",),
)
def _sound_first(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if len(set(names(sounds))) < 2 or not untold(scene):
        return None
    return Draft(sounds[0].name, (Cite(sounds[0]),), wrong(sounds, SOUNDS, sounds[0].name, rng))


@template(
    "sound_last",
    "sound",
    1,
    (
        "what sound comes last?",
        "which sound comes last?",
        "what sound is heard last?",
        "which sound is heard last?",
        "what sound do you hear last?",
        "which sound is the last?",
        "what is the last of the sounds?",
        "what is the last sound?",
    ),
    ("which is the last sound?",),
)
def _sound_last(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if len(set(names(sounds))) < 2 or not untold(scene):
        return None
    return Draft(sounds[-1].name, (Cite(sounds[-1]),), wrong(sounds, SOUNDS, sounds[-1].name, rng))


@template(
    "sound_after",
    "sound",
    2,
    (
        "what sound comes after the {x}?",
        "which sound follows the {x}?",
        "what sound do you hear after the {x}?",
        "which sound do you hear after the {x}?",
        "after the {x}, what sound comes?",
        "which sound is next after the {x}?",
        "which sound is heard after the {x}?",
        "what sound is heard after the {x}?",
    ),
    ("which sound comes after the {x}?", "what sound follows the {x}?"),
)
def _sound_after(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    found = neighbours(scene, unique(sounds), sounds, rng, 1)
    if not found:
        return None
    pivot, answer = (event.name for event in found)
    return Draft(answer, then(*found), wrong(sounds, SOUNDS, answer, rng, named=pivot), {"x": pivot})


@template(
    "sound_before",
    "sound",
    2,
    (
        "what sound comes before the {x}?",
        "which sound is heard before the {x}?",
        "what sound do you hear before the {x}?",
        "which sound do you hear before the {x}?",
        "before the {x}, what sound comes?",
        "what is the sound before the {x}?",
        "what sound precedes the {x}?",
        "which sound precedes the {x}?",
        "which sound is the last before the {x}?",
        "what sound is heard before the {x}?",
    ),
    ("which sound comes before the {x}?",),
)
def _sound_before(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    found = neighbours(scene, unique(sounds), sounds, rng, -1)
    if not found:
        return None
    upto = sounds[: sounds.index(found[0])]
    pivot, answer = (event.name for event in found)
    reason = (*cites(upto), ", then ", Cite(found[0]))
    return Draft(answer, reason, wrong(sounds, SOUNDS, answer, rng, named=pivot), {"x": pivot})


@template(
    "sound_order",
    "sound",
    2,
    (
        "which comes first, the {x} or the {y}?",
        "what is heard first, the {x} or the {y}?",
        "which do you hear first, the {x} or the {y}?",
        "which sounds first, the {x} or the {y}?",
        "which is first, the {x} or the {y}?",
        "what do you hear first, the {x} or the {y}?",
        "what comes first, the {x} or the {y}?",
    ),
    ("which is heard first, the {x} or the {y}?",),
)
def _sound_order(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = unique(scene.of_kind("sound"))
    pairs = [(a, b) for a in sounds for b in sounds if bounds(a)[0] < bounds(b)[0]]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    x, y = rng.sample([first, second], 2)
    reason = (Cite(x), ", ", Cite(y))
    return Draft(first.name, reason, fixed=(first.name, second.name), slots={"x": x.name, "y": y.name})


@template(
    "sound_when",
    "sound",
    1,
    (
        "when is the {x} heard?",
        "when does the {x} sound?",
        "when do you hear the {x}?",
        "at what time do you hear the {x}?",
        "when can the {x} be heard?",
        "at what time can you hear the {x}?",
        "when is there a {x}?",
        "at which second do you hear the {x}?",
        "when is it that the {x} sounds?",
        "at what moment can the {x} be heard?",
        "tell me when the {x} sounds.",
        "at what time is the {x} heard?",
    ),
    ("at what time does the {x} sound?",),
)
def _sound_when(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = unique(scene.of_kind("sound"))
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


@template(
    "sound_after_word",
    "sound",
    2,
    (
        "what sound comes after the word {x}?",
        "which sound is heard after the word {x}?",
        "what sound do you hear after the word {x}?",
        "which sound do you hear after the word {x}?",
        "which sound follows the word {x}?",
        "after the word {x}, what sound comes?",
        "what sound is heard after the word {x}?",
    ),
    ("which sound comes after the word {x}?",),
)
def _sound_after_word(scene: Scene, rng: random.Random) -> Draft | None:
    sounds = scene.of_kind("sound")
    if not only_words(scene):
        return None
    found = neighbours(scene, unique(plain_words(scene)), sounds, rng, 1)
    if not found:
        return None
    pivot, answer = (event.name for event in found)
    return Draft(answer, then(*found), wrong(sounds, SOUNDS, answer, rng, named=pivot), {"x": pivot})
