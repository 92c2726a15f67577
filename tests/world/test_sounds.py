"""Sounds: right lengths and levels, the same from the same seed, distinct, and disjoint between splits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from earnest.world.sounds import sound, sound_duration
from earnest.world.synthesis import REFERENCE_RMS, SAMPLE_RATE_HZ, SPLITS, Draw, band_noise, harmonics, phase
from earnest.world.vocabulary import SOUNDS


def draw(seed: int = 0, split: str = "train") -> Draw:
    return Draw(np.random.default_rng(seed), split)


def bands(signal: np.ndarray) -> np.ndarray:
    """A coarse picture of a sound: log power in 12 octave-like bands, and its rhythm in 24 frames."""
    power = np.abs(np.fft.rfft(signal, 1 << 16)) ** 2
    edges = np.geomspace(60, 8000, 25) / SAMPLE_RATE_HZ * (1 << 16)
    spectrum = np.log([power[int(a) : int(b) + 1].mean() for a, b in itertools.pairwise(edges)])
    return spectrum - spectrum.mean()


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_sound_fills_its_length_at_the_reference_level(name: str, split: str):
    for seed in range(3):
        source = draw(seed, split)
        length_s = sound_duration(name, source)
        assert 0.3 <= length_s <= 2.0
        signal = sound(name, count := round(length_s * SAMPLE_RATE_HZ), source)
        assert signal.shape == (count,) and signal.dtype == np.float32 and np.isfinite(signal).all()
        assert np.abs(signal).max() <= 0.9 + 1e-6
        # Very short strokes reach the limit of the peak before they reach the level.
        assert 0.04 < np.sqrt(np.mean(signal**2)) <= REFERENCE_RMS + 1e-4
        tenths = [np.abs(part).max() for part in np.array_split(signal, 10)]
        assert tenths[0] > 0.005 and max(tenths[6:]) > 0.002, "silent where the timeline says it sounds"


@pytest.mark.parametrize("name", SOUNDS)
def test_a_seed_decides_a_sound(name: str):
    assert np.array_equal(sound(name, 9000, draw(4)), sound(name, 9000, draw(4)))
    assert not np.array_equal(sound(name, 9000, draw(4)), sound(name, 9000, draw(5)))


@pytest.mark.parametrize("count", (800, 1601, 7919, 40_000))
def test_any_length_can_be_made(count: int):
    for name in SOUNDS:
        signal = sound(name, count, draw(1))
        assert signal.shape == (count,) and np.isfinite(signal).all() and np.abs(signal).max() > 0


def test_sounds_differ_more_between_classes_than_within():
    """A nearest-mean rule on spectra alone (no rhythm, no course of pitch) is right most of the time."""
    means = {name: np.mean([bands(sound(name, 12_000, draw(seed))) for seed in range(6)], axis=0) for name in SOUNDS}
    right = [
        min(SOUNDS, key=lambda other: float(np.sum((means[other] - heard) ** 2))) == name
        for name in SOUNDS
        for seed in range(3)
        for heard in [bands(sound(name, 12_000, draw(100 + seed, "test")))]
    ]
    assert np.mean(right) > 0.7, f"{np.mean(right):.2f} of unseen sounds recognised; chance is 0.03"


def test_splits_share_no_value_of_any_parameter():
    drawn = {split: {int(draw(seed, split).uniform(0, 10)) for seed in range(300)} for split in SPLITS}
    assert drawn == {"train": {0, 1, 4, 5, 8, 9}, "validation": {2, 6}, "test": {3, 7}}


def test_a_logarithmic_draw_stays_in_its_range():
    values = [draw(seed).log(100, 400) for seed in range(300)]
    assert 100 <= min(values) < 120 and 340 < max(values) <= 400


def test_harmonics_sound_at_multiples_and_never_fold_back():
    spectrum = np.abs(np.fft.rfft(harmonics(phase(1000.0, SAMPLE_RATE_HZ), [1, 0, 0.5] + [1] * 20, 1000.0)))
    loud = set(np.flatnonzero(spectrum > 0.05 * spectrum.max()).tolist())
    assert loud == {1000, 3000, 4000, 5000, 6000, 7000}


def test_band_noise_stays_in_its_band():
    power = np.abs(np.fft.rfft(band_noise(np.random.default_rng(0), SAMPLE_RATE_HZ, 1000, 2000))) ** 2
    assert power[900:2200].sum() > 0.8 * power.sum()
    assert power[500:4000].sum() > 0.99 * power.sum()
