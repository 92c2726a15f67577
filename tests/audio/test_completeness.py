import numpy as np
import pytest
from tones import file_bytes

from earnest.audio import Clip
from earnest.audio.completeness import mp3_sample_count
from earnest.errors import AudioError

NOISE = np.random.default_rng(0).normal(0, 0.1, 32000) * np.linspace(0, 1, 32000) ** 4


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3"])
def test_a_file_cut_in_half_is_refused(container):
    data = file_bytes(NOISE, 16000, container)
    assert Clip.from_bytes(data).samples.size == 32000
    with pytest.raises(AudioError, match=r"cut off|cannot be decoded"):
        Clip.from_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_written_through_a_pipe_declares_no_size_and_is_read(size):
    data = bytearray(file_bytes(NOISE, 16000))
    data[4:8] = size.to_bytes(4, "little")
    assert Clip.from_bytes(bytes(data)).samples.size == 32000


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
def test_an_mp3_without_a_length_header(mode, rate_hz):
    data = file_bytes(NOISE, rate_hz, "MP3", bitrate_mode=mode, compression_level=0.5)
    frames = mp3_sample_count(data)
    assert 32000 <= frames <= 32000 + 4 * 1152
    bare = next(data[i:] for i in range(1, len(data)) if frames * 0.9 < mp3_sample_count(data[i:]) < frames)
    assert Clip.from_bytes(bare).samples.size == mp3_sample_count(bare)
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257)
    assert mp3_sample_count(tag + bare) == mp3_sample_count(bare)


def test_an_mp3_whose_length_is_underestimated_is_refused():
    # Loud first, quiet later: the first frame's bit rate promises fewer samples than the file holds.
    data = file_bytes(NOISE[::-1], 44100, "MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    frames = mp3_sample_count(data)
    bare = next(data[i:] for i in range(1, len(data)) if frames * 0.9 < mp3_sample_count(data[i:]) < frames)
    with pytest.raises(AudioError, match="lacks a length header"):
        Clip.from_bytes(bare)
