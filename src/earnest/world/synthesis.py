"""Small tools of sound synthesis: parameters from a split's bands, wave tables, shaped noise, envelopes.

All signals are mono float32 [S] at 16 kHz. Periodic signals are read from a wave table (one look-up whatever
the number of harmonics), which is what makes the world hundreds of times faster than real time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
REFERENCE_RMS = 0.1
"""Level of an event at 0 dB; a scene's signal-to-noise ratio refers to it."""

Signal: TypeAlias = npt.NDArray[np.floating]
"""Samples [S] at 16 kHz, float32 (numpy's types cannot tell that a float32 array times a float stays one)."""

_TABLE_SIZE = 8192
_FFT_STEP = 512
"""Lengths of transforms are multiples of it: a prime length would be slow."""
_PEAK_LIMIT = 0.9
_EDGE_S = 0.004

_CELLS: dict[str, tuple[int, ...]] = {
    "train": (0, 1, 4, 5, 8, 9),
    "validation": (2, 6),
    "test": (3, 7),
}
"""Every parameter's range is cut into ten cells; no two splits share one."""
SPLITS: tuple[str, ...] = tuple(_CELLS)


@dataclass(frozen=True)
class Draw:
    """Draws the parameters of one event from the bands of a split.

    A range is cut into ten equal cells of which each split owns its own, so that no value of a held-out
    event was ever heard in training, while the ranges of all splits are the same.

    Attributes:
        rng: source of randomness of the event.
        split: train, validation or test.
    """

    rng: np.random.Generator
    split: str

    def uniform(self, low: float, high: float) -> float:
        """A value between `low` and `high`, uniform within the split's cells."""
        cells = _CELLS[self.split]
        cell = cells[int(self.rng.integers(len(cells)))]
        return low + (high - low) * (cell + float(self.rng.random())) / 10

    def log(self, low: float, high: float) -> float:
        """As `uniform`, on a logarithmic scale: for frequencies and rates, both positive."""
        return float(np.exp(self.uniform(float(np.log(low)), float(np.log(high)))))


def seconds(count: int) -> Signal:
    """Time axis [S] in seconds."""
    return np.arange(count, dtype=np.float32) / SAMPLE_RATE_HZ


def phase(frequency_hz: float | npt.NDArray[np.floating], count: int) -> npt.NDArray[np.float64]:
    """Phase [S] in cycles of a constant frequency or of a frequency curve [S] in Hz."""
    if isinstance(frequency_hz, np.ndarray):
        return np.cumsum(frequency_hz, dtype=np.float64) / SAMPLE_RATE_HZ
    return np.arange(count, dtype=np.float64) * (frequency_hz / SAMPLE_RATE_HZ)


@lru_cache(maxsize=64)
def _wave_table(amplitudes: tuple[float, ...]) -> Signal:
    """One period of a sum of sines with the amplitudes of harmonics 1, 2, 3 ..."""
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex64)
    order = np.arange(1, len(amplitudes) + 1)
    # Schroeder's phases: the same spectrum without the peak of sines that all start together.
    turns = np.exp(1j * np.pi * order**2 / len(amplitudes))
    spectrum[1 : len(amplitudes) + 1] = -0.5j * turns * np.asarray(amplitudes, dtype=np.float32)
    return (np.fft.irfft(spectrum, n=_TABLE_SIZE) * _TABLE_SIZE).astype(np.float32)


def _positions(cycles: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """The places [S] of a phase in a wave table."""
    return (cycles * _TABLE_SIZE).astype(np.int32) & (_TABLE_SIZE - 1)


def harmonics(cycles: npt.NDArray[np.float64], amplitudes: Sequence[float], highest_hz: float) -> Signal:
    """A sum of sines at whole multiples of one phase.

    Args:
        cycles: phase [S], not negative.
        amplitudes: of harmonics 1, 2, 3 ...
        highest_hz: the highest value of the fundamental; harmonics above 7.6 kHz are left out.

    Returns:
        Signal [S].
    """
    kept = max(1, min(len(amplitudes), int(7600 / highest_hz)))
    return _wave_table(tuple(amplitudes[:kept]))[_positions(cycles)]


_SINE: Signal = np.sin(2 * np.pi * np.arange(_TABLE_SIZE) / _TABLE_SIZE).astype(np.float32)


def sine(cycles: npt.NDArray[np.float64]) -> Signal:
    """A sine of a phase [S], which must not be negative."""
    return _SINE[_positions(cycles)]


def tone(frequency_hz: float | npt.NDArray[np.floating], count: int) -> Signal:
    """A sine [S] of a constant frequency or of a frequency curve [S] in Hz."""
    return sine(phase(frequency_hz, count))


def noise(rng: np.random.Generator, count: int) -> Signal:
    """White noise [S] of variance 1."""
    return rng.standard_normal(count, dtype=np.float32)


def band_noise(rng: np.random.Generator, count: int, low_hz: float, high_hz: float) -> Signal:
    """Noise [S] between two frequencies, with slopes of 24 dB per octave."""
    size = -(-count // _FFT_STEP) * _FFT_STEP
    spectrum = np.fft.rfft(noise(rng, size))
    frequencies = np.linspace(1, SAMPLE_RATE_HZ / 2, len(spectrum), dtype=np.float32)
    below, above = np.square(low_hz / frequencies), np.square(frequencies / high_hz)
    spectrum /= np.sqrt((1 + np.square(below * below)) * (1 + np.square(above * above)))
    return np.fft.irfft(spectrum, n=size)[:count].astype(np.float32)


def decay(count: int, rate: float) -> Signal:
    """An exponential decay [S] from 1, `rate` per second."""
    return np.exp(-rate * seconds(count))


def attack(count: int, rise_s: float, fall_s: float) -> Signal:
    """An envelope [S] of ones with linear edges, shortened where they would not fit."""
    envelope = np.ones(count, dtype=np.float32)
    rise = min(int(rise_s * SAMPLE_RATE_HZ), count // 2)
    fall = min(int(fall_s * SAMPLE_RATE_HZ), count // 2)
    envelope[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    if fall:
        envelope[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32)
    return envelope


def swell(count: int) -> Signal:
    """Half a sine [S]: 0, 1, 0."""
    return np.maximum(np.sin(np.linspace(0, np.pi, count, dtype=np.float32)), 0)


def place(count: int, hits: Sequence[tuple[int, Signal]]) -> Signal:
    """Adds signals at their first samples into a signal [S]; what lies beyond the end is cut."""
    out = np.zeros(count, dtype=np.float32)
    for start, hit in hits:
        end = min(count, start + len(hit))
        out[start:end] += hit[: end - start]
    return out


def level(signal: Signal) -> Signal:
    """Brings a signal [S] to the reference level, with soft edges and peaks of at most 0.9."""
    out = signal * attack(len(signal), _EDGE_S, _EDGE_S)
    rms = float(np.sqrt(np.dot(out, out) / len(out)))
    peak = float(np.abs(out).max())
    return (out * min(REFERENCE_RMS / rms, _PEAK_LIMIT / peak)).astype(np.float32, copy=False)
