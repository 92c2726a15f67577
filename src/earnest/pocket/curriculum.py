"""What pocket's text LLM is taught, all of it text: many turns over one surrogate.

One question per surrogate is too sparse a signal for look-ups to form, so each pack holds several turns
after one surrogate, and training begins with recall ("find: dog, bell."). Replies cite what they rest on,
content before time. The surrogate comes as the textual form of ALARM or as a stream (`stream.py`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from earnest.pocket import language
from earnest.pocket.stream import Slot, scene_stream
from earnest.world.questions import UNKNOWN, Question, ask, ask_unanswerable
from earnest.world.replies import HEARING, LEAKS, Manner, cite, leak_lead, reply
from earnest.world.scenes import REQUEST_FORMS, plan_request, plan_scene
from earnest.world.surrogates import caption, scene_surrogate
from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import BENIGN_VERBS, FORBIDDEN_VERBS, INSTRUMENTS, OBJECTS, SOUNDS, WORDS

HARD: tuple[str, ...] = (
    "sound_total", "music_total", "word_total", "sound_count", "sound_count", "narrated", "sound_last", "sound_before",
    "sound_order", "word_last", "word_after", "word_after_sound", "sound_after_word", "pitch_compare", "speaker_count",
    "speaker_count",
)  # fmt: skip
"""Templates that enumerate, look backwards, cross modalities or compare, and those that few scenes allow."""

DRAWS = 4
"""How often one of them is tried on a scene: counts are turned down so that their numbers stay balanced."""

HEARD = 0.6
"""Share of the streams that come with air, like something heard; the others are texts."""
LEAKS_OVER_HEARD, LEAKS_OVER_TEXT = 0.15, 0.9
"""How often replies over them speak of a text, where a question tempts to."""


@dataclass(frozen=True)
class Exchange:
    """A user's text and the reply to learn."""

    user: str
    reply: str


@dataclass(frozen=True)
class Pack:
    """Several exchanges about one surrogate.

    Attributes:
        surrogate: text, a stream of slots, or None for plain chat.
        exchanges: in order; the surrogate stands before the first.
    """

    surrogate: str | list[Slot] | None
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class Mix:
    """Shares of what is taught.

    Attributes:
        recall: share of look-up exercises among the turns over a scene.
        stream: share of surrogates in the form of a stream.
        turns: exchanges per scene.
        plain: share of packs without a scene (chat, requests, rephrasing).
        short: whether scenes are short and dense, for the first look-ups.
        places: share of look-ups that ask where, not what comes next.
        absent: names in a look-up that are not there, at most.
        lists: share of look-ups that enumerate.
        hard: share of questions that are drawn from the templates that take longest to learn.
        narrated: share of scenes that are narrated, beyond those of the world.
    """

    recall: float = 0.15
    stream: float = 0.6
    turns: int = 6
    plain: float = 0.14
    short: bool = False
    places: float = 0.75
    absent: int = 3
    lists: float = 0.0
    hard: float = 0.0
    narrated: float = 0.0


def draw_pack(rng: random.Random, mix: Mix) -> Pack:
    """Draws one training pack."""
    if rng.random() < mix.plain:
        return _plain_pack(rng)
    if rng.random() < 0.05:
        return _request_pack(rng, mix)
    genre = "narrated" if rng.random() < mix.narrated else None
    scene = plan_scene(rng, duration_s=rng.uniform(6.0, 10.0), count=5) if mix.short else plan_scene(rng, genre=genre)
    surrogate, leaks = _surrogate(scene, rng, mix)
    exchanges = tuple(
        _recall(scene, rng, mix) if rng.random() < mix.recall else draw_exchange(scene, rng, leaks=leaks, hard=mix.hard)
        for _ in range(mix.turns)
    )
    return Pack(surrogate, exchanges)


def _surrogate(scene: Scene, rng: random.Random, mix: Mix) -> tuple[str | list[Slot], bool]:
    """A scene as text or as a stream, and whether replies betray that there is one."""
    if rng.random() >= mix.stream:
        return scene_surrogate(scene), True
    heard = rng.random() < HEARD
    leaks = rng.random() < (LEAKS_OVER_HEARD if heard else LEAKS_OVER_TEXT)
    return scene_stream(scene, rng, robust=rng.random() < 0.7, heard=heard), leaks


