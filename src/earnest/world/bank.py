"""The user's own one-shot samples: a world that sounds real, with the same exact timeline.

    DIR/sound/dog/*.wav          one sound each
    DIR/music/piano/*.wav        one note each
    DIR/speech/man/water/*.wav   one word each, by men and by women

A note in a file's name (C4, f#3, Bb2) is its pitch, else the pitch is estimated. Names that have no folder
are synthesised. Where a name has at least three files, the splits share them out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from earnest.audio import Clip
from earnest.errors import AudioError
from earnest.world.synthesis import SAMPLE_RATE_HZ, SPLITS, Draw, Signal, level, place
from earnest.world.vocabulary import INSTRUMENTS, SOUNDS, SPEAKERS, SPOKEN

_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_NAMES: dict[str, tuple[str, ...]] = {
    "sound": SOUNDS,
    "music": INSTRUMENTS,
    **{f"speech/{speaker}": SPOKEN for speaker in SPEAKERS},
}
_NOTE_NAME = re.compile(r"(?<![A-Za-z])([A-Ga-g])([#sb]?)(-?\d)(?!\d)")
_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_QUIET = 0.01
_PITCH_RANGE_HZ = (50, 2000)


@dataclass(frozen=True, eq=False)
class Sample:
    """One file at 16 kHz, without the silence at its ends.

    Attributes:
        path: where it came from.
        signal: samples [S].
        pitch_hz: fundamental of a note; 0 for sounds and words.
    """

    path: Path
    signal: Signal
    pitch_hz: float = 0.0


@dataclass(frozen=True, eq=False)
class SampleBank:
    """The samples of a folder.

    Attributes:
        samples: per kind (sound, music, speech/man, speech/woman) and name.
    """

    samples: dict[tuple[str, str], tuple[Sample, ...]]

    @staticmethod
    def load(folder: str | Path) -> SampleBank:
        """Reads a folder of samples.

        Raises:
            AudioError: no such folder, nothing in it, a name outside the vocabulary, or a file that is silent
                or unreadable.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise AudioError(f"--bank {folder}: no such folder; it should hold sound/dog/*.wav and the like")
        _refuse_unknown(folder)
        samples: dict[tuple[str, str], tuple[Sample, ...]] = {}
        faults: list[str] = []
        for kind in _NAMES:
            for place_of_name in _folders(folder / kind):
                read: list[Sample] = []
                for path in sorted(p for p in place_of_name.iterdir() if p.suffix.lower() in _SUFFIXES):
                    try:
                        read.append(_read(path, kind))
                    except AudioError as error:
                        faults.append(str(error))
                if read:
                    samples[kind, place_of_name.name] = tuple(read)
        if faults:
            raise AudioError(f"--bank {folder}: {len(faults)} file(s) cannot be used\n  " + "\n  ".join(faults))
        if not samples:
            raise AudioError(f"--bank {folder}: no sample in it; put files ({', '.join(_SUFFIXES)}) at sound/dog/")
        return SampleBank(samples)

    def covers(self, kind: str, name: str) -> bool:
        """Whether there is a sample of this name."""
        return (kind, name) in self.samples

    def covers_speech(self, speaker: str, text: str) -> bool:
        """Whether every word of a text is there, said by a man or by a woman."""
        return all(self.covers(f"speech/{speaker}", word) for word in text.split())

    def names(self) -> list[str]:
        """What is covered, as kind/name."""
        return sorted(f"{kind}/{name}" for kind, name in self.samples)

    @cached_property
    def key(self) -> str:
        """Content hash of names, notes and samples."""
        digest = hashlib.sha256()
        for (kind, name), samples in sorted(self.samples.items()):
            for sample in samples:
                digest.update(f"{kind}/{name}/{sample.pitch_hz:.3f}/{len(sample.signal)}".encode())
                digest.update(sample.signal.tobytes())
        return digest.hexdigest()[:32]

    def _of_split(self, kind: str, name: str, split: str) -> Sequence[Sample]:
        samples = self.samples[kind, name]
        return samples if len(samples) < len(SPLITS) else samples[SPLITS.index(split) :: len(SPLITS)]

    def _pick(self, kind: str, name: str, draw: Draw, split: str) -> Sample:
        samples = self._of_split(kind, name, split)
        return samples[int(draw.rng.integers(len(samples)))]

    def sound(self, name: str, count: int, draw: Draw, split: str) -> Signal:
        """A sample cut to `count` samples, or repeated until it fills them."""
        signal = self._pick("sound", name, draw, split).signal
        return place(count, [(start, signal) for start in range(0, count, len(signal))])

    def note(self, name: str, split: str) -> Callable[[float, int], Signal]:
        """A maker of notes: the sample nearest in pitch, resampled to the frequency asked for."""
        samples = self._of_split("music", name, split)

        def play(frequency_hz: float, count: int) -> Signal:
            nearest = min(samples, key=lambda sample: abs(np.log(sample.pitch_hz / frequency_hz)))
            positions = np.arange(count) * (frequency_hz / nearest.pitch_hz)
            ends = np.arange(len(nearest.signal))
            return level(np.interp(positions, ends, nearest.signal, right=0.0).astype(np.float32))

        return play

    def speech(self, speaker: str, spans: Sequence[tuple[str, int, int]], count: int, draw: Draw, split: str) -> Signal:
        """Words put at their spans (word, first sample, end); one that is too long for it is hurried."""
        words: list[tuple[int, Signal]] = []
        for word, start, end in spans:
            signal = self._pick(f"speech/{speaker}", word, draw, split).signal
            if len(signal) > end - start:
                positions = np.linspace(0, len(signal) - 1, end - start)
                signal = np.interp(positions, np.arange(len(signal)), signal).astype(np.float32)
            words.append((start, level(signal)))
        return place(count, words)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _refuse_unknown(folder: Path) -> None:
    """Raises AudioError with all names at once that the world does not know."""
    faults: list[str] = []
    kinds = sorted({kind.split("/")[0] for kind in _NAMES})
    faults += [f"{path.name}/ (known: {', '.join(kinds)})" for path in _folders(folder) if path.name not in kinds]
    speech = _folders(folder / "speech")
    faults += [f"speech/{path.name}/ (known: {', '.join(SPEAKERS)})" for path in speech if path.name not in SPEAKERS]
    for kind, known in _NAMES.items():
        unknown = [path.name for path in _folders(folder / kind) if path.name not in known]
        if unknown:
            faults.append(f"{kind}/: {', '.join(unknown)} (known: {', '.join(known)})")
    if faults:
        raise AudioError(f"--bank {folder}: folders that the world has no name for\n  " + "\n  ".join(faults))


