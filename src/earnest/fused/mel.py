"""Log-mel features with one fixed scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from earnest.fused.configuration import SAMPLE_RATE_HZ, MelConfig

__all__ = ["MelConfig", "hz_of", "log_mel", "mel_of"]

Number = TypeVar("Number", float, Tensor, NDArray[np.float64])


def mel_of(hz: Number, log10: Callable[[Number], Number] = np.log10) -> Number:
    """Place on the HTK mel scale of a frequency in Hz; tensors are given with `torch.log10`."""
    return 2595.0 * log10(1.0 + hz / 700.0)


def hz_of(mel: Number) -> Number:
    """Inverse of `mel_of`."""
    return cast(Number, 700.0 * (10.0 ** (mel / 2595.0) - 1.0))


@lru_cache(maxsize=8)
def _filters(config: MelConfig) -> Tensor:
    """Triangular filters on the HTK mel scale, [n_fft // 2 + 1, M], peak 1.

    Each bin takes the triangle's mean over its width: at 31 Hz a bin, the lowest triangles would otherwise
    fall between two bins and stay empty.
    """
    per_bin = 32
    bins = config.n_fft // 2 + 1
    edges_hz = hz_of(np.linspace(mel_of(config.low_hz), mel_of(config.high_hz), config.n_mels + 2))
    within = (np.arange(per_bin) + 0.5) / per_bin - 0.5
    grid_hz = (np.arange(bins)[:, None] + within)[:, :, None] * SAMPLE_RATE_HZ / config.n_fft  # [bins, 32, 1]
    rising = (grid_hz - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[2:] - grid_hz) / (edges_hz[2:] - edges_hz[1:-1])
    triangles = np.clip(np.minimum(rising, falling), 0.0, None).mean(axis=1)
    return torch.from_numpy(triangles.astype(np.float32))


@lru_cache(maxsize=8)
def _window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft, periodic=True)


def log_mel(samples: Tensor, config: MelConfig) -> Tensor:
    """Log-mel frames of audio at 16 kHz.

    Frame i is centred on sample `(i + 0.5) * hop`, with zeros beyond the ends; so zeros appended to a clip
    change none of its `config.frames(S)` frames.

    Args:
        samples: [B, S] or [S], float.
        config: the settings.

    Returns:
        [B, F, M] float32 with F = ceil(S / hop).
    """
    samples = samples.float().reshape(-1, samples.shape[-1])
    num_samples = samples.shape[1]
    frames = config.frames(num_samples)
    left = (config.n_fft - config.hop) // 2
    right = (frames - 1) * config.hop + config.n_fft - left - num_samples
    spectrum = torch.stft(
        functional.pad(samples, (left, right)),
        config.n_fft,
        config.hop,
        window=_window(config.n_fft).to(samples.device),
        center=False,
        return_complex=True,
    )  # [B, bins, F]
    power = spectrum.real.square() + spectrum.imag.square()
    mel = power.transpose(1, 2) @ _filters(config).to(samples.device)  # [B, F, M]
    return (torch.log(mel + config.floor) + config.shift) / config.scale
