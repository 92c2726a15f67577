"""From an encoder's hidden frames to fewer, wider ones.

The paper's adapter (arXiv 2603.09556) and pocket's small one are the same module with other numbers.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from earnest.fused.configuration import AdapterConfig
from earnest.fused.encoders import MaskedConv, ceil_div, frame_mask


class LayerMix(nn.Module):
    """A softmax-weighted sum of an encoder's kept layers; the weights start uniform."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform."""
        nn.init.zeros_(self.weights)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, F, L * C] -> [N, F, C]."""
        by_layer = hidden.unflatten(-1, (self.weights.numel(), -1))
        return torch.einsum("nflc,l->nfc", by_layer, self.weights.softmax(0).to(hidden.dtype))


class _ConvStage(nn.Module):
    """A convolution, GELU and a norm, strided; or a residual one, where the norm stands before the GELU."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, norm: str, residual: bool) -> None:
        super().__init__()
        self.conv = MaskedConv(width_in, width, kernel, stride)
        self.norm = nn.LayerNorm(width) if norm == "layer" else nn.Identity()
        self.stride_frames = stride
        self.residual = residual

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[N, F, C], [N] -> [N, F', C'], [N]; padding stays zero."""
        convolved = self.conv(frames)
        if self.residual:
            frames = frames + functional.gelu(self.norm(convolved))
        else:
            frames = self.norm(functional.gelu(convolved))
        lengths = ceil_div(lengths, self.stride_frames)
        return frames * frame_mask(lengths, frames.shape[1])[:, :, None], lengths


class Adapter(nn.Module):
    """[Linear], strided convolutions, residual convolutions, [Linear]; see `AdapterConfig`."""

    def __init__(self, config: AdapterConfig, width_in: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(width_in, config.input_width) if config.input_width else nn.Identity()
        width = config.input_width or width_in
        stages: list[_ConvStage] = []
        for out, kernel, stride in zip(config.widths, config.kernels, config.strides, strict=True):
            stages.append(_ConvStage(width, out, kernel, stride, config.norm, residual=False))
            width = out
        stages.extend(
            _ConvStage(width, width, kernel, 1, config.norm, residual=True) for kernel in config.residual_kernels
        )
        self.stages = nn.ModuleList(stages)
        self.linear_out = nn.Linear(width, config.output_width) if config.output_width else nn.Identity()

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Adapt.

        Args:
            frames: [N, F, C] of one encoder.
            lengths: [N] real frames.

        Returns:
            [N, ceil(F / stride), C'] and its real lengths [N].
        """
        # The first Linear's bias would leak from the padding into the convolutions.
        frames = self.linear_in(frames) * frame_mask(lengths, frames.shape[1])[:, :, None]
        for stage in self.stages:
            frames, lengths = cast(_ConvStage, stage)(frames, lengths)
        return self.linear_out(frames), lengths
