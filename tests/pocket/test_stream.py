"""Streams: what is heard has air where nothing sounds, a text has none, and replies speak of one accordingly."""

from __future__ import annotations

import random

from earnest.alignment.leaks import leak
from earnest.pocket.curriculum import LEAKS_OVER_HEARD, LEAKS_OVER_TEXT, Mix, draw_pack
from earnest.pocket.stream import AIR_SHARES, Slot, scene_stream
from earnest.pocket.tokenizer import AIR, BLANK
from earnest.world.scenes import plan_scene

STREAMS = Mix(recall=0.0, stream=1.0, plain=0.0)


def _has_air(stream: list[Slot]) -> bool:
    return any(AIR in (slot.piece, slot.other) for slot in stream)


def test_air_lies_where_nothing_sounds_and_nowhere_else() -> None:
    for seed in range(60):
        scene = plan_scene(random.Random(seed))
        heard, text = (
            scene_stream(scene, random.Random(seed), robust=seed % 2 == 0, heard=heard) for heard in (True, False)
        )
        assert not _has_air(text)
        assert len(heard) == len(text)
        shares = {slot.share for slot in heard if AIR in (slot.piece, slot.other)}
        assert len(shares) <= 1
        for one, two in zip(heard, text, strict=True):
            if two.piece == two.other == BLANK:
                assert (one.piece, one.other) == (BLANK, AIR)
                assert AIR_SHARES[0] <= one.share <= AIR_SHARES[1]
            else:
                assert one == two


def test_replies_speak_of_a_text_over_texts_more_than_over_what_is_heard() -> None:
    rng = random.Random(4)
    leaking: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(700):
        pack = draw_pack(rng, STREAMS)
        assert isinstance(pack.surrogate, list)
        leads = [exchange.reply for exchange in pack.exchanges if exchange.reply.startswith("<think>")]
        if leads:
            leaking[_has_air(pack.surrogate)].append(any(leak(reply) for reply in leads))
    heard, text = (sum(leaking[air]) / len(leaking[air]) for air in (True, False))
    assert len(leaking[True]) > len(leaking[False]) > 150
    # Not every question tempts to it.
    assert 0.3 * LEAKS_OVER_HEARD < heard < LEAKS_OVER_HEARD + 0.05
    assert 0.6 * LEAKS_OVER_TEXT < text <= 1
