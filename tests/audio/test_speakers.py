import ctypes
import os
import shutil
import subprocess
import sys
import time
from _ctypes import dlclose
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from earnest.audio import Clip, EspeakSpeaker, Speaker, speakers
from earnest.errors import AudioError

TEXT = "The dog barked twice, then a door slammed."
# Voices with breath, roughness, the other synthesiser and another language: each keeps a state of its own.
VOICES = ("en-us", "en-us+f3", "en-us+whisper", "en-us+croak", "en-us+klatt4", "de")


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return EspeakSpeaker()


@pytest.mark.parametrize("voice", VOICES)
def test_a_repeated_text_gives_the_same_audio_whatever_was_said_before(speaker, voice):
    first = speaker.say(TEXT, voice)
    for other in VOICES:
        speaker.say(f"something else by {other}", other, rate_wpm=250, pitch=80)
        assert speaker.say(TEXT, voice) == first


def test_another_process_says_the_same(speaker):
    code = f"from earnest.audio import EspeakSpeaker; print(EspeakSpeaker().say({TEXT!r}, 'en-us+whisper').key)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == speaker.say(TEXT, "en-us+whisper").key


def test_threads_do_not_mix_their_utterances(speaker):
    expected = [speaker.say(TEXT, voice) for voice in VOICES]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda voice: speaker.say(TEXT, voice), VOICES * 3)) == expected * 3


def test_speech_is_at_least_50_times_as_fast_as_real_time(speaker):
    speaker.say(TEXT)  # the first call also reads the list of voices
    start_s = time.process_time()
    spoken_s = sum(speaker.say(f"Sentence number {i}. {TEXT}").duration_s for i in range(10))
    assert spoken_s / (time.process_time() - start_s) >= 50


def test_voice_rate_and_pitch_change_what_is_heard(speaker):
    clip = speaker.say(TEXT)
    assert clip.sample_rate_hz == 22050
    assert 2 < clip.duration_s < 3.5
    assert 0.02 < clip.rms < 0.3
    assert clip.source == f"espeak en-us: {TEXT}"
    assert speaker.say(TEXT, rate_wpm=300).duration_s < 0.75 * clip.duration_s
    low, high = (speaker.say("Oh no, no, no more.", pitch=pitch) for pitch in (20, 80))
    assert fundamental_hz(high) > 1.4 * fundamental_hz(low)
    assert len({speaker.say(TEXT, voice).key for voice in VOICES}) == len(VOICES)


def fundamental_hz(clip: Clip) -> float:
    """Median over the louder frames of 46 ms, by autocorrelation within 50 to 350 Hz."""
    frames = clip.samples[: clip.samples.size // 1024 * 1024].reshape(-1, 1024)
    powers = np.mean(frames**2, axis=1)
    lags = range(clip.sample_rate_hz // 350, clip.sample_rate_hz // 50)
    found = []
    for frame in frames[powers > np.median(powers)]:
        correlation = [np.dot(frame[:-lag], frame[lag:]) / (1024 - lag) for lag in lags]
        found.append(clip.sample_rate_hz / lags[int(np.argmax(correlation))])
    return float(np.median(found))


def test_voices_are_listed(speaker):
    assert {"en-us", "en-gb", "en", "de", "cmn"} <= set(speaker.voices)
    assert {"f3", "whisper", "croak"} <= set(EspeakSpeaker().timbres)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voice": "en-uk"}, r"unknown voice: 'en-uk'; did you mean .*known are af, .*en-us"),
        ({"voice": ""}, "unknown voice: ''"),
        ({"voice": "en-us+f99"}, r"unknown timbre of voice 'en-us\+f99'.*known are .*f1"),
        ({"voice": "en-us+"}, "unknown timbre"),
        ({"rate_wpm": 40}, "rate_wpm is 40, allowed are 80 to 450"),
        ({"pitch": 101}, "pitch is 101, allowed are 0 to 100"),
        ({"text": ""}, "no letter or digit"),
        ({"text": " ..."}, "no letter or digit"),
        ({"text": "a\x01b"}, "control characters"),
    ],
)
def test_what_cannot_be_said(speaker, arguments, message):
    with pytest.raises(AudioError, match=message):
        speaker.say(**{"text": TEXT, **arguments})


def test_markup_and_long_texts_are_spoken_whole(speaker):
    assert speaker.say("<b>dog</b>").duration_s > speaker.say("dog").duration_s
    once, many = speaker.say(TEXT).duration_s, speaker.say(" ".join([TEXT] * 40)).duration_s
    assert 40 * once <= many < 1.2 * 40 * once  # sentences are set apart by pauses


@pytest.fixture
def far_data(tmp_path, monkeypatch):
    """espeak-ng's data in a folder whose path is longer than the library's buffer."""
    real = Path(espeakng_loader.get_data_path())
    far = tmp_path / ("d" * 100) / ("e" * 100) / "espeak-ng-data"
    for name in ("lang", "voices"):
        shutil.copytree(real / name, far / name)
    for name in ("phondata", "phonindex", "phontab", "intonations", "en_dict"):
        shutil.copy(real / name, far)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(far))
    return far


def test_data_at_a_path_beyond_160_bytes(speaker, far_data, tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(speakers, "_folder", lambda: tmp_path / "t")
    first = speaker.say(TEXT)
    assert (tmp_path / "t" / "espeak-ng-data").resolve() == far_data.resolve()
    monkeypatch.undo()
    assert speaker.say(TEXT) == first


def test_a_temporary_folder_beyond_160_bytes_is_named(speaker, far_data, monkeypatch):
    monkeypatch.setattr(speakers, "_folder", lambda: far_data.parent)
    with pytest.raises(AudioError, match="has at most 159; set TMPDIR"):
        speaker.say(TEXT)


def test_another_user_of_the_library_in_this_process_stays_apart(speaker, tmp_path, monkeypatch):
    expected = speaker.say(TEXT)
    monkeypatch.setattr(speakers, "_folder", lambda: tmp_path)
    other = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        other.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0x8000)
        other.espeak_SetVoiceByName(b"de")
        assert speaker.say(TEXT) == speaker.say(TEXT) == expected
        assert other.espeak_SetVoiceByName(b"en-us") == 0
        other.espeak_Terminate()
    finally:
        dlclose(other._handle)
    assert [path.name for path in tmp_path.iterdir()] == ["libespeak-ng.so"]


def test_its_folder_is_made_only_where_needed_and_gone_when_the_process_ends(tmp_path):
    speak = "from earnest.audio import EspeakSpeaker, speakers; EspeakSpeaker().say('dog'); "
    for code, count in ((speak, "0"), (speak + "speakers._folder(); ", "1")):
        code += f"import os; print(len(os.listdir({str(tmp_path)!r})))"
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == count
        assert not list(tmp_path.iterdir())
