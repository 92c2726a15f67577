"""Voices: enough of them, none in two splits, words at one level, lengths that tell the take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from earnest.errors import AudioError
from earnest.world.synthesis import REFERENCE_RMS, SAMPLE_RATE_HZ, SPLITS
from earnest.world.vocabulary import SPEAKERS, SPOKEN
from earnest.world.voices import (
    TAKES,
    VOICES,
    cast_of,
    speech,
    speech_duration,
    utterance_spans,
    voices_of,
    word_clip,
)

MAN, WOMAN = voices_of("test", "man")[0].name, voices_of("test", "woman")[0].name


def test_there_are_enough_voices_and_none_speaks_in_two_splits():
    assert len({voice.name for voice in VOICES}) == len(VOICES) >= 20
    for split, least in zip(SPLITS, (12, 4, 4), strict=True):
        men, women = (voices_of(split, gender) for gender in SPEAKERS)
        assert min(len(men), len(women)) >= least // 2
        assert cast_of(split) == {"man": [v.name for v in men], "woman": [v.name for v in women]}
    timbres = {split: {v.espeak.partition("+")[2] for v in VOICES if v.split == split} for split in SPLITS}
    assert not timbres["train"] & timbres["validation"] | timbres["train"] & timbres["test"]
    assert not timbres["validation"] & timbres["test"]


@pytest.mark.parametrize("voice", (MAN, WOMAN))
def test_every_word_is_spoken_at_the_reference_level(voice: str):
    for word in SPOKEN:
        for take in range(len(TAKES)):
            clip = word_clip(voice, word, take)
            assert clip.dtype == np.int16
            assert 0.08 <= len(clip) / SAMPLE_RATE_HZ <= 1.3, (word, take, len(clip))
            rms = np.sqrt(np.mean(np.square(clip / 32767)))
            assert 0.6 * REFERENCE_RMS < rms < 1.02 * REFERENCE_RMS, (word, take, rms)


def test_a_woman_speaks_higher_than_a_man():
    def fundamental_hz(voice: str) -> float:
        found = []
        for word in ("seven", "mountain", "yellow", "money"):
            signal = word_clip(voice, word, 0).astype(float)
            middle = signal[len(signal) // 3 : len(signal) // 3 + 1600] * np.hanning(1600)
            lags = np.fft.irfft(np.abs(np.fft.rfft(middle, 4096)) ** 2)
            found.append(SAMPLE_RATE_HZ / (40 + np.argmax(lags[40:260])))
        return float(np.median(found))

    assert fundamental_hz(MAN) < 120 < fundamental_hz(WOMAN)


def test_a_length_tells_its_take_and_fills_it_exactly():
    text = "how do i wash the lamp"
    for take in range(len(TAKES)):
        count = round(speech_duration(WOMAN, text, take) * SAMPLE_RATE_HZ)
        for off in (-16, 0, 16):
            assert speech(WOMAN, text, count + off).shape == (count + off,)
            spans = utterance_spans(WOMAN, text, count + off)
            assert [word for word, _, _ in spans] == text.split()
            lengths = [end - start for _, start, end in spans[:-1]]
            assert lengths == [len(word_clip(WOMAN, word, take)) for word in text.split()[:-1]]
        pauses = [b[1] - a[2] for a, b in itertools.pairwise(spans)]
        assert all(0.06 <= pause / SAMPLE_RATE_HZ <= 0.14 for pause in pauses)


def test_words_stand_where_the_spans_say():
    count = round(speech_duration(MAN, "red river", 0) * SAMPLE_RATE_HZ)
    signal = speech(MAN, "red river", count)
    (_, start, end), (_, start_2, end_2) = utterance_spans(MAN, "red river", count)
    assert start == 0 and end_2 == count
    assert np.array_equal(signal[end:start_2], np.zeros(start_2 - end))
    assert np.array_equal(np.rint(signal[start:end] * 32767), word_clip(MAN, "red", 0))


def test_faults_are_named():
    with pytest.raises(AudioError, match=r"unknown voice 'bob'; known: man01"):
        speech("bob", "red", 8000)
    with pytest.raises(AudioError, match=r"do not know the word 'xylophone'"):
        speech(MAN, "xylophone", 8000)
    with pytest.raises(AudioError, match=r"'red' takes .* s with the voice .*, but the event lasts 3\.000 s"):
        speech(MAN, "red", 48_000)
