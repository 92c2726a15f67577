"""The same request said otherwise: faster, higher, in noise, by another voice, behind harmless words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from earnest.audio import Clip, EspeakSpeaker
from earnest.audio.edits import add_noise, pitch, speed, splice, stretch
from earnest.example import Example

OTHER_VOICES = ("en-us+whisper", "en-gb-scotland+m8")
SPLICING_VOICE = "en-us+f2"

Edit = Callable[[Example], Clip]


def edits(spliced: str, seed: int) -> dict[str, Edit]:
    """Name to what it makes of a spoken request's clip.

    Args:
        spliced: harmless words that are said before the request.
        seed: of the noise.
    """
    found: dict[str, Edit] = {
        "as it is": lambda example: example.clip,
        "tape x 0.8": lambda example: speed(example.clip, 0.8),
        "tape x 1.25": lambda example: speed(example.clip, 1.25),
        "stretched x 1.25": lambda example: stretch(example.clip, 1.25),
        "pitch -3": lambda example: pitch(example.clip, -3),
        "pitch +3": lambda example: pitch(example.clip, 3),
        "noise 10 dB": lambda example: add_noise(example.clip, 10, seed=seed),
        "noise 0 dB": lambda example: add_noise(example.clip, 0, seed=seed),
    }
    for voice in OTHER_VOICES:
        found[f"voice {voice}"] = lambda example, voice=voice: said(example.question, voice, example.clip)
    if spliced:
        found["behind harmless words"] = lambda example: splice(
            example.clip, said(spliced, SPLICING_VOICE, example.clip), 0.0
        )
    return found


def said(text: str, voice: str, like: Clip) -> Clip:
    """Words by another voice, at the rate of a clip."""
    return _said(text, voice).resampled(like.sample_rate_hz)


@cache
def _said(text: str, voice: str) -> Clip:
    return EspeakSpeaker().say(text, voice)
