"""Edits: pure functions from a clip to another clip, for audits that ask what a model does when its audio changes.

They are the audio interventions of the faithfulness study (Mousavi, Jain, Ravanelli, Subakan, Interspeech 2026,
arXiv 2509.22363 v3: noise, masking, guided masking, adversarial speech) and those it lacks (swap, speed, gain).

Where an edit draws at random, it draws from its `seed` *and* the clip's content: one seed serves a whole run, each
clip gets its own noise or mask, and leaving items out changes nothing for the others. Levels are exact in the
floats that come out; a 16-bit file may clip them (`Clip.wav_bytes` writes float where it would).

Legend: S = samples, K = chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from earnest.audio.clip import Clip
from earnest.errors import AudioError

QUIETEST_RMS = 1e-3


class Placement(Enum):
    """Where the chunks of a mask lie: the clip is cut into as many equal bins as there are chunks, one in each."""

    RANDOM = "random"
    """Each chunk at a seeded place of its bin."""
    CENTRED = "centred"
    """Each chunk in the middle of its bin, as in the study's published examples."""


# ---- level


def measured_snr_db(clean: Clip, edited: Clip) -> float:
    """What came out: the power of `clean` over the power of what was added to it, in dB, in float64.

    Infinite where nothing was added, and minus infinity where `clean` is silent.

    Raises:
        AudioError: the clips differ in rate or length.
    """
    _require_same_shape(clean, edited)
    added = edited.samples.astype(np.float64) - clean.samples
    added_rms = float(np.sqrt(np.mean(added**2)))
    if added_rms == 0:
        return math.inf
    return 20 * math.log10(clean.rms / added_rms) if clean.rms > 0 else -math.inf


def gain(clip: Clip, gain_db: float) -> Clip:
    """Louder or softer by `gain_db`."""
    if not math.isfinite(gain_db):
        raise AudioError(f"{_label(clip)}: a gain of {gain_db} dB is not a number; use `silence` to mute")
    return _edited(clip, clip.samples * np.float32(10 ** (gain_db / 20)), f"gain {gain_db:g} dB")


def add_noise(clip: Clip, snr_db: float, seed: int) -> Clip:
    """White Gaussian noise over the whole clip, scaled by its own measured power: the SNR is hit, not expected.

    Raises:
        AudioError: the clip is silent (it has no SNR), or `snr_db` is not finite.
    """
    noise = _generator(clip, seed).standard_normal(clip.samples.size)  # [S] float64
    noise *= _rms_for_snr(clip, snr_db) / np.sqrt(np.mean(noise**2))
    return _edited(clip, clip.samples + noise, f"white noise at {snr_db:g} dB SNR, seed {seed}")


def noise_alone(clip: Clip, seed: int) -> Clip:
    """White Gaussian noise as long and as loud as the clip, in its place; at 0.001 of full scale where it is silent."""
    noise = _generator(clip, seed).standard_normal(clip.samples.size)  # [S] float64
    noise *= max(clip.rms, QUIETEST_RMS) / np.sqrt(np.mean(noise**2))
    return _edited(clip, noise, f"replaced by white noise, seed {seed}")


# ---- masks


def mask(clip: Clip, ratio: float, seed: int, chunk_s: float = 1.0, placement: Placement = Placement.RANDOM) -> Clip:
    """Zero exactly `round(ratio * S)` samples, in chunks that are spread over the clip; the length stays.

    Raises:
        AudioError: `ratio` outside 0..1, or `chunk_s` below one sample.
    """
    samples = clip.samples.copy()
    for start, end in mask_spans(clip, ratio, seed, chunk_s, placement):
        samples[start:end] = 0
    return _edited(clip, samples, f"{ratio:.0%} masked, seed {seed}")


