"""Eight instruments: an event is a phrase of notes or chords in one register at one tempo.

Registers lie apart (low up to 185 Hz, middle 277-494 Hz, high from 740 Hz), and so do tempi (about 2 and
about 5 notes a second). Timbre, root and tempo are drawn from disjoint bands per split; tunes are free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from earnest.world.synthesis import (
    SAMPLE_RATE_HZ,
    Draw,
    Signal,
    attack,
    band_noise,
    decay,
    harmonics,
    level,
    noise,
    phase,
    place,
    seconds,
    tone,
)

_ROOTS_HZ: dict[str, tuple[float, float]] = {"low": (98, 123), "middle": (277, 330), "high": (740, 830)}
"""Range of a phrase's root; its notes reach up to a fifth above."""
_NOTES_PER_SECOND: dict[str, tuple[float, float]] = {"slow": (1.8, 2.2), "fast": (4.6, 5.6)}
_COUNTS: dict[str, tuple[int, int]] = {"slow": (2, 4), "fast": (5, 11)}
_SCALES: tuple[tuple[int, ...], ...] = ((0, 2, 4, 7), (0, 3, 5, 7))
"""Steps above the root in semitones: parts of the major and the minor pentatonic scale."""
_TRIADS: tuple[tuple[int, ...], ...] = ((0, 4, 7), (0, 3, 7))
_CHORDAL: tuple[str, ...] = ("piano", "organ", "guitar")

_STRUCK = 1600
"""Samples of the noise of a hammer or a fingernail."""

Note: TypeAlias = Callable[[float, int], Signal]
"""Makes one note from its frequency in Hz and its length in samples."""


def _plucked(bright: list[float], mellow: list[float], fast: float, slow: float) -> Note:
    """A string whose bright spectrum fades `fast` per second and whose mellow one fades `slow`."""

    def note(frequency_hz: float, n: int) -> Signal:
        cycles = phase(frequency_hz, n)
        spark = harmonics(cycles, bright, frequency_hz) * decay(n, fast)
        return spark + harmonics(cycles, mellow, frequency_hz) * decay(n, slow)

    return note


def _piano(draw: Draw) -> Note:
    string = _plucked(
        [k ** -draw.uniform(0.8, 1.0) for k in range(1, 16)], [1, 0.5, 0.25, 0.1], 9, draw.uniform(2, 3.2)
    )
    knock = draw.uniform(0.15, 0.25)

    def note(frequency_hz: float, n: int) -> Signal:
        hammer = knock * band_noise(draw.rng, _STRUCK, 200, 1200) * decay(_STRUCK, 70)
        return place(n, [(0, string(frequency_hz, n)), (0, hammer)]) * attack(n, 0.004, 0.04)

    return note


def _organ(draw: Draw) -> Note:
    amplitudes = [1, draw.uniform(0.6, 0.9), 0, draw.uniform(0.45, 0.7), 0, 0, 0, draw.uniform(0.3, 0.5)]

    def note(frequency_hz: float, n: int) -> Signal:
        return harmonics(phase(frequency_hz, n), amplitudes, frequency_hz) * attack(n, 0.025, 0.025)

    return note


def _flute(draw: Draw) -> Note:
    rate, breath = draw.uniform(4.5, 5.8), draw.uniform(0.12, 0.2)
    second = draw.uniform(0.08, 0.18)

    def note(frequency_hz: float, n: int) -> Signal:
        tremble = 1 + 0.18 * tone(rate, n)
        air = breath * band_noise(draw.rng, n, 1500, 5500)
        return (harmonics(phase(frequency_hz, n), [1, second, 0.03], frequency_hz) * tremble + air) * attack(
            n, 0.06, 0.05
        )

    return note


def _violin(draw: Draw) -> Note:
    rate, depth = draw.uniform(5.2, 6.8), draw.uniform(0.014, 0.022)
    body = draw.log(2400, 3200)

    def note(frequency_hz: float, n: int) -> Signal:
        curve = frequency_hz * (1 + depth * np.sin(2 * np.pi * rate * seconds(n)))
        amplitudes = [k**-0.8 * (1 + 2.5 / (1 + ((k * frequency_hz - body) / 600) ** 2)) for k in range(1, 50)]
        return harmonics(phase(curve, n), amplitudes, frequency_hz * 1.03) * attack(n, 0.07, 0.05)

    return note


def _guitar(draw: Draw) -> Note:
    bridge = draw.uniform(0.16, 0.24)
    bright = [abs(np.sin(np.pi * k * bridge)) for k in range(1, 40)]
    mellow = [abs(np.sin(np.pi * k * bridge)) / k**1.6 for k in range(1, 10)]
    string = _plucked(bright, mellow, draw.uniform(18, 26), draw.uniform(3.5, 5))
    nail = draw.uniform(0.8, 1.4)

    def note(frequency_hz: float, n: int) -> Signal:
        pick = nail * band_noise(draw.rng, _STRUCK, 2500, 7000) * decay(_STRUCK, 220)
        return place(n, [(0, string(frequency_hz, n)), (0, pick)]) * attack(n, 0.002, 0.03)

    return note


