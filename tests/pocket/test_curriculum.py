"""What the text LLM is taught is true of the scene that it is taught about."""

from __future__ import annotations

import random
import re

from earnest.pocket import language
from earnest.pocket.curriculum import Mix, Pack, draw_pack
from earnest.pocket.text_llm import TextLLMSettings
from earnest.world.surrogates import ORDINALS

LISTS = Mix(recall=1.0, stream=0.0, plain=0.0, lists=1.0)
SEGMENT = re.compile(r"\[(\d\d:\d\d)-\d\d:\d\d(?:, the (\w+) speaker, gender: (\w+))?\] ([^\[(]+)")


def _events(pack: Pack) -> list[tuple[str, str, str, str]]:
    """Kind, content, start and speaker of each segment, read back from the surrogate alone."""
    assert isinstance(pack.surrogate, str)
    found: list[tuple[str, str, str, str]] = []
    for start, ordinal, gender, content in SEGMENT.findall(pack.surrogate):
        assert not ordinal or ordinal in ORDINALS
        text = content.strip().strip("|")
        kind = "words" if gender else "instruments" if ", " in text else "sounds"
        found.append((kind, text, start, gender))
    return found


def _cited(events: list[tuple[str, str, str, str]]) -> str:
    return ", ".join(f"{text} [{start}]" for _, text, start, _ in events)


def test_lists_say_what_the_surrogate_holds() -> None:
    rng = random.Random(3)
    seen: set[str] = set()
    for _ in range(300):
        pack = draw_pack(rng, LISTS)
        events = _events(pack)
        for exchange in pack.exchanges:
            if not exchange.user.startswith("what are the "):
                continue
            match = re.fullmatch(r"what are the (\w+)(?: (up to|from) the (?:word )?(\w+)(?: on)?)?\?", exchange.user)
            assert match, exchange.user
            kind, form, name = match.groups()
            assert kind in language.KINDS.values()
            seen.add(form or "all")
            if form is None:
                assert exchange.reply == f"{_cited([e for e in events if e[0] == kind]) or 'none'}."
                continue
            place = next(k for k, event in enumerate(events) if event[1].split(",")[0] == name)
            pivot = _cited([events[place]])
            rest = events[:place] if form == "up to" else events[place + 1 :]
            found = _cited([event for event in rest if event[0] == kind]) or "none"
            assert exchange.reply == (f"{found}, then {pivot}." if form == "up to" else f"{pivot}, then {found}.")
    assert seen == {"all", "up to", "from"}


def test_every_occurrence_is_found() -> None:
    rng = random.Random(4)
    counts: set[int] = set()
    for _ in range(300):
        pack = draw_pack(rng, LISTS)
        names = [event[1].split(",")[0] for event in _events(pack)]
        for exchange in pack.exchanges:
            if not exchange.user.startswith("find every: "):
                continue
            for name in exchange.user.removeprefix("find every: ").removesuffix(".").split(", "):
                times = exchange.reply.count(f"{name} [") + len(re.findall(rf"\b{name}, \w+, \w+ \[", exchange.reply))
                assert times == names.count(name)
                assert (f"{name} none" in exchange.reply) == (times == 0)
                counts.add(times)
    assert counts >= {0, 1, 2}


def test_speakers_are_listed_with_what_they_say() -> None:
    rng = random.Random(5)
    for _ in range(100):
        pack = draw_pack(rng, LISTS)
        spoken = [f"{text}, {gender} [{start}]" for kind, text, start, gender in _events(pack) if kind == "words"]
        for exchange in pack.exchanges:
            if exchange.user == language.LIST_SPEAKERS:
                assert exchange.reply == f"{', '.join(spoken) or 'none'}."


def test_the_phases_follow_one_another() -> None:
    settings = TextLLMSettings(recall_steps=2, places_steps=3)
    phases = [settings.mix(step) for step in range(6)]
    assert [mix.recall for mix in phases] == [1.0] * 5 + [settings.recall]
    assert [mix.stream for mix in phases] == [0.0] * 2 + [0.35] * 3 + [settings.stream]
    assert phases[0].lists == 0 and phases[2].lists > 0 and phases[5].hard == settings.hard