def mask_spans(
    clip: Clip, ratio: float, seed: int, chunk_s: float = 1.0, placement: Placement = Placement.RANDOM
) -> NDArray[np.int64]:
    """Where `mask` puts its zeros: [K, 2] sample indices [start, end), in order, not overlapping.

    The chunks are equal to within a sample and at most `chunk_s` long.
    """
    if not 0 <= ratio <= 1:
        raise AudioError(f"{_label(clip)}: the masked ratio is {ratio}, allowed are 0 to 1; 0.2 masks 20 %")
    chunk_samples = round(chunk_s * clip.sample_rate_hz) if math.isfinite(chunk_s) else 0
    if chunk_samples < 1:
        raise AudioError(
            f"{_label(clip)}: mask chunks of {chunk_s} s hold no sample, at least {1 / clip.sample_rate_hz:.6f} s "
            "are needed; 1 s is usual"
        )
    masked = round(ratio * clip.samples.size)
    kept = clip.samples.size - masked
    count = math.ceil(masked / chunk_samples)
    if count == 0:
        return np.zeros((0, 2), np.int64)
    index = np.arange(count)
    within_bin = _generator(clip, seed).random(count) if placement is Placement.RANDOM else np.full(count, 0.5)
    # Before chunk k lie k chunks and the kept samples of k bins and a part of its own: the starts rise, and
    # the lengths sum to `masked` whatever is drawn.
    edges = np.arange(count + 1) * masked // count  # [K+1]
    starts = edges[:-1] + np.floor((index + within_bin) / count * kept).astype(np.int64)
    return np.stack([starts, starts + np.diff(edges)], axis=1)


def mask_interval(clip: Clip, start_s: float, end_s: float, keep: bool = False) -> Clip:
    """Zero one interval, or with `keep` everything but it; see `mask_intervals`."""
    return mask_intervals(clip, [(start_s, end_s)], keep)


def mask_intervals(clip: Clip, intervals_s: Sequence[tuple[float, float]], keep: bool = False) -> Clip:
    """Guided masking: zero annotated intervals (say, the speech) or with `keep` their complement; the length stays.

    Args:
        clip: the clip.
        intervals_s: (start, end) in seconds of the clip; they may overlap.
        keep: True zeroes what lies outside the intervals.

    Raises:
        AudioError: no interval, or one that is empty or reaches outside the clip.
    """
    if not intervals_s:
        raise AudioError(f"{_label(clip)}: guided masking got 0 intervals, at least 1 is needed; annotate the clip")
    inside = np.zeros(clip.samples.size, dtype=bool)
    for start_s, end_s in intervals_s:
        start, end = clip.span(start_s, end_s)
        inside[start:end] = True
    spans = ", ".join(f"{start_s:g}-{end_s:g}" for start_s, end_s in intervals_s)
    samples = np.where(inside == keep, clip.samples, np.float32(0))
    return _edited(clip, samples, f"{'only' if keep else 'without'} {spans} s")


def silence(clip: Clip) -> Clip:
    """Digital silence of the clip's length."""
    return _edited(clip, np.zeros_like(clip.samples), "silenced")


# ---- other sound


def splice(clip: Clip, insert: Clip, at_s: float | None = None, *, seed: int = 0, snr_db: float | None = 0.0) -> Clip:
    """Cut the clip open and put `insert` in between: nothing is covered, the clip gets longer by the insert.

    Args:
        clip: the source.
        insert: what is put in; it is resampled to the source's rate.
        at_s: where, 0 to the clip's duration; None draws an interior point from `seed`.
        seed: for the drawn point.
        snr_db: power of the source over the insert's, each over its own length; None leaves the insert as it is.

    Raises:
        AudioError: a point outside the clip, or a level that cannot be set because one of the two is silent.
    """
    insert = _levelled(clip, insert, snr_db)
    if at_s is None:
        if clip.samples.size < 2:
            raise AudioError(f"{_label(clip)}: 1 sample has no interior point to splice at; use a longer clip")
        at = int(_generator(clip, seed).integers(1, clip.samples.size))
    elif 0 <= at_s <= clip.duration_s:
        at = round(at_s * clip.sample_rate_hz)
    else:
        raise AudioError(
            f"{_label(clip)}: cannot splice at {at_s} s; choose a point within 0 to {clip.duration_s:.3f} s"
        )
    samples = np.concatenate([clip.samples[:at], insert.samples, clip.samples[at:]])
    return _edited(clip, samples, f"{_label(insert)} spliced in at {at / clip.sample_rate_hz:.3f} s")


