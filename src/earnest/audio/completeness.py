"""Does a decoded file hold all that it says it holds? Decoders give the rest of a cut file in silence."""

from __future__ import annotations

from earnest.errors import AudioError

# A stream that was written through a pipe declares a size it could not know: all of these or more.
_UNKNOWN_RIFF_SIZE = 0x7FFF0000
_RIFF_SIZE_SLACK_BYTES = 8  # some writers count the header of eight bytes, some do not

_MP3_LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")
_MP3_EDGE_SAMPLES = 2 * 1152  # a decoder may leave out the first and the last frame

_MP3_KBPS_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_KBPS_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def refuse_incomplete(data: bytes, container: str, declared: int, decoded: int, label: str) -> None:
    """Refuse a file of which less was decoded than its header or its frames announce.

    Seen are: a WAV shorter than its RIFF size, samples missing against the header (FLAC, MP3), and an MP3
    of variable bit rate without a length header, where libsndfile stops at a wrong estimate. Not seen is
    an OGG that ends at a page.

    Args:
        data: the file.
        container: its format as libsndfile names it.
        declared: samples per channel by the header (MP3: or by estimate).
        decoded: samples per channel that came out.
        label: the file's name in the error.

    Raises:
        AudioError: the file is cut off, or its length cannot be trusted.
    """
    if container == "MP3" and not _has_mp3_length(data):
        held = mp3_sample_count(data)  # what libsndfile declares is then an estimate from the first bit rate
        missing = held - _MP3_EDGE_SAMPLES - decoded
    else:
        held = declared
        missing = held - decoded
    if missing > 0:
        raise AudioError(
            f"{label}: only {decoded} of {held} samples can be decoded, so it is cut off or lacks a length "
            "header; fetch it again or convert it, for example with ffmpeg -i FILE out.wav"
        )
    if data[:4] == b"RIFF":
        riff_size = int.from_bytes(data[4:8], "little")
        if len(data) + _RIFF_SIZE_SLACK_BYTES < riff_size + 8 and riff_size < _UNKNOWN_RIFF_SIZE:
            raise AudioError(
                f"{label}: is cut off, its header announces {riff_size + 8} bytes and it has {len(data)}; "
                "fetch it again"
            )


def mp3_sample_count(data: bytes) -> int:
    """Samples per channel of the layer III frames in an MP3 file, counted header by header.

    Counting ends at the first bytes that are no frame, for example a tag at the end.
    """
    position, samples = _after_id3(data), 0
    while position + 4 <= len(data):
        header = int.from_bytes(data[position : position + 4], "big")
        version, layer = header >> 19 & 3, header >> 17 & 3
        bitrate_index, rate_index, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
        is_frame = header >> 21 == 0x7FF and layer == 1 and version in _MP3_RATES_HZ
        if not is_frame or bitrate_index in (0, 15) or rate_index == 3:
            break
        kbps = (_MP3_KBPS_MPEG1 if version == 3 else _MP3_KBPS_MPEG2)[bitrate_index]
        samples_per_frame = 1152 if version == 3 else 576
        rate_hz = _MP3_RATES_HZ[version][rate_index]
        position += samples_per_frame // 8 * kbps * 1000 // rate_hz + padding
        samples += samples_per_frame
    return samples


def _has_mp3_length(data: bytes) -> bool:
    start = _after_id3(data)
    return any(tag in data[start : start + 200] for tag in _MP3_LENGTH_TAGS)


def _after_id3(data: bytes) -> int:
    """Where the frames begin: behind the ID3v2 tag, whose size is written in four bytes of seven bits."""
    if data[:3] != b"ID3":
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte
    return 10 + size
