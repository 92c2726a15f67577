"""What the tests of policies have in common: tiny models of random weights that hear, and questions to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.conversation import Audio, Conversation
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine

MODELS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "fused": (tiny_fused, True),
    "qwen2_audio": (tiny_qwen2_audio, False),
    "qwen2_5_omni": (tiny_qwen25_omni, False),
}


def engine_of(folder: Path | str, adapter: Path | None = None) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


def asked(number: int) -> Conversation:
    return Conversation().user(Audio(tone(300 + 50 * number, 1.0 + 0.5 * (number % 3))), f"what is {number}?")
