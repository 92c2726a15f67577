"""Linear layers by oneDNN where torch's own product of matrices is slow: on AMD processors with AVX-512.

torch's wheels multiply float32 matrices by MKL, which leaves AVX-512 unused on AMD's processors; oneDNN, which the
wheels hold as well, uses it. Measured on two such cores: large products 2.3 times as fast, a single row with more
weights than a cache holds 1.5 times (`bench/linear.py`). Results differ from MKL's in the last bits, as those of two
machines do.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LEAST_WEIGHTS, LEAST_PRODUCTS = 2**17, 2**21
"""A layer with fewer weights, in a product of fewer multiplications, is left to torch: the call would cost more than it
wins."""
STEPS = 8
"""Numbers of rows that occur between a power of two and the next."""

_by_mkl = F.linear
_lock = Lock()
_within = 0


@contextmanager
def fast_linear(anyhow: bool = False) -> Generator[None]:
    """Within it `torch.nn.functional.linear`, by which every linear layer goes, takes the faster of two ways.

    In all threads, until the last of those that are within it leaves. Nothing changes on processors on which it would
    not pay, and for no other tensors than float32 on the CPU.

    Args:
        anyhow: on this processor, whatever it is.
    """
    global _within
    if not (anyhow or pays()):
        yield
        return
    with _lock:
        _within += 1
        F.linear = linear
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                F.linear = _by_mkl


@functools.cache
def pays() -> bool:
    """Whether this is a processor on which MKL leaves AVX-512 unused."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AuthenticAMD" in _processor()
    )


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`: [..., I] and [O, I] to [..., O]."""
    if not _suits(input, weight):
        return _by_mkl(input, weight, bias)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (input, weight, bias)):
        return _Linear.apply(input, weight, bias)  # pyright: ignore[reportReturnType]
    if input.numel() < 2 * STEPS * input.shape[-1]:
        # So few rows are never padded.
        return product(input, weight, bias)
    return _unpadded(product(padded(input), weight, bias), input.shape)


def product(one: Tensor, two: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., I] and [O, I] to [..., O]; strides of any kind."""
    return torch.ops.mkldnn._linear_pointwise(one, two, bias, "none", [], "")


def products(one: Tensor, two: Tensor) -> Tensor:
    """[N, R, C] and [N, K, C] to [N, R, K], without gradients; by oneDNN within `fast_linear`."""
    if F.linear is linear and _suits(one[0], two[0]):
        return torch.stack([product(a, b) for a, b in zip(one, two, strict=True)])
    return one @ two.transpose(1, 2)


class _Linear(torch.autograd.Function):
    """The same with gradients."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = padded(one)
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight)
        ctx.shape = one.shape
        return _unpadded(product(rows, weight, bias), one.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, weight = ctx.saved_tensors
        slopes = padded(slope)
        to_one, to_weight, to_bias = ctx.needs_input_grad
        return (
            _unpadded(product(slopes, weight.t()), ctx.shape) if to_one else None,
            product(slopes.t(), rows.t()) if to_weight else None,
            slopes.sum(0) if to_bias else None,
        )


def padded(one: Tensor) -> Tensor:
    """[..., I] to rows [M, I]: a few zeros behind many rows, so that few numbers of them occur.

    oneDNN writes a program for every new shape, which takes milliseconds, and keeps those of a thousand.
    """
    rows = one.reshape(-1, one.shape[-1])
    step = max(1, 2 ** (len(rows).bit_length() - 1) // STEPS)
    missing = -len(rows) % step
    if not missing:
        return rows.contiguous()
    longer = rows.new_empty(len(rows) + missing, rows.shape[1])
    longer[: len(rows)] = rows
    longer[len(rows) :] = 0
    return longer


def _unpadded(rows: Tensor, shape: torch.Size) -> Tensor:
    """[M, O] to [..., O], those of a tensor of the given shape [..., I]."""
    return rows[: shape[:-1].numel()].view(*shape[:-1], rows.shape[-1])


def _suits(one: Tensor, weight: Tensor) -> bool:
    return (
        one.dtype == weight.dtype == torch.float32
        and one.device.type == weight.device.type == "cpu"
        and weight.ndim == 2
        and (weight.numel() >= LEAST_WEIGHTS or one.numel() * len(weight) >= LEAST_PRODUCTS)
        and one.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _processor() -> str:
    """What Linux says of it; nothing elsewhere."""
    told = Path("/proc/cpuinfo")
    return told.read_text("utf-8") if told.is_file() else ""
