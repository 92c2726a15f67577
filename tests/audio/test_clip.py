import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from tones import file_bytes, strongest_hz, tone

from earnest.audio import Clip
from earnest.errors import AudioError


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_stereo_files_of_every_format_become_mono_at_their_own_rate(tmp_path, container, rate_hz):
    left, right = tone(1.0, rate_hz, 440.0), tone(1.0, rate_hz, 440.0, amplitude=0.1)
    path = tmp_path / f"x.{container.lower()}"
    path.write_bytes(file_bytes(np.stack([left.samples, right.samples], axis=1), rate_hz, container))
    clip = Clip.load(path)
    assert clip.sample_rate_hz == rate_hz
    assert clip.samples.dtype == np.float32
    assert clip.samples.size == left.samples.size
    assert clip.rms == pytest.approx(0.3 / np.sqrt(2), rel=0.02)  # the average of 0.5 and 0.1
    assert strongest_hz(clip) == pytest.approx(440, abs=2)
    assert clip.source == str(path)


def test_mp3_of_44100_hz_stereo_resamples_to_16000_hz():
    stereo = np.stack([tone(2.0, 44100).samples] * 2, axis=1)
    clip = Clip.from_bytes(file_bytes(stereo, 44100, "MP3")).resampled(16000)
    assert clip.sample_rate_hz == 16000
    assert clip.duration_s == pytest.approx(2.0, abs=0.001)
    assert strongest_hz(clip) == pytest.approx(440, abs=2)


def test_samples_cannot_be_changed_and_a_writable_array_is_copied():
    array = np.zeros(10, np.float32)
    clip = Clip(array, 16000)
    array[0] = 1.0
    assert clip.samples[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        clip.samples[0] = 1.0
    with pytest.raises(FrozenInstanceError):
        clip.source = "x"  # type: ignore[misc]
    assert Clip(clip.samples, 16000).samples is clip.samples


def test_equality_and_key_are_by_rate_and_samples_only():
    clip = tone()
    assert clip == Clip(clip.samples, 16000, source="elsewhere", offset_s=3.0)
    assert hash(clip) == hash(Clip(clip.samples, 16000))
    assert clip != Clip(clip.samples, 8000)
    assert clip != Clip(clip.samples * np.float32(0.999), 16000)
    assert clip != "tone"
    assert len(clip.key) == 32
    # The key is written into run directories: it must never change.
    assert Clip(np.array([0.0, 0.5, -1.0], np.float32), 16000).key == "23249d31e1658c3a7e7dafcd54763ec8"


def test_pickle_keeps_everything_and_stays_read_only():
    clip = tone().crop(0.25, 0.5)
    again = pickle.loads(pickle.dumps(clip))
    assert again == clip
    assert (again.source, again.offset_s) == (clip.source, clip.offset_s)
    assert not again.samples.flags.writeable


def test_crop_remembers_where_it_starts_also_when_nested():
    clip = tone(2.0)
    crop = clip.crop(0.5, 1.5)
    assert crop.duration_s == 1.0
    assert crop.offset_s == 0.5
    assert np.array_equal(crop.samples, clip.samples[8000:24000])
    assert crop.crop(0.25, 0.5).offset_s == 0.75
    assert crop.resampled(8000).offset_s == 0.5
    assert clip.crop(0.0, 2.0) == clip
    assert clip.crop(1.0, 2.00003).duration_s == 1.0  # within half a sample of the end


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [
        (-0.1, 0.5, "reaches outside the clip of 1.000 s"),
        (0.5, 1.1, "keep it within 0 to 1.000 s"),
        (0.5, 0.5, "holds no sample"),
        (0.6, 0.5, "end must lie after the start"),
        (float("nan"), 0.5, "reaches outside"),
        (0.0, float("inf"), "reaches outside"),
    ],
)
def test_impossible_crops(start_s, end_s, message):
    with pytest.raises(AudioError, match=message):
        tone().crop(start_s, end_s)


