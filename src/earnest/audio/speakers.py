"""Voices: text to speech in process, by espeak-ng out of the `espeakng-loader` wheel (no system package)."""

from __future__ import annotations

import ctypes
import difflib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earnest.audio.clip import Clip
from earnest.errors import AudioError

RATE_LIMITS_WPM = (80, 450)
PITCH_LIMITS = (0, 100)

# Values of espeak-ng's public header, speak_lib.h.
_SYNCHRONOUS_OUTPUT = 2
_DO_NOT_EXIT = 0x8000
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_CHARACTERS_UTF8 = 1
# espeak-ng 1.52 keeps the path of its data in a buffer of 160 bytes, the closing zero included.
_DATA_PATH_LIMIT_BYTES = 159

_WaveCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_one_at_a_time = threading.Lock()


class Speaker(Protocol):
    """Whatever turns text into a clip. The same arguments give the same samples, whatever was said before."""

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that `say` takes as its voice."""
        ...

    def say(self, text: str, voice: str = "en-us", rate_wpm: int = 170, pitch: int = 50) -> Clip:
        """Speak `text`."""
        ...


class EspeakSpeaker:
    """espeak-ng, in process, at 22.05 kHz.

    A voice is a language such as `en-us`, `de` or `cmn`, optionally with a timbre: `en-us+f3`, `de+whisper`.

    The library keeps more between two utterances than its own re-initialisation clears (the phase of the
    pitch flutter, the automatic gain, the cycle counter), so a repeated text comes out slightly different,
    in its length too. Here every utterance gets a newly loaded library and seeded noise, and is therefore a
    function of its arguments alone. That costs about 4 ms. Other packages of the process that use espeak-ng
    are neither disturbed nor do they disturb.
    """

    @property
    def voices(self) -> tuple[str, ...]:
        """Language names, sorted; each also takes `+TIMBRE` with one of `timbres`."""
        return tuple(_voice_files())

    @property
    def timbres(self) -> tuple[str, ...]:
        """Names that may follow a voice's name after `+`, sorted."""
        return _timbres()

    def say(self, text: str, voice: str = "en-us", rate_wpm: int = 170, pitch: int = 50) -> Clip:
        """Speak `text`.

        Args:
            text: what to say; markup is spoken, not obeyed.
            voice: a name of `voices`, optionally `+` a name of `timbres`.
            rate_wpm: words per minute, 80 to 450.
            pitch: 0 (low) to 100 (high), 50 is the voice's own.

        Raises:
            AudioError: an unknown voice, a number out of range, a text with nothing to say.
        """
        voice_file = self._voice_file(voice)
        _check_range("rate_wpm", rate_wpm, RATE_LIMITS_WPM)
        _check_range("pitch", pitch, PITCH_LIMITS)
        if not any(character.isalnum() for character in text):
            raise AudioError(f"text {text!r} holds no letter or digit to say; give at least one word")
        if any(ord(character) < 32 and not character.isspace() for character in text):
            raise AudioError(f"text {text!r} holds control characters, which espeak-ng obeys; remove them")
        pcm = _synthesise(text, voice_file, rate_wpm, pitch)
        return Clip(pcm.astype(np.float32) / np.float32(32768), _native_rate_hz(), source=f"espeak {voice}: {text}")

    def _voice_file(self, voice: str) -> str:
        """What espeak-ng loads directly; it would otherwise ignore an unknown timbre in silence."""
        language, plus, timbre = voice.partition("+")
        files = _voice_files()
        if language not in files:
            raise AudioError(_unknown("voice", language, tuple(files)))
        if plus and timbre not in _timbres():
            raise AudioError(_unknown(f"timbre of voice {voice!r}", timbre, _timbres()))
        return files[language] + plus + timbre


