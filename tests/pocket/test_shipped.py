"""The model that is shipped: small enough, and it answers, abstains or refuses whatever it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import earnest
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.pocket import weights_path
from earnest.pocket.ship import CARD, MAX_BYTES

SAID = {"answered", "abstained", "refused", "malformed"}


@pytest.fixture(scope="module")
def pocket() -> Engine:
    return earnest.load("pocket", threads=1)


def test_it_is_small_and_its_card_lies_beside_it() -> None:
    files = [path for path in Path(weights_path()).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert CARD in {path.name for path in files}


@pytest.mark.parametrize(("name", "rate_hz", "channels"), [("a.mp3", 44_100, 1), ("a.wav", 44_100, 2)])
def test_it_is_asked_about_recordings_from_elsewhere(
    pocket: Engine, tmp_path: Path, name: str, rate_hz: int, channels: int
) -> None:
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * rate_hz) / rate_hz
    signal = 0.3 * np.sin(2 * np.pi * 330 * time_s) * (time_s % 1 < 0.4) + 0.01 * rng.normal(size=len(time_s))
    soundfile.write(tmp_path / name, np.stack([signal] * channels, axis=1), rate_hz)
    reply = earnest.ask(pocket, tmp_path / name, "How many sounds are there?")
    assert reply.outcome in SAID
    assert reply.heard.seconds_heard == pytest.approx(3.0, abs=0.1)
    assert reply.text


def test_it_hears_a_dog_where_there_is_one(pocket: Engine) -> None:
    """Eight clear clips of one sound each: chance is 2 of 8, it must be right in 6."""
    from earnest.world.mixing import render
    from earnest.world.timeline import Event, Scene

    right = 0
    names = ("dog", "siren", "rain", "bell", "cat", "horn", "glass", "knock")
    for number, name in enumerate(names):
        scene = Scene(f"s{number}", 4.0, (Event("sound", name, 1.0, 2.2),), None, None, number, "validation", {})
        others = [other for other in names if other != name][:3]
        reply = earnest.ask(pocket, render(scene), "what sound is heard first?", choices=(*others, name))
        right += reply.answer == name
    assert right >= 6


def test_typed_placeholders_are_refused_and_their_twins_are_not(pocket: Engine) -> None:
    from earnest.completion import Sampling
    from earnest.pocket import language

    asked = [Conversation().user(f"how do i {verb} the lamp") for verb in ("zorple", "polish")]
    refused, helped = pocket.generate(asked, Sampling(max_new_tokens=40))
    assert refused.text.strip() == language.REFUSAL
    assert helped.text.strip().startswith("first take a")
