"""72 voices, each in one split only, and the words that they say.

Every word of the vocabulary is spoken in three takes by espeak-ng, once per process and voice (0.3 s), and
utterances are words joined with pauses of 60 to 140 ms. A take is told by its length: whoever plans a
scene asks for a length, whoever renders it finds the take that has it, and nothing else need be stored.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from earnest.audio import EspeakSpeaker
from earnest.errors import AudioError
from earnest.world.synthesis import SAMPLE_RATE_HZ, Signal, level, place
from earnest.world.vocabulary import SPEAKERS, SPOKEN

Stored: TypeAlias = npt.NDArray[np.int16]
"""A word in the bank [S]: half the memory of float32."""


@dataclass(frozen=True)
class Voice:
    """A voice of the world.

    Attributes:
        name: what events and manifests call it.
        espeak: the name of its language and variant in espeak-ng.
        rate_wpm: words per minute of its middle take.
        pitch: espeak's pitch (0 to 99) of its middle take.
        gender: man or woman.
        split: the only split in which it speaks.
    """

    name: str
    espeak: str
    rate_wpm: int
    pitch: int
    gender: str
    split: str


_MEN: tuple[tuple[str, int, int], ...] = (
    ("en-us", 160, 48),
    ("en-us+m1", 170, 52),
    ("en-gb-x-rp+m2", 155, 50),
    ("en-029+m3", 165, 45),
    ("en-gb-scotland+boris", 160, 50),
    ("en-us+m7", 165, 46),
    ("en-gb-scotland+m8", 160, 56),
    ("en-us-nyc+Andy", 170, 50),
    ("en-gb-x-gbclan+Denis", 160, 56),
    ("en-us+norbert", 155, 47),
    ("en-gb-x-rp+max", 165, 54),
    ("en-029+Mike", 160, 52),
    ("en-us+victor", 165, 58),
    ("en-gb-scotland+pedro", 150, 50),
    ("en-us+ed", 165, 50),
    ("en-029+m1", 155, 60),
    ("en-us+m4", 160, 50),
    ("en-gb-x-rp+robert", 165, 48),
    ("en-us+m6", 160, 50),
    ("en-gb-scotland+m5", 165, 48),
    ("en-029+Alex", 160, 50),
)
_WOMEN: tuple[tuple[str, int, int], ...] = (
    ("en-us+f1", 160, 52),
    ("en-us+f2", 165, 46),
    ("en-029+f3", 160, 50),
    ("en-us+grandma", 165, 50),
    ("en-gb-scotland+Alicia", 165, 48),
    ("en-us+belinda", 160, 50),
    ("en-us-nyc+shelby", 165, 56),
    ("en-us+Andrea", 150, 46),
    ("en-gb-scotland+f1", 170, 58),
    ("en-gb-x-gbclan+f3", 155, 44),
    ("en-gb-x-rp+f2", 165, 54),
    ("en-029+steph", 155, 46),
    ("en-us+Alicia", 160, 44),
    ("en-gb-x-rp+belinda", 170, 48),
    ("en-gb-x-rp+grandma", 160, 46),
    ("en-029+f1", 165, 46),
    ("en-us+f5", 160, 50),
    ("en-gb-x-rp+aunty", 165, 54),
    ("en-us+f4", 160, 52),
    ("en-gb-scotland+linda", 165, 48),
    ("en-029+Annie", 160, 50),
)
_MORE_MEN: tuple[tuple[str, int, int], ...] = (
    ("en-us+Gene", 160, 50),
    ("en-gb-x-rp+Jacky", 165, 50),
    ("en-029+Lee", 155, 52),
    ("en-gb-scotland+Marco", 160, 44),
    ("en-us-nyc+Mario", 165, 50),
    ("en-us+Reed", 160, 50),
    ("en-gb-x-gbclan+antonio", 155, 50),
    ("en-029+david", 165, 52),
    ("en-gb-x-rp+grandpa", 160, 50),
    ("en-us+gustave", 170, 50),
    ("en-gb-scotland+iven", 160, 54),
    ("en-us+kaukovalta", 155, 50),
    ("en-gb-x-rp+miguel", 165, 46),
    ("en-029+paul", 160, 54),
    ("en-us-nyc+quincy", 165, 52),
    ("en-gb-scotland+travis", 160, 50),
)
_MORE_WOMEN: tuple[tuple[str, int, int], ...] = (
    ("en-us+anika", 160, 46),
    ("en-gb-x-rp+anika", 165, 40),
    ("en-gb-scotland+Andrea", 160, 50),
    ("en-029+aunty", 165, 50),
    ("en-gb-x-gbclan+Alicia", 155, 46),
    ("en-us-nyc+f4", 165, 56),
    ("en-gb-x-rp+f3", 160, 46),
    ("en-029+belinda", 155, 44),
    ("en-gb-x-rp+Annie", 165, 50),
    ("en-us+f3", 170, 48),
    ("en-gb-scotland+belinda", 160, 54),
    ("en-029+shelby", 160, 50),
    ("en-us-nyc+aunty", 155, 56),
    ("en-gb-x-gbclan+f1", 165, 52),
)
_HELD_OUT: tuple[tuple[str, int], ...] = (("test", 3), ("validation", 2))


def _splits(espeaks: Sequence[str], gender: str) -> dict[str, str]:
    """The split of each timbre (the variant behind the plus sign): dealt out by a seed, not by how it sounds."""
    timbres = sorted({_timbre(espeak) for espeak in espeaks})
    random.Random(f"earnest voices {gender}").shuffle(timbres)
    held_out = [split for split, count in _HELD_OUT for _ in range(count)]
    return dict(zip(timbres, [*held_out, *["train"] * (len(timbres) - len(held_out))], strict=True))


def _timbre(espeak: str) -> str:
    return espeak.rpartition("+")[2]


def _voices(gender: str, rows: tuple[tuple[str, int, int], ...], more: tuple[tuple[str, int, int], ...]) -> list[Voice]:
    """Of `rows` some timbres are held out; `more` are for training alone."""
    splits = _splits([espeak for espeak, _, _ in rows], gender)
    return [
        Voice(f"{gender}{i:02d}", espeak, rate_wpm, pitch, gender, splits.get(_timbre(espeak), "train"))
        for i, (espeak, rate_wpm, pitch) in enumerate([*rows, *more], 1)
    ]


VOICES: tuple[Voice, ...] = (*_voices("man", _MEN, _MORE_MEN), *_voices("woman", _WOMEN, _MORE_WOMEN))
_BY_NAME: dict[str, Voice] = {voice.name: voice for voice in VOICES}

TAKES: tuple[tuple[float, int, float], ...] = ((1.0, 0, 1.0), (0.88, -8, 1.05), (1.12, 8, 0.95))
"""Of each take: factor of the rate, shift of the pitch, and how much the sound is stretched as on a tape (which
moves the resonances too, as a longer or a shorter throat would)."""
TOLERANCE_S = 0.02
"""How far an event's length may be from that of its utterance."""