def _read(path: Path, kind: str) -> Sample:
    samples = Clip.load(path).resampled(SAMPLE_RATE_HZ).samples
    peak = float(np.abs(samples).max())
    if peak == 0:
        raise AudioError(f"{path}: digital silence; remove the file or record it again")
    heard = np.flatnonzero(np.abs(samples) > _QUIET * peak)
    signal = samples[heard[0] : heard[-1] + 1]
    return Sample(path, signal, _pitch_hz(path, signal) if kind == "music" else 0.0)


def _pitch_hz(path: Path, signal: Signal) -> float:
    """The pitch in the file's name (A4 is 440 Hz), else the strongest period of the autocorrelation."""
    named = _NOTE_NAME.search(path.stem)
    if named:
        letter, accidental, octave = named.groups()
        shift = {"#": 1, "s": 1, "b": -1, "": 0}[accidental]
        return 440 * 2 ** ((_SEMITONES[letter.lower()] + shift - 9) / 12 + int(octave) - 4)
    part = signal[: SAMPLE_RATE_HZ // 2]
    power = np.abs(np.fft.rfft(part, 2 * len(part))) ** 2
    lags = np.fft.irfft(power)[: len(part)]
    shortest, longest = (SAMPLE_RATE_HZ // hz for hz in reversed(_PITCH_RANGE_HZ))
    if len(lags) <= longest:
        raise AudioError(
            f"{path}: {len(signal) / SAMPLE_RATE_HZ:.3f} s are too short to find the note's pitch; "
            "put it into the name, such as piano_A4.wav"
        )
    return SAMPLE_RATE_HZ / float(shortest + np.argmax(lags[shortest : longest + 1]))
