"""Renders a scene: every event in its place, with its level and distance, over the scene's noise.

The audio depends on the scene alone (its events and its seed) and, where given, on the user's samples.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import scipy.signal

from earnest.audio import Clip
from earnest.errors import AudioError
from earnest.world.bank import SampleBank
from earnest.world.music import phrase, phrase_duration
from earnest.world.sounds import sound, sound_duration
from earnest.world.synthesis import REFERENCE_RMS, SAMPLE_RATE_HZ, SPLITS, Draw, Signal, level, noise
from earnest.world.timeline import Event, Scene
from earnest.world.voices import TAKES, speech, speech_duration, utterance_spans

FAR_LOSS_DB = 10.0
"""Attenuation at distance 1."""
_NEAR_HZ, _FAR_HZ = 7000.0, 1500.0
_PEAK_LIMIT = 0.99
_SETTLING = 1600
_PINK = (
    [0.049922035, -0.095993537, 0.050612699, -0.004408786],
    [1.0, -2.494956002, 2.017265875, -0.522189400],
)
"""Filter from white to pink noise (J. O. Smith, Spectral Audio Signal Processing): numerator, denominator."""
_BROWN = ([1.0], [1.0, -0.98])
WordSpan: TypeAlias = tuple[str, float, float]
"""A word, and where it starts and ends in the clip, in seconds."""


def event_duration(
    kind: str,
    name: str,
    rng: np.random.Generator,
    *,
    split: str,
    tempo: str | None = None,
    voice: str | None = None,
) -> float:
    """Draws the length that an event will have, before it is placed.

    Args:
        kind: sound, music or speech.
        name: class, instrument or text.
        rng: source of randomness.
        split: train, validation or test.
        tempo: music only: slow or fast.
        voice: speech only: name of the voice.

    Returns:
        Seconds: 0.3 to 2 for sounds, 0.9 to 2.4 for music; that of one of the takes for speech.

    Raises:
        AudioError: a phrase without tempo, or speech without a voice.
    """
    if kind == "sound":
        length_s = sound_duration(name, Draw(rng, split))
    elif kind == "music":
        length_s = phrase_duration(_given(tempo, "tempo", name), Draw(rng, split))
    else:
        length_s = speech_duration(_given(voice, "voice", name), name, int(rng.integers(len(TAKES))))
    return round(length_s * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ


def measure(split: str, rng: random.Random) -> Callable[[Event], float]:
    """The lengths of a split's events, for a planner (`scenes.Measure`)."""
    source = np.random.default_rng(rng.getrandbits(64))

    def length_s(event: Event) -> float:
        return event_duration(event.kind, event.name, source, split=split, tempo=event.tempo, voice=event.voice)

    return length_s


def _given(value: str | None, what: str, name: str) -> str:
    if value is None:
        raise AudioError(f"the event {name!r} has no {what}: a scene that is rendered needs one for each of its kind")
    return value


def event_samples(event: Event) -> tuple[int, int]:
    """First sample and end of an event in the clip."""
    return round(event.start_s * SAMPLE_RATE_HZ), round(event.end_s * SAMPLE_RATE_HZ)


def event_level_db(event: Event) -> float:
    """Level of an event at the listener, relative to the reference."""
    return event.gain_db - FAR_LOSS_DB * event.distance


def word_spans(event: Event) -> list[WordSpan]:
    """Where each word of a speech event lies in the clip.

    Raises:
        AudioError: the event has no voice, or a length that its text does not have.
    """
    start, end = event_samples(event)
    spans = utterance_spans(_given(event.voice, "voice", event.name), event.name, end - start)
    return [(w, (start + a) / SAMPLE_RATE_HZ, (start + b) / SAMPLE_RATE_HZ) for w, a, b in spans]