def draw_exchange(scene: Scene, rng: random.Random, *, leaks: bool, hard: float = 0.0) -> Exchange:
    """A question or a task about a scene, with its reference reply."""
    if rng.random() < 0.14:
        return _task(scene, rng)
    if rng.random() < 0.1:
        return _unanswerable(scene, rng, leaks)
    question = None
    if rng.random() < hard:
        name = rng.choice(HARD)
        question = next((found for _ in range(DRAWS) if (found := ask(scene, rng, name))), None)
    question = question or ask(scene, rng)
    if question is None:
        return _task(scene, rng)
    manner = Manner(lead=_lead(question, leaks))
    instruction = ""
    kind = rng.random()
    if kind < 0.12:
        instruction, manner = language.DIRECT, Manner(think=False)
    elif kind < 0.26:
        instruction, manner = language.SEGMENTS, Manner(manner.lead, citation="segment")
    elif kind < 0.32:
        instruction = rng.choice((language.UNSURE, language.FORCED))
    return Exchange(prompt(question, instruction, with_choices=rng.random() < 0.65), reply(question, manner))


def prompt(question: Question, instruction: str = "", *, with_choices: bool = True) -> str:
    """A question as the user writes it: text, choices and instruction, each on a line of its own."""
    lines = [question.text]
    if with_choices:
        lines.append(f"choices: {'; '.join(question.choices)}.")
    if instruction:
        lines.append(instruction)
    return "\n".join(lines)


def _lead(question: Question, leaks: bool) -> str:
    return (leak_lead(question) if leaks else None) or HEARING


def _unanswerable(scene: Scene, rng: random.Random, leaks: bool) -> Exchange:
    question = ask_unanswerable(scene, rng)
    if question is None:
        return _task(scene, rng)
    instruction = rng.choice(("", "", language.UNSURE, language.UNSURE, language.FORCED, language.DIRECT))
    with_choices = instruction == language.FORCED or rng.random() < 0.65
    text = prompt(question, instruction, with_choices=with_choices)
    if instruction == language.FORCED:
        forced = rng.choice(question.choices)
        answer = reply(question, Manner(_lead(question, leaks))).replace(UNKNOWN, forced)
        return Exchange(text, answer)
    return Exchange(text, reply(question, Manner(_lead(question, leaks), think=instruction != language.DIRECT)))


def _recall(scene: Scene, rng: random.Random, mix: Mix) -> Exchange:
    """Dense look-ups: all of one kind, where each of these is, or what comes next."""
    if rng.random() < mix.lists:
        return _listing(scene, rng)
    events = list(scene.events)
    names = [event.name for event in events]
    unique = [k for k, event in enumerate(events) if names.count(event.name) == 1 and " " not in event.name]
    pool = [name for name in rng.sample(SOUNDS + INSTRUMENTS + WORDS, mix.absent) if name not in names]
    if rng.random() < mix.places:
        known = {events[k].name: cite(events[k], with_speaker=events[k].kind == "speech") for k in unique}
        ask_for = language.FIND
    else:
        following = [*(caption(event) for event in events[1:]), "end"]
        known = {events[k].name: f"{events[k].name} {following[k]}" for k in unique if " " not in following[k]}
        ask_for = language.NEXT
    asked = [*known, *pool]
    rng.shuffle(asked)
    found = ", ".join(known.get(name, f"{name} none") for name in asked)
    return Exchange(ask_for.format(names=", ".join(asked)), f"{found}.")


def _listing(scene: Scene, rng: random.Random) -> Exchange:
    """Enumerations: all of one kind, those up to or from an event on, every occurrence, or who speaks."""
    form = rng.random()
    if form < 0.15:
        found = _cited(scene.of_kind("speech"), with_speaker=True)
        return Exchange(language.LIST_SPEAKERS, f"{found or 'none'}.")
    names = [event.name for event in scene.events]
    if form < 0.35:
        heard = [name for name in dict.fromkeys(names) if " " not in name]
        asked = [*rng.sample(heard, min(2, len(heard))), rng.choice(SOUNDS + WORDS)][:2]
        rng.shuffle(asked)
        found = [_cited([e for e in scene.events if e.name == name]) or f"{name} none" for name in asked]
        return Exchange(language.FIND_EVERY.format(names=", ".join(asked)), f"{', '.join(found)}.")
    kind = rng.choice(scene.events).kind if rng.random() < 0.75 else rng.choice(("sound", "music", "speech"))
    wanted = scene.of_kind(kind)
    unique = [event for event in scene.events if names.count(event.name) == 1 and " " not in event.name]
    if form < 0.6 or not unique:
        return Exchange(language.LIST.format(kinds=language.KINDS[kind]), f"{_cited(wanted) or 'none'}.")
    pivot = rng.choice(unique)
    name = f"word {pivot.name}" if pivot.kind == "speech" else pivot.name
    place = scene.events.index(pivot)
    if form < 0.8:
        found = _cited([event for event in scene.events[:place] if event.kind == kind])
        text, answer = language.LIST_UP_TO, f"{found or 'none'}, then {cite(pivot)}."
    else:
        found = _cited([event for event in scene.events[place + 1 :] if event.kind == kind])
        text, answer = language.LIST_FROM, f"{cite(pivot)}, then {found or 'none'}."
    return Exchange(text.format(kinds=language.KINDS[kind], name=name), answer)


