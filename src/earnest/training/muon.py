"""Muon (Jordan et al. 2024; scaled as in arXiv 2502.16982) in the parameters' own precision.

`torch.optim.Muon` orthogonalises in bfloat16, which a CPU without bfloat16 arithmetic emulates: measured on
two AVX2 cores, its step costs more than the forward and backward pass of the pocket LLM. This one stays in
float32 and orthogonalises matrices of one shape together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch

from earnest.engines.linear import products

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Nearest semi-orthogonal matrices by a quintic Newton-Schulz iteration; [N, R, C] -> [N, R, C]."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = products(x, x)
        # The square of a symmetric matrix is its product with its own rows.
        x = a * x + products(b * gram + c * products(gram, gram), x.transpose(1, 2))
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised per matrix, with AdamW's update size (0.2 sqrt(max(R, C))).

    Args:
        parameters: matrices, or convolution kernels [out, in, ...], taken as matrices [out, in * ...].
        lr: learning rate on AdamW's scale.
        momentum: of the gradient average (Nesterov).
        weight_decay: decoupled.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for shape, members in shapes.items():
                updates = orthogonalised(torch.stack([self._momentum(p, group).flatten(1) for p in members]))
                scale = 0.2 * max(updates.shape[1:]) ** 0.5
                for parameter, update in zip(members, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view(shape), alpha=-group["lr"] * scale)

    def _momentum(self, parameter: torch.nn.Parameter, group: dict[str, Any]) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        return parameter.grad.lerp(state["momentum"], group["momentum"])