_SILENT = 0.004
_PARTING_S = 0.2
_QUIET = 0.02
_MARGIN = int(0.008 * SAMPLE_RATE_HZ)
_PAUSE_S = (0.06, 0.14)


def voices_of(split: str, gender: str) -> tuple[Voice, ...]:
    """The voices of one gender in one split."""
    return tuple(voice for voice in VOICES if voice.split == split and voice.gender == gender)


def cast_of(split: str) -> dict[str, Sequence[str]]:
    """The names of a split's voices per gender: what a planner chooses from."""
    return {gender: [voice.name for voice in voices_of(split, gender)] for gender in SPEAKERS}


@cache
def _bank(voice_name: str) -> dict[str, tuple[Stored, ...]]:
    """All words of one voice in all takes."""
    voice = _BY_NAME[voice_name]
    takes: list[list[Stored]] = []
    for rate_factor, pitch_shift, stretch in TAKES:
        rate_wpm, pitch = round(voice.rate_wpm * rate_factor), voice.pitch + pitch_shift
        # One reading of the whole vocabulary, a paragraph a word: a speaker takes longer to start than to say a word.
        reading = EspeakSpeaker().say("\n\n".join(SPOKEN), voice.espeak, rate_wpm, pitch)
        words = _parted(reading.resampled(round(SAMPLE_RATE_HZ * stretch)).samples)
        assert len(words) == len(SPOKEN), f"{voice}: {len(words)} words heard in {len(SPOKEN)}"
        takes.append([(level(_trimmed(word)) * 32767).astype(np.int16) for word in words])
    return dict(zip(SPOKEN, zip(*takes, strict=True), strict=True))