def test_resampling_keeps_the_tone_and_returns_itself_at_its_own_rate():
    clip = tone(1.0, 44100)
    assert clip.resampled(44100) is clip
    down = clip.resampled(16000)
    assert down.samples.size == 16000
    expected = tone(1.0, 16000).samples
    assert np.abs(down.samples - expected)[500:-500].max() < 1e-3


@pytest.mark.parametrize("rate_hz", [0, -16000])
def test_resampling_to_an_impossible_rate(rate_hz):
    with pytest.raises(AudioError, match=f"to {rate_hz} Hz, at least 1"):
        tone().resampled(rate_hz)


def test_resampling_that_would_leave_no_sample():
    with pytest.raises(AudioError, match="leave none at 10 Hz"):
        Clip(np.ones(3, np.float32), 48000).resampled(10)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (np.zeros(0, np.float32), 16000, "0 samples"),
        (np.zeros((2, 5), np.float32), 16000, r"shape \(2, 5\)"),
        (np.zeros(5, np.int16), 16000, "divide 16-bit samples by 32768"),
        (np.zeros(5, np.float32), 0, "sample rate is 0 Hz"),
        (np.array([0, 0, np.nan, np.inf], np.float32), 2, "2 of 4 samples are NaN .* at 1.000 s"),
    ],
)
def test_samples_that_are_no_clip(samples, rate_hz, message):
    with pytest.raises(AudioError, match=message):
        Clip(samples, rate_hz)


def test_files_that_are_no_clip(tmp_path):
    with pytest.raises(AudioError, match=r"no\.wav: does not exist"):
        Clip.load(tmp_path / "no.wav")
    with pytest.raises(AudioError, match="is a folder"):
        Clip.load(tmp_path)
    for name, data, message in [
        ("empty.wav", b"", "0 bytes"),
        ("text.wav", b"this is no audio " * 50, "cannot be decoded .* ffmpeg"),
        ("header.wav", file_bytes(np.zeros(0, np.float32), 16000), "0 samples"),
        ("nan.wav", file_bytes(np.array([0.0, np.nan]), 16000, subtype="FLOAT"), "NaN"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AudioError, match=f"{name}.*{message}"):
            Clip.load(tmp_path / name)


def test_wav_of_16_bit_samples_comes_back_bit_by_bit():
    pcm = np.arange(-32768, 32768, 7, dtype=np.int16)
    clip = Clip.from_bytes(file_bytes(pcm, 16000))
    again = Clip.from_bytes(clip.wav_bytes())
    assert again == clip
    assert Clip.from_bytes(clip.flac_bytes()) == clip


def test_wav_beyond_full_scale_is_float_and_exact_and_flac_is_refused(tmp_path):
    loud = Clip(tone().samples * np.float32(20), 16000, "loud")
    assert Clip.from_bytes(loud.wav_bytes()) == loud
    with pytest.raises(AudioError, match=r"peak 10.000, FLAC holds at most 1"):
        loud.save(tmp_path / "loud.flac")


def test_save_by_suffix(tmp_path):
    clip = tone()
    assert Clip.load(clip.save(tmp_path / "a.wav")).samples.size == 16000
    assert (clip.save(tmp_path / "a.flac")).read_bytes()[:4] == b"fLaC"
    with pytest.raises(AudioError, match=r"'.ogg', known are .wav, .flac"):
        clip.save(tmp_path / "a.ogg")


def test_silence_and_rms():
    assert Clip.silence(1.5, 8000).samples.size == 12000
    assert Clip.silence(1.0).rms == 0.0
    assert tone(amplitude=0.5).rms == pytest.approx(0.5 / np.sqrt(2), rel=1e-6)
    for duration_s in (0.0, -1.0, float("nan")):
        with pytest.raises(AudioError, match="holds no sample"):
            Clip.silence(duration_s)


def test_importing_loads_nothing_heavy():
    heavy = ("torch", "transformers", "soundfile", "soxr", "scipy", "matplotlib", "espeakng_loader")
    code = f"import sys, earnest.audio; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