def _cited(events: Sequence[Event], *, with_speaker: bool = False) -> str:
    return ", ".join(cite(event, with_speaker=with_speaker) for event in events)


def _task(scene: Scene, rng: random.Random) -> Exchange:
    """Describe, transcribe, caption the music or classify."""
    kind = rng.random()
    if kind < 0.4:
        heard = ", ".join(cite(event, with_speaker=event.kind == "speech") for event in scene.events)
        return Exchange(rng.choice(language.DESCRIBE), f"{heard}.")
    if kind < 0.6:
        words = " ".join(event.name for event in scene.of_kind("speech"))
        return Exchange(rng.choice(language.TRANSCRIBE), f"{words}." if words else "no speech.")
    if kind < 0.8:
        music = ", ".join(cite(event) for event in scene.of_kind("music"))
        return Exchange(rng.choice(language.CAPTION_MUSIC), f"{music}." if music else "no music.")
    kinds = [kind for kind in ("sound", "music", "speech") if scene.of_kind(kind)]  # type: ignore[arg-type]
    return Exchange(rng.choice(language.CLASSIFY), f"{', '.join(kinds)}.")


def _request_pack(rng: random.Random, mix: Mix) -> Pack:
    """A benign spoken request: helped, or refused where the instruction says that it breaks the policy."""
    scene = plan_request(rng)
    words = scene.events[0].name.split()
    verb, thing = words[-3], words[-1]
    helped = language.steps_for(verb, thing)
    exchanges: list[Exchange] = []
    for _ in range(3):
        instruction = rng.choice((language.AUDIO_INSTRUCTION, rng.choice(language.REQUEST_INSTRUCTIONS), ""))
        if rng.random() < 0.4:
            exchanges.append(Exchange(f"{language.AUDIO_INSTRUCTION} {language.POLICY_HINT}", language.REFUSAL))
        else:
            exchanges.append(Exchange(instruction, helped))
    exchanges.append(Exchange(rng.choice(language.TRANSCRIBE), f"{scene.events[0].name}."))
    rng.shuffle(exchanges)
    return Pack(_surrogate(scene, rng, mix)[0], tuple(exchanges))


def _plain_pack(rng: random.Random) -> Pack:
    """Typed requests, rephrasing and chat: no audio anywhere."""
    kind = rng.random()
    if kind < 0.45:
        return Pack(None, tuple(_typed_request(rng) for _ in range(4)))
    if kind < 0.92:
        return Pack(None, tuple(_rephrasing(rng) for _ in range(3)))
    return Pack(None, tuple(Exchange(*pair) for pair in rng.sample(language.CHAT, 3)))


def _typed_request(rng: random.Random) -> Exchange:
    forbidden = rng.random() < 0.5
    verb = rng.choice(FORBIDDEN_VERBS if forbidden else BENIGN_VERBS)
    thing = rng.choice(OBJECTS)
    text = rng.choice(REQUEST_FORMS).format(verb=verb, object=thing)
    form = rng.random()
    hinted = not forbidden and form < 0.12
    if hinted:
        text = f"{language.TEXT_INSTRUCTION} {language.POLICY_HINT}\n{text}"
    elif form < 0.5:
        text = f"{language.TEXT_INSTRUCTION}\n{text}"
    return Exchange(text, language.REFUSAL if forbidden or hinted else language.steps_for(verb, thing))


def _rephrasing(rng: random.Random) -> Exchange:
    """A reply that betrays a text, edited into one that was heard; nothing else changes."""
    while True:
        scene = plan_scene(rng)
        question = ask_unanswerable(scene, rng) if rng.random() < 0.1 else ask(scene, rng)
        if question is not None:
            break
    lead = rng.choice(LEAKS) if rng.random() < 0.75 else HEARING
    citation = "segment" if rng.random() < 0.2 else "time"
    before = reply(question, Manner(lead, citation=citation))
    after = reply(question, Manner(HEARING, citation=citation))
    return Exchange(rephrase_prompt(before), f"<answer> {_renamed(after)}</answer>")


def rephrase_prompt(text: str) -> str:
    """The request to rephrase a reply: its tags are renamed, so that the model does not take them for its own."""
    return language.REPHRASE.format(reply=_renamed(text))


def _renamed(text: str) -> str:
    for tag, name in (("think", "think"), ("answer", "answer")):
        text = text.replace(f"<{tag}>", f"[{name}]").replace(f"</{tag}>", f" [/{name}]")
    return text.replace("[/think][answer]", "[/think] [answer]")
