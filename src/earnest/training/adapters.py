"""What stages that train LoRA adapters have in common: their numbers, and what must be installed."""

from __future__ import annotations

from dataclasses import dataclass

from earnest.engines.lora import require_peft
from earnest.training.lora_trainer import LoraSettings


@dataclass(frozen=True)
class AdapterSettings:
    """Numbers of such a stage; see `LoraSettings`."""

    rank: int = 8
    alpha: int = 16
    parts: str = "attention"
    learning_rate: float = 1e-4
    epochs: int = 1
    batch_size: int = 16
    accumulate: int = 1
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        self.sft()

    def sft(self) -> LoraSettings:
        """As a training takes them."""
        return LoraSettings.of(self)


def can_train(_: object, __: dict[str, object]) -> None:
    """A stage's check: is peft there?

    Raises:
        ModelError: it is not.
    """
    require_peft()
