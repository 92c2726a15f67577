"""Log-mel features with one fixed scale."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earnest.fused.configuration import SAMPLE_RATE_HZ, MelConfig

__all__ = ["MelConfig", "log_mel"]


@lru_cache(maxsize=8)
def _filters(config: MelConfig) -> Tensor:
    """Triangular filters on the HTK mel scale, [n_fft // 2 + 1, M], peak 1.

    Each bin takes the triangle's mean over its width: at 31 Hz a bin, the lowest triangles would otherwise
    fall between two bins and stay empty.
    """
    per_bin = 32
    bins = config.n_fft // 2 + 1
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (config.low_hz, config.high_hz))
    edges_hz = 700.0 * (10.0 ** (np.linspace(low, high, config.n_mels + 2) / 2595.0) - 1.0)
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