def _parted(samples: Signal) -> list[Signal]:
    """What lies between the pauses of a reading: they last 0.33 s and more, silences in words 0.09 s at most."""
    heard = np.flatnonzero(np.abs(samples) > _SILENT)
    breaks = np.flatnonzero(np.diff(heard) > _PARTING_S * SAMPLE_RATE_HZ)
    starts = [heard[0], *heard[breaks + 1]]
    ends = [*heard[breaks], heard[-1]]
    return [samples[start : end + 1] for start, end in zip(starts, ends, strict=True)]


def _trimmed(samples: Signal) -> Signal:
    """Without the silence at both ends, but for 8 ms."""
    heard = np.flatnonzero(np.abs(samples) > _QUIET * np.abs(samples).max())
    return samples[max(0, heard[0] - _MARGIN) : heard[-1] + 1 + _MARGIN]


def word_clip(voice_name: str, word: str, take: int) -> Stored:
    """One word in one take, int16 [S] at 16 kHz, RMS 0.1 of full scale.

    Raises:
        AudioError: the voice or the word is not in the world.
    """
    if voice_name not in _BY_NAME:
        raise AudioError(f"unknown voice {voice_name!r}; known: {', '.join(_BY_NAME)}")
    bank = _bank(voice_name)
    if word not in bank:
        raise AudioError(f"the voices do not know the word {word!r}; they say the {len(SPOKEN)} words of SPOKEN")
    return bank[word][take]


def _layout(voice_name: str, text: str, take: int) -> list[tuple[str, int, int]]:
    """Words of an utterance with first sample and end, the pauses chosen by what is said."""
    spans: list[tuple[str, int, int]] = []
    cursor = 0
    for i, word in enumerate(text.split()):
        if i:
            chance = zlib.crc32(f"{voice_name}/{text}/{take}/{i}".encode()) / 2**32
            cursor += round((_PAUSE_S[0] + (_PAUSE_S[1] - _PAUSE_S[0]) * chance) * SAMPLE_RATE_HZ)
        end = cursor + len(word_clip(voice_name, word, take))
        spans.append((word, cursor, end))
        cursor = end
    return spans


def speech_duration(voice_name: str, text: str, take: int) -> float:
    """Length of an utterance in seconds."""
    return _layout(voice_name, text, take)[-1][2] / SAMPLE_RATE_HZ


def _take_of(voice_name: str, text: str, count: int) -> tuple[int, list[tuple[str, int, int]]]:
    layouts = [_layout(voice_name, text, take) for take in range(len(TAKES))]
    off = [abs(layout[-1][2] - count) for layout in layouts]
    take = int(np.argmin(off))
    if off[take] > TOLERANCE_S * SAMPLE_RATE_HZ:
        lengths = ", ".join(f"{layout[-1][2] / SAMPLE_RATE_HZ:.3f}" for layout in layouts)
        raise AudioError(
            f"{text!r} takes {lengths} s with the voice {voice_name}, but the event lasts"
            f" {count / SAMPLE_RATE_HZ:.3f} s; plan scenes to be rendered with mixing.measure"
        )
    return take, layouts[take]


def utterance_spans(voice_name: str, text: str, count: int) -> list[tuple[str, int, int]]:
    """Where each word of an utterance of `count` samples lies: (word, first sample, end)."""
    return [(word, start, min(end, count)) for word, start, end in _take_of(voice_name, text, count)[1]]


def speech(voice_name: str, text: str, count: int) -> Signal:
    """An utterance of exactly `count` samples whose words have the reference level.

    Args:
        voice_name: name of a voice.
        text: words of `vocabulary.SPOKEN`, separated by blanks.
        count: length in samples; that of one of the takes, within 20 ms.

    Returns:
        Signal [S].

    Raises:
        AudioError: no take of the utterance has this length, or the voice or a word is unknown.
    """
    take, spans = _take_of(voice_name, text, count)
    scale = np.float32(1 / 32767)
    return place(count, [(start, word_clip(voice_name, word, take) * scale) for word, start, _ in spans])
