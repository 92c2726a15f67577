"""An immutable piece of mono sound.

Legend: S = samples. All seconds are counted from the clip's own start, unless a name says otherwise.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from earnest.audio.completeness import refuse_incomplete
from earnest.errors import AudioError
from earnest.files import write_atomic

_FULL_SCALE_16_BIT = 32768


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """Mono samples, their rate, and where they came from. Two clips are equal when their `key`s are.

    A writable array is copied, a read-only one is shared: whoever holds a clip may rely on it for ever.

    Args:
        samples: [S] floating point, full scale is -1..1 (more is allowed: noise at -20 dB needs it).
        sample_rate_hz: samples per second.
        source: where the clip came from, for people: a path, an utterance, an edit. Not part of the key.
        offset_s: where this clip starts in the recording it was cropped from. Not part of the key.

    Raises:
        AudioError: samples that are not floating point, not [S], empty or not finite; a rate below 1 Hz.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int
    source: str = ""
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the samples and lock them."""
        label = self.source or "clip"
        samples = np.asarray(self.samples)
        if not np.issubdtype(samples.dtype, np.floating):
            raise AudioError(
                f"{label}: samples are {samples.dtype}, expected floating point in -1..1; "
                "divide 16-bit samples by 32768"
            )
        if samples.ndim != 1:
            raise AudioError(f"{label}: samples have shape {samples.shape}, expected [S]; average the channels to mono")
        if samples.size == 0:
            raise AudioError(f"{label}: holds 0 samples, at least 1 is needed; is the file empty or cut off?")
        if self.sample_rate_hz < 1:
            raise AudioError(
                f"{label}: the sample rate is {self.sample_rate_hz} Hz, at least 1 is needed; 16000 is usual"
            )
        finite = np.isfinite(samples)
        if not finite.all():
            first = int(np.argmin(finite))
            raise AudioError(
                f"{label}: {int(samples.size - finite.sum())} of {samples.size} samples are NaN or infinite, "
                f"the first at {first / self.sample_rate_hz:.3f} s; repair or leave out this clip"
            )
        if samples.flags.writeable or samples.dtype != np.float32 or not samples.flags.c_contiguous:
            samples = np.array(samples, dtype=np.float32, order="C")
            samples.flags.writeable = False
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "sample_rate_hz", int(self.sample_rate_hz))

    # ---- in

    @classmethod
    def load(cls, path: str | Path) -> Clip:
        """Decode a WAV, FLAC, OGG or MP3 file at its own rate; several channels are averaged to mono.

        Raises:
            AudioError: a missing or unreadable file, one that is cut off (as far as its header tells, see
                `completeness`), empty or not finite.
        """
        path = Path(path)
        try:
            if not path.is_file():
                kind = "is a folder" if path.is_dir() else "does not exist"
                raise AudioError(f"{path}: {kind}, expected an audio file; check the path")
            data = path.read_bytes()
        except OSError as error:
            raise AudioError(f"{str(path)[:120]}: cannot be read ({error.strerror}); check path and rights") from error
        return cls.from_bytes(data, source=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "") -> Clip:
        """Decode the bytes of an audio file; see `load`."""
        import soundfile

        label = source or "audio bytes"
        if not data:
            raise AudioError(f"{label}: holds 0 bytes, expected an audio file; was it written completely?")
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                container, sample_rate_hz, declared = str(file.format), int(file.samplerate), int(file.frames)
                channels = cast(NDArray[np.float32], file.read(dtype="float32", always_2d=True))  # [S, channels]
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{label}: cannot be decoded ({error.error_string.strip()}); WAV, FLAC, OGG and MP3 are "
                "read, convert others, for example with ffmpeg -i FILE out.wav"
            ) from error
        refuse_incomplete(data, container, declared, len(channels), label)
        mono = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1, dtype=np.float32)
        return cls(mono, sample_rate_hz, source)

    @classmethod
    def silence(cls, duration_s: float, sample_rate_hz: int = 16000) -> Clip:
        """Digital silence of a length in seconds (rounded to the nearest sample, at least one)."""
        sample_count = round(duration_s * sample_rate_hz) if math.isfinite(duration_s) else 0
        if sample_count < 1:
            raise AudioError(
                f"silence of {duration_s} s at {sample_rate_hz} Hz holds no sample; ask for a longer duration"
            )
        return cls(np.zeros(sample_count, np.float32), sample_rate_hz, source=f"silence {duration_s:g} s")

    # ---- what it is

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.sample_rate_hz

    @property
    def rms(self) -> float:
        """Root mean square of the samples, computed in float64."""
        return float(np.sqrt(np.mean(np.square(self.samples, dtype=np.float64))))

    @cached_property
    def key(self) -> str:
        """Content hash (128 bits as 32 hex digits) of the rate and the samples, the same on every machine."""
        digest = hashlib.sha256(self.sample_rate_hz.to_bytes(8, "little"))
        digest.update(self.samples.astype("<f4", copy=False).data)
        return digest.hexdigest()[:32]

    # ---- other clips made of it

    def crop(self, start_s: float, end_s: float) -> Clip:
        """The part from `start_s` to `end_s`, seconds of this clip; the result remembers its `offset_s`.

        Raises:
            AudioError: a crop that is empty, not finite or reaches outside the clip.
        """
        start, end = self.span(start_s, end_s)
        return Clip(self.samples[start:end], self.sample_rate_hz, self.source, self.offset_s + start_s)

    def span(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Sample indices [start, end) of an interval in seconds; half a sample outside is rounded away.

        Raises:
            AudioError: an interval that is empty, not finite or reaches outside the clip.
        """
        label, rate = self.source or "clip", self.sample_rate_hz
        tolerance_s = 0.5 / rate
        inside = -tolerance_s <= start_s and end_s <= self.duration_s + tolerance_s  # False for NaN as well
        if not inside:
            raise AudioError(
                f"{label}: {start_s} to {end_s} s reaches outside the clip of {self.duration_s:.3f} s; "
                f"keep it within 0 to {self.duration_s:.3f} s"
            )
        start, end = max(0, round(start_s * rate)), min(self.samples.size, round(end_s * rate))
        if end <= start:
            raise AudioError(
                f"{label}: {start_s} to {end_s} s holds no sample; the end must lie after the start "
                f"by at least {1 / rate:.6f} s"
            )
        return start, end

    def resampled(self, sample_rate_hz: int) -> Clip:
        """The same sound at another rate (soxr, HQ); this very object if the rate is the same.

        Raises:
            AudioError: a rate below 1 Hz, or so low that no sample is left.
        """
        if sample_rate_hz == self.sample_rate_hz:
            return self
        label = self.source or "clip"
        if sample_rate_hz < 1:
            raise AudioError(f"{label}: cannot be resampled to {sample_rate_hz} Hz, at least 1 is needed")
        import soxr

        samples = soxr.resample(self.samples, self.sample_rate_hz, sample_rate_hz, quality="HQ")
        if samples.size == 0:
            raise AudioError(
                f"{label}: its {self.samples.size} samples at {self.sample_rate_hz} Hz leave none at "
                f"{sample_rate_hz} Hz; use a longer clip or a higher rate"
            )
        return Clip(samples, sample_rate_hz, self.source, self.offset_s)

    # ---- out

    def wav_bytes(self) -> bytes:
        """A WAV file: 16-bit PCM, or 32-bit float where a sample exceeds full scale (PCM would clip it).

        A clip that came from 16-bit samples comes back bit by bit; others are rounded to 16 bits.
        """
        return self._encoded("WAV")

    def flac_bytes(self) -> bytes:
        """A FLAC file of 16 bits.

        Raises:
            AudioError: a sample exceeds full scale, which FLAC cannot hold.
        """
        peak = float(np.abs(self.samples).max())
        if peak > 1.0:
            raise AudioError(f"{self.source or 'clip'}: peak {peak:.3f}, FLAC holds at most 1; save it as .wav (float)")
        return self._encoded("FLAC")

    def save(self, path: str | Path) -> Path:
        """Write a `.wav` or `.flac` file, whole or not at all, and give its path back.

        Raises:
            AudioError: another suffix, or what `flac_bytes` raises.
        """
        path = Path(path)
        encoders = {".wav": self.wav_bytes, ".flac": self.flac_bytes}
        if path.suffix.lower() not in encoders:
            raise AudioError(f"{path}: cannot write {path.suffix!r}, known are {', '.join(encoders)}")
        write_atomic(path, encoders[path.suffix.lower()]())
        return path

    def kept_in(self, folder: Path) -> Path:
        """The file of this content in a folder: named by its key, and written unless it is there."""
        path = folder / f"{self.key}.wav"
        return path if path.exists() else self.save(path)

    def _encoded(self, container: str) -> bytes:
        import soundfile

        buffer = io.BytesIO()
        if np.abs(self.samples).max() > 1.0:
            soundfile.write(buffer, self.samples, self.sample_rate_hz, format=container, subtype="FLOAT")
        else:
            # soundfile itself scales by 32767 when writing and by 32768 when reading: not an identity.
            scaled = np.rint(self.samples * np.float32(_FULL_SCALE_16_BIT))
            pcm = np.clip(scaled, -_FULL_SCALE_16_BIT, _FULL_SCALE_16_BIT - 1).astype(np.int16)
            soundfile.write(buffer, pcm, self.sample_rate_hz, format=container, subtype="PCM_16")
        return buffer.getvalue()

    # ---- as a value

    def __eq__(self, other: object) -> bool:
        """Same rate and same samples."""
        return self.key == other.key if isinstance(other, Clip) else NotImplemented

    def __hash__(self) -> int:
        """Hash of the key."""
        return hash(self.key)

    def __repr__(self) -> str:
        """Source and length, not the samples."""
        offset = f", offset_s={self.offset_s:g}" if self.offset_s else ""
        return f"Clip({self.source!r}, {self.duration_s:.3f} s at {self.sample_rate_hz} Hz{offset})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickle through the constructor, because arrays come out of a pickle writable."""
        return Clip, (self.samples, self.sample_rate_hz, self.source, self.offset_s)