def _trumpet(draw: Draw) -> Note:
    focus = draw.log(1300, 1800)

    def note(frequency_hz: float, n: int) -> Signal:
        cycles = phase(frequency_hz * (1 - 0.02 * decay(n, 40)), n)
        brass = [1 / (1 + ((k * frequency_hz - focus) / 1100) ** 2) for k in range(1, 40)]
        blow = 1 - decay(n, 30)
        loud = harmonics(cycles, brass, frequency_hz) * blow**2
        return (loud + 0.3 * harmonics(cycles, [1, 0.6], frequency_hz) * blow) * attack(n, 0.01, 0.04)

    return note


def _marimba(draw: Draw) -> Note:
    rate, strike = draw.uniform(11, 15), draw.uniform(0.4, 0.6)

    def note(frequency_hz: float, n: int) -> Signal:
        bar = tone(frequency_hz, n) * decay(n, rate)
        overtone = strike * tone(min(frequency_hz * 3.93, 7000), n) * decay(n, 40)
        return bar + overtone + 0.2 * noise(draw.rng, n) * decay(n, 250)

    return note


def _harp(draw: Draw) -> Note:
    string = _plucked([1, 0.7, 0.5, 0.3, 0.2, 0.1], [1, 0.3, 0.06], 8, draw.uniform(1.6, 2.4))
    roll = int(draw.uniform(0.035, 0.05) * SAMPLE_RATE_HZ)

    def note(frequency_hz: float, n: int) -> Signal:
        # A rolled chord: what tells a harp from other plucked strings.
        tones = [(i * roll, string(frequency_hz * ratio, n)) for i, ratio in enumerate((1, 1.2599, 1.4983))]
        return place(n, tones) * attack(n, 0.004, 0.06)

    return note


_INSTRUMENTS: dict[str, tuple[Callable[[Draw], Note], float]] = {
    "piano": (_piano, 0.45),
    "organ": (_organ, 0.0),
    "flute": (_flute, 0.0),
    "violin": (_violin, 0.0),
    "guitar": (_guitar, 0.3),
    "trumpet": (_trumpet, 0.0),
    "marimba": (_marimba, 0.25),
    "harp": (_harp, 0.9),
}
"""Maker of notes, and for how many seconds a note rings on into the next ones."""


def phrase_duration(tempo: str, draw: Draw) -> float:
    """A length in seconds (0.9 to 2.4) that holds whole notes at the split's tempi."""
    low, high = _COUNTS[tempo]
    notes = int(draw.rng.integers(low, high + 1))
    return notes / draw.uniform(*_NOTES_PER_SECOND[tempo])


def notes_in(count: int, tempo: str) -> int:
    """Notes of a phrase of `count` samples: at least two, at the tempo nearest to the middle of its range."""
    low, high = _NOTES_PER_SECOND[tempo]
    return max(2, round(count / SAMPLE_RATE_HZ * (low + high) / 2))


def tune(pitch: str, notes: int, chords: bool, draw: Draw) -> list[tuple[float, ...]]:
    """The frequencies in Hz of each note or chord of a phrase within one register."""
    root = draw.log(*_ROOTS_HZ[pitch])
    rng = draw.rng
    if chords:
        steps = [_TRIADS[int(rng.integers(len(_TRIADS)))] for _ in range(notes)]
    else:
        scale = _SCALES[int(rng.integers(len(_SCALES)))]
        steps = [(scale[int(rng.integers(len(scale)))],) for _ in range(notes)]
    return [tuple(root * 2 ** (step / 12) for step in chord) for chord in steps]


def place_notes(count: int, tones: list[tuple[float, ...]], ring_s: float, note: Note) -> Signal:
    """Plays notes evenly over `count` samples, each ringing `ring_s` seconds into the next ones."""
    beat = count / len(tones)
    length = int(beat * 0.92 + ring_s * SAMPLE_RATE_HZ)
    played = {frequency: note(frequency, length) for chord in tones for frequency in chord}
    return place(count, [(int(i * beat), played[tone]) for i, chord in enumerate(tones) for tone in chord])


def phrase(instrument: str, pitch: str, tempo: str, count: int, draw: Draw, note: Note | None = None) -> Signal:
    """A phrase of exactly `count` samples at the reference level.

    Args:
        instrument: one of `vocabulary.INSTRUMENTS`.
        pitch: low, middle or high.
        tempo: slow or fast.
        count: length in samples at 16 kHz.
        draw: parameters of the event.
        note: maker of notes to use instead of the synthesis.

    Returns:
        Signal [S].
    """
    make, ring_s = _INSTRUMENTS[instrument]
    chords = instrument in _CHORDAL and draw.rng.random() < 0.4
    tones = tune(pitch, notes_in(count, tempo), chords, draw)
    return level(place_notes(count, tones, ring_s, note or make(draw)))