def overlay(clip: Clip, other: Clip, at_s: float | None = None, *, seed: int = 0, snr_db: float | None = 0.0) -> Clip:
    """Add `other` on top of the clip; the length stays.

    Args:
        clip: the source.
        other: what is added; it is resampled to the source's rate and must fit in whole.
        at_s: where it starts; None draws a start from `seed` at which it fits.
        seed: for the drawn start.
        snr_db: power of the source over the other's, each over its own length: 0 makes them equal; None adds
            the other as it is.

    Raises:
        AudioError: the other does not fit, or a level that cannot be set because one of the two is silent.
    """
    other = _levelled(clip, other, snr_db)
    room = clip.samples.size - other.samples.size
    if room < 0:
        raise AudioError(
            f"{_label(clip)}: {other.duration_s:.3f} s of {_label(other)} do not fit over {clip.duration_s:.3f} s; "
            "splice it, or crop it first"
        )
    if at_s is None:
        at = int(_generator(clip, seed).integers(0, room + 1))
    elif 0 <= at_s <= (room + 0.5) / clip.sample_rate_hz:
        at = min(round(at_s * clip.sample_rate_hz), room)
    else:
        raise AudioError(
            f"{_label(clip)}: {other.duration_s:.3f} s of {_label(other)} cannot start at {at_s} s; "
            f"start within 0 to {room / clip.sample_rate_hz:.3f} s, or splice it"
        )
    samples = clip.samples.copy()
    samples[at : at + other.samples.size] += other.samples
    return _edited(clip, samples, f"{_label(other)} over it at {at / clip.sample_rate_hz:.3f} s")


def swap(clips: Sequence[Clip], shift: int = 1) -> list[Clip]:
    """Give every item another item's clip: the one `shift` places on, or the next after it that sounds different.

    Several items often share a clip, so a mere rotation would leave some of them with their own audio.

    Raises:
        AudioError: all clips have the same content.
    """
    swapped: list[Clip] = []
    for item, clip in enumerate(clips):
        candidates = (clips[(item + shift + step) % len(clips)] for step in range(len(clips)))
        other = next((candidate for candidate in candidates if candidate != clip), None)
        if other is None:
            raise AudioError(
                f"all {len(clips)} clips to swap have the content of {_label(clip)}; at least 2 different are needed"
            )
        swapped.append(other)
    return swapped


# ---- time


