"""Music: registers and tempi lie apart, phrases fill their length, instruments differ."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from earnest.world.music import notes_in, phrase, phrase_duration, tune
from earnest.world.synthesis import REFERENCE_RMS, SAMPLE_RATE_HZ, SPLITS, Draw
from earnest.world.vocabulary import INSTRUMENTS, PITCHES, TEMPI


def draw(seed: int = 0, split: str = "train") -> Draw:
    return Draw(np.random.default_rng(seed), split)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_a_phrase_fills_its_length_at_the_reference_level(instrument: str):
    for (pitch, tempo), split in zip(itertools.product(PITCHES, TEMPI), SPLITS * 2, strict=True):
        source = draw(3, split)
        count = round(phrase_duration(tempo, source) * SAMPLE_RATE_HZ)
        signal = phrase(instrument, pitch, tempo, count, source)
        assert signal.shape == (count,) and signal.dtype == np.float32 and np.isfinite(signal).all()
        assert np.abs(signal).max() <= 0.9 + 1e-6
        assert 0.05 < np.sqrt(np.mean(signal**2)) <= REFERENCE_RMS + 1e-4
        assert np.abs(signal[-count // 5 :]).max() > 0.002, "silent where the timeline says it plays"


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_a_seed_decides_a_phrase(instrument: str):
    first, again, other = (phrase(instrument, "middle", "slow", 20_000, draw(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_lengths_hold_whole_notes_at_tempi_that_lie_apart():
    for split, seed in itertools.product(SPLITS, range(60)):
        rates = {}
        for tempo in TEMPI:
            length_s = phrase_duration(tempo, draw(seed, split))
            assert 0.85 <= length_s <= 2.45
            rates[tempo] = notes_in(round(length_s * SAMPLE_RATE_HZ), tempo) / length_s
        assert 1.5 < rates["slow"] < 2.6 and 4.4 < rates["fast"] < 5.8


def test_registers_lie_apart_and_hold_every_note():
    heard = {
        pitch: [
            frequency
            for seed, chords in itertools.product(range(40), (False, True))
            for chord in tune(pitch, 5, chords, draw(seed, SPLITS[seed % 3]))
            for frequency in chord
        ]
        for pitch in PITCHES
    }
    assert max(heard["low"]) < 190 < 270 < min(heard["middle"])
    assert max(heard["middle"]) < 500 < 730 < min(heard["high"])


@pytest.mark.parametrize("instrument", ("flute", "organ", "marimba", "violin"))
def test_the_strongest_low_partial_follows_the_register(instrument: str):
    lowest = []
    for pitch in PITCHES:
        power = np.abs(np.fft.rfft(phrase(instrument, pitch, "slow", 32_000, draw(5)))) ** 2
        audible = np.flatnonzero(power > 0.05 * power.max())
        lowest.append(audible[0] / 2)
    assert lowest == sorted(lowest) and lowest[0] < 200 < lowest[1] < 510 < lowest[2]


def test_notes_of_the_caller_replace_the_synthesis():
    asked: list[float] = []

    def note(frequency_hz: float, count: int) -> np.ndarray:
        asked.append(frequency_hz)
        return np.ones(count, np.float32)

    signal = phrase("flute", "high", "fast", 16_000, draw(0), note)
    assert asked and min(asked) > 730 and signal.shape == (16_000,)
