"""Checkpoints of a training loop: everything that the next step depends on, written atomically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpointer:
    """Saves and restores a loop's state in one file.

    Attributes:
        path: of the file.
        every: steps between two saves.
    """

    path: Path
    every: int = 200

    def load(self) -> dict[str, Any] | None:
        """The last state, None if there is none. The file must be our own: it is unpickled."""
        if not self.path.exists():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=False)

    def resumed(self, made_of: str, taught: str, log: Callable[[str], None]) -> dict[str, Any] | None:
        """The last state if its `made_of` is this one; None if there is none, or, with a line in the log, another.

        Args:
            made_of: key of all that decides the weights.
            taught: what is learnt, for the log.
            log: one line.
        """
        state = self.load()
        if state is None or state["made_of"] == made_of:
            return state
        log(f"{self.path} is of other numbers, {taught} or weights: begins anew")
        return None

    def due(self, step: int) -> bool:
        """Whether the state after this step (counted from 0) is to be saved."""
        return (step + 1) % self.every == 0

    def save(self, state: dict[str, Any]) -> None:
        """Writes the state beside the old one, then swaps them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.path)

    def clear(self) -> None:
        """Removes the file: the loop is complete."""
        self.path.unlink(missing_ok=True)