def speed(clip: Clip, factor: float) -> Clip:
    """Play `factor` times as fast, like a tape: the pitch moves by the same factor, and the length by its inverse.

    Raises:
        AudioError: a factor that is not positive and finite, or so large that no sample is left.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise AudioError(f"{_label(clip)}: a speed of {factor} is impossible, it must be above 0; 1.25 is 25 % faster")
    import soxr

    samples = soxr.resample(clip.samples, clip.sample_rate_hz * factor, clip.sample_rate_hz, quality="HQ")
    return _edited(clip, samples, f"speed x {factor:g}")


def stretch(clip: Clip, factor: float) -> Clip:
    """Make it `factor` times as long at the same pitch, by WSOLA (Verhelst and Roelands, ICASSP 1993).

    Args:
        clip: the source, at least 0.1 s long.
        factor: 0.25 to 4.

    Raises:
        AudioError: a factor out of range, or a clip that is too short.
    """
    if not 0.25 <= factor <= 4:
        raise AudioError(f"{_label(clip)}: a stretch by {factor} is out of range, give 0.25 to 4")
    if clip.duration_s < 0.1:
        raise AudioError(f"{_label(clip)}: {clip.duration_s:.3f} s cannot be stretched, at least 0.1 s are needed")
    if factor == 1:
        return clip
    hop, reach = round(0.016 * clip.sample_rate_hz), round(0.01 * clip.sample_rate_hz)
    size = 2 * hop
    window = np.hanning(size + 1)[:-1]
    length = round(clip.samples.size * factor)
    frames = length // hop + 2
    source = np.pad(clip.samples.astype(np.float64), (hop + reach, size * 2 + reach))
    out = np.zeros((frames + 1) * hop)
    follows: NDArray[np.float64] | None = None
    for number in range(frames):
        nominal = min(round(number * hop / factor), clip.samples.size)
        at = nominal + reach
        if follows is not None:
            # Of the places around, the one that continues best what was laid down before.
            near = source[nominal : nominal + size + 2 * reach]
            at = nominal + int(np.correlate(near, follows, "valid").argmax())
        out[number * hop : number * hop + size] += source[at : at + size] * window
        follows = source[at + hop : at + hop + size]
        follows = np.pad(follows, (0, size - follows.size))
    return _edited(clip, out[hop : hop + length], f"stretched x {factor:g}")


def pitch(clip: Clip, semitones: float) -> Clip:
    """Move the pitch, resonances included, at the same length.

    Args:
        clip: the source.
        semitones: -12 to 12.

    Raises:
        AudioError: out of range, or a clip that is too short to be stretched.
    """
    if not -12 <= semitones <= 12:
        raise AudioError(f"{_label(clip)}: a shift by {semitones} semitones is out of range, give -12 to 12")
    factor = 2 ** (semitones / 12)
    moved = speed(stretch(clip, factor), factor).samples[: clip.samples.size]
    # Two roundings may lose a sample.
    moved = np.pad(moved, (0, clip.samples.size - moved.size))
    return _edited(clip, moved, f"pitch {semitones:+g} semitones")


# ---- shared


def _label(clip: Clip) -> str:
    return clip.source or "clip"


def _edited(clip: Clip, samples: NDArray[np.floating], what: str) -> Clip:
    return replace(clip, samples=samples.astype(np.float32), source=f"{_label(clip)} | {what}")


def _generator(clip: Clip, seed: int) -> np.random.Generator:
    if seed < 0:
        raise AudioError(f"{_label(clip)}: the seed is {seed}, it must be 0 or more")
    return np.random.default_rng([seed, int(clip.key, 16)])


def _rms_for_snr(clip: Clip, snr_db: float) -> float:
    """RMS of what is to be added so that the clip stands `snr_db` above it."""
    if not math.isfinite(snr_db):
        raise AudioError(f"{_label(clip)}: an SNR of {snr_db} dB is not a number; the study uses -20 to 20")
    if clip.rms == 0:
        raise AudioError(f"{_label(clip)}: is silent (RMS 0), so no SNR can be set; leave it out or set no SNR")
    return clip.rms / 10 ** (snr_db / 20)


def _levelled(clip: Clip, other: Clip, snr_db: float | None) -> Clip:
    """`other` at the clip's rate, and at its level where `snr_db` asks for one."""
    other = other.resampled(clip.sample_rate_hz)
    if snr_db is None:
        return other
    if other.rms == 0:
        raise AudioError(f"{_label(other)}: is silent (RMS 0) and cannot be brought to a level; give snr_db=None")
    scaled = other.samples * np.float64(_rms_for_snr(clip, snr_db) / other.rms)
    return replace(other, samples=scaled.astype(np.float32))


def _require_same_shape(clean: Clip, edited: Clip) -> None:
    if (clean.sample_rate_hz, clean.samples.size) != (edited.sample_rate_hz, edited.samples.size):
        raise AudioError(
            f"{_label(clean)} has {clean.samples.size} samples at {clean.sample_rate_hz} Hz, {_label(edited)} "
            f"{edited.samples.size} at {edited.sample_rate_hz} Hz; an SNR compares equal lengths and rates"
        )
