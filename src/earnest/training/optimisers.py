"""Muon for the hidden matrices and AdamW for the rest, stepped as one under one schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from earnest.training.muon import Muon


class Optimisers:
    """Two optimisers as one.

    Args:
        named: parameters with their names; those that need no gradient are left out.
        hidden: whether a parameter is a hidden matrix (also a convolution's kernel), by name and parameter.
        muon_rate: peak rate of the hidden matrices under Muon; 0 gives them to AdamW too.
        learning_rate: peak rate of AdamW.
        betas: of AdamW.
        weight_decay: of both.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        hidden: Callable[[str, torch.nn.Parameter], bool],
        *,
        muon_rate: float,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.05,
    ) -> None:
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for name, parameter in named:
            if parameter.requires_grad:
                (matrices if muon_rate and hidden(name, parameter) else rest).append(parameter)
        self.parameters = [*matrices, *rest]
        self._parts: list[torch.optim.Optimizer] = []
        if rest:
            self._parts.append(torch.optim.AdamW(rest, learning_rate, betas=betas, weight_decay=weight_decay))
        if matrices:
            self._parts.append(Muon(matrices, muon_rate, weight_decay=weight_decay))
        self._peaks = [group["lr"] for part in self._parts for group in part.param_groups]

    def step(self, factor: float, *, clip: float = 1.0) -> None:
        """Clips the gradients' norm, steps at `factor` times the peak rates and clears the gradients."""
        torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        groups = [group for part in self._parts for group in part.param_groups]
        for group, peak in zip(groups, self._peaks, strict=True):
            group["lr"] = factor * peak
        for part in self._parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each part."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Takes back what `state_dict` gave."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)
