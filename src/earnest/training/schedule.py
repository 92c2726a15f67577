"""The learning-rate schedule of all stages."""

from __future__ import annotations

import math


def one_cycle(step: int, steps: int, warm_up: float = 0.08) -> float:
    """Factor of the peak rate: linear warm-up over a share of the steps, then a cosine down to 1 %."""
    at = (step + 1) / steps
    if at < warm_up:
        return at / warm_up
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (at - warm_up) / (1 - warm_up)))