def render(scene: Scene, bank: SampleBank | None = None) -> Clip:
    """The audio of a scene: mono, 16 kHz, peaks below 1.

    Args:
        scene: the timeline; its `seed` decides every free parameter of its sounds and its noise.
        bank: the user's own samples, used instead of the synthesis for the names they cover.

    Raises:
        AudioError: an event lies outside the scene, or lacks what its rendering needs.
    """
    count = round(scene.duration_s * SAMPLE_RATE_HZ)
    mix = np.zeros(count, dtype=np.float32)
    # One stream per event and one for the noise: adding noise changes no event.
    seed = (scene.seed, SPLITS.index(scene.split))
    for i, event in enumerate(scene.events):
        start, end = event_samples(event)
        if not 0 <= start < end <= count:
            raise AudioError(
                f"scene {scene.id}: {event.name!r} at {event.start_s:.3f}-{event.end_s:.3f} s lies outside"
                f" its {scene.duration_s:.3f} s"
            )
        draw = Draw(np.random.default_rng((*seed, i)), scene.split)
        mix[start:end] += _at_distance(_source(event, end - start, draw, scene.split, bank), event)
    if scene.snr_db is not None and scene.noise is not None:
        rng = np.random.default_rng((*seed, len(scene.events)))
        mix += background(scene.noise, count, rng) * np.float32(REFERENCE_RMS * 10 ** (-scene.snr_db / 20))
    peak = float(np.abs(mix).max())
    if peak > _PEAK_LIMIT:
        mix *= np.float32(_PEAK_LIMIT / peak)
    mix.flags.writeable = False  # so that the clip shares it
    return Clip(mix, SAMPLE_RATE_HZ, source=scene.id)


def _source(event: Event, count: int, draw: Draw, split: str, bank: SampleBank | None) -> Signal:
    """An event as it sounds near by, at the reference level."""
    name = event.name
    if event.kind == "sound":
        if bank is not None and bank.covers("sound", name):
            return level(bank.sound(name, count, draw, split))
        return sound(name, count, draw)
    if event.kind == "music":
        note = bank.note(name, split) if bank is not None and bank.covers("music", name) else None
        pitch, tempo = _given(event.pitch, "pitch", name), _given(event.tempo, "tempo", name)
        return phrase(name, pitch, tempo, count, draw, note)
    voice = _given(event.voice, "voice", name)
    speaker = _given(event.speaker, "speaker", name)
    if bank is not None and bank.covers_speech(speaker, name):
        return bank.speech(speaker, utterance_spans(voice, name, count), count, draw, split)
    return speech(voice, name, count)


def _at_distance(signal: Signal, event: Event) -> Signal:
    """Quieter, and duller through a one-pole low-pass from 7 kHz (near) down to 1.5 kHz (far)."""
    gain = np.float32(10 ** (event_level_db(event) / 20))
    if event.distance == 0:
        return signal * gain
    cutoff_hz = _NEAR_HZ * (_FAR_HZ / _NEAR_HZ) ** event.distance
    kept = np.exp(-2 * np.pi * cutoff_hz / SAMPLE_RATE_HZ)
    coefficients = np.asarray([1 - kept], np.float32), np.asarray([1, -kept], np.float32)
    return np.asarray(scipy.signal.lfilter(*coefficients, signal), dtype=np.float32) * gain


def background(colour: str, count: int, rng: np.random.Generator) -> Signal:
    """Noise [S] of RMS 1.

    Args:
        colour: white, pink or brown.
        count: length in samples.
        rng: source of randomness.

    Raises:
        AudioError: the colour is unknown.
    """
    filters = {"white": None, "pink": _PINK, "brown": _BROWN}
    if colour not in filters:
        raise AudioError(f"unknown noise {colour!r}; known: {', '.join(filters)}")
    coefficients = filters[colour]
    if coefficients is None:
        return noise(rng, count)
    numerator, denominator = (np.asarray(part, np.float32) for part in coefficients)
    # The filter starts from rest: its first tenth of a second is not yet as loud as the rest.
    hiss = scipy.signal.lfilter(numerator, denominator, noise(rng, count + _SETTLING))[_SETTLING:]
    return np.asarray(hiss / np.sqrt(np.mean(np.square(hiss))), dtype=np.float32)
