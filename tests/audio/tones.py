"""Signals made by hand for the tests of this folder."""

import io

import numpy as np
import soundfile

from earnest.audio import Clip


def tone(duration_s=1.0, rate_hz=16000, frequency_hz=440.0, amplitude=0.5):
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return Clip((amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32), rate_hz, "tone")


def file_bytes(samples, rate_hz, container="WAV", subtype=None, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=container, subtype=subtype, **options)
    return buffer.getvalue()


def strongest_hz(clip):
    spectrum = np.abs(np.fft.rfft(clip.samples * np.hanning(clip.samples.size)))
    return np.argmax(spectrum) * clip.sample_rate_hz / clip.samples.size
