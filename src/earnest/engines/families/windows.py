"""Windows of 30 s cut to the clip, for ears that mask what lies behind it.

Whisper's descendants pad every clip to their window. Some of them (Qwen2-Audio, Audio Flamingo 3) mask the padding and
compute it all the same; without it the clip's soft tokens stay what they were, for a tenth of the work where a clip
lasts three seconds.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

FRAMES_PER_TOKEN = 4
"""Mel frames of a soft token: a convolution halves them, and a pooling."""
BEYOND = 2
"""Mel frames behind the clip that the convolutions of its last soft token reach."""


def cut_features(inputs: Mapping[str, Any], mask: str) -> dict[str, Any]:
    """A clip's features [1, M, F] without the padding behind it; those of several windows as they are.

    Args:
        inputs: `input_features` and their mask.
        mask: the mask's name, [1, F], 1 at frames of the clip.
    """
    heard: Tensor = inputs[mask]
    frames = -(-(int(heard.sum()) + BEYOND) // FRAMES_PER_TOKEN) * FRAMES_PER_TOKEN
    if len(heard) > 1 or frames >= heard.shape[-1]:
        return dict(inputs)
    # Copies: a view would hold all of the window.
    features = inputs["input_features"][..., :frames].clone()
    return {**inputs, "input_features": features, mask: heard[:, :frames].clone()}


@contextmanager
def window(tower: Any, frames: int) -> Generator[None]:
    """The ear with a window of so many mel frames, as long as this lasts.

    Args:
        tower: a Whisper encoder with a table of positions, one for every two frames.
        frames: at most its own.
    """
    table: nn.Embedding = tower.embed_positions
    own = len(table.weight)
    tower.embed_positions = nn.Embedding.from_pretrained(table.weight[: frames // 2])
    # Qwen2-Audio refuses features of another length.
    tower.config.max_source_positions = frames // 2
    try:
        yield
    finally:
        tower.embed_positions = table
        tower.config.max_source_positions = own