def _check_range(name: str, value: int, limits: tuple[int, int]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise AudioError(f"{name} is {value}, allowed are {limits[0]} to {limits[1]}; choose one within")


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {what}: {name!r}; {hint}known are {', '.join(known)}"


# ---- the library


class _VoiceRecord(ctypes.Structure):
    """`espeak_VOICE` of speak_lib.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),  # repeated: one byte of priority, a zero-ended name; then a zero byte
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@contextmanager
def _library() -> Generator[tuple[ctypes.CDLL, int]]:
    """espeak-ng in the state it has when a process starts, and its sample rate in Hz."""
    if sys.platform == "win32":
        raise AudioError("speaking needs Linux or macOS, this is Windows; speak there, carry the clips over")
    from _ctypes import dlclose  # the only way to a fresh state: see EspeakSpeaker

    with _one_at_a_time:
        library_path, data_path = _library_path(), _data_path()
        library = ctypes.CDLL(str(library_path))
        try:
            rate_hz = library.espeak_Initialize(_SYNCHRONOUS_OUTPUT, 0, os.fsencode(data_path), _DO_NOT_EXIT)
            if rate_hz <= 0:
                raise AudioError(
                    f"espeak-ng does not start with the data of {data_path.resolve()} (code {rate_hz}); "
                    "install espeakng-loader again"
                )
            yield library, rate_hz
            library.espeak_Terminate()
        finally:
            dlclose(library._handle)


def _library_path() -> Path:
    """The wheel's library, or a copy while another package of this process has that one loaded."""
    import espeakng_loader

    path = Path(espeakng_loader.get_library_path())
    if not _is_loaded(path):
        return path
    copy = _folder() / path.name
    if not copy.exists():
        shutil.copyfile(path, copy)
    return copy


def _is_loaded(path: Path) -> bool:
    from _ctypes import dlclose, dlopen

    try:
        handle = dlopen(str(path), os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return False
    dlclose(handle)
    return True


def _data_path() -> Path:
    """The wheel's data, or a link to it where its own path is too long for espeak-ng."""
    import espeakng_loader

    path = Path(espeakng_loader.get_data_path())
    if len(os.fsencode(path)) <= _DATA_PATH_LIMIT_BYTES:
        return path
    link = _folder() / path.name
    if len(os.fsencode(link)) > _DATA_PATH_LIMIT_BYTES:
        raise AudioError(
            f"{path} and {link} have {len(os.fsencode(path))} and {len(os.fsencode(link))} bytes, a path of "
            f"espeak-ng's data has at most {_DATA_PATH_LIMIT_BYTES}; set TMPDIR to a shorter folder"
        )
    if not link.exists():
        link.symlink_to(path.resolve(), target_is_directory=True)
    return link


@cache
def _folder() -> Path:
    """A folder of this process, removed when it ends. Made only where it is needed."""
    import multiprocessing.util

    folder = Path(tempfile.mkdtemp(prefix="espeak-"))
    # Unlike atexit this also runs in worker processes, and never in a fork on behalf of its parent.
    multiprocessing.util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=0)
    return folder


def _synthesise(text: str, voice_file: str, rate_wpm: int, pitch: int) -> NDArray[np.int16]:
    """int16 samples [S] at espeak-ng's own rate."""
    pieces: list[bytes] = []

    def keep(samples: int | None, sample_count: int, _events: int | None) -> int:
        if samples and sample_count > 0:
            pieces.append(ctypes.string_at(samples, 2 * sample_count))
        return 0

    callback = _WaveCallback(keep)
    encoded = text.encode()
    with _library() as (library, _):
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)  # breath and whisper take their noise from the C library
        codes = (
            library.espeak_SetVoiceByName(voice_file.encode()),
            library.espeak_SetParameter(_PARAMETER_RATE, rate_wpm, 0),
            library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0),
            library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _CHARACTERS_UTF8, None, None),
            library.espeak_Synchronize(),
        )
    if any(codes):
        raise AudioError(f"espeak-ng failed on {text!r} with voice {voice_file} (codes {codes})")
    if not pieces:
        raise AudioError(f"voice {voice_file} says nothing for {text!r}; use words of its language")
    return np.frombuffer(b"".join(pieces), dtype=np.int16)


@cache
def _native_rate_hz() -> int:
    with _library() as (_, rate_hz):
        return rate_hz


@cache
def _voice_files() -> dict[str, str]:
    """Language name -> voice file, sorted; of two voices that claim a name the better priority has it."""
    claims: dict[str, tuple[int, str]] = {}
    with _library() as (library, _):
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
        for record in library.espeak_ListVoices(None):
            if not record:
                break
            file = record.contents.identifier.decode()
            for priority, name in _languages(record.contents.languages):
                claims[name] = min(claims.get(name, (priority, file)), (priority, file))
    return {name: claims[name][1] for name in sorted(claims)}


def _languages(address: int) -> Iterator[tuple[int, str]]:
    while priority := ctypes.string_at(address, 1)[0]:
        name = ctypes.string_at(address + 1)
        yield priority, name.decode()
        address += len(name) + 2


@cache
def _timbres() -> tuple[str, ...]:
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    return tuple(sorted(path.name for path in folder.iterdir()))
