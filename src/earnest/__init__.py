"""Large audio language models that listen, and say so when they can't.

    import earnest

    engine = earnest.load("pocket")
    reply = earnest.ask(engine, "clip.wav", "Which animal is heard?", choices=("dog", "cat"))
    finding = earnest.audit(engine, earnest.load_manifest("my.jsonl"), "runs/mine")

Names are imported when they are first used: importing the package takes milliseconds and no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earnest.accuracy import audit
    from earnest.asking import Reply, ask
    from earnest.audio import Clip
    from earnest.completion import Completion, Sampling
    from earnest.conversation import Audio, Conversation, Text, Turn
    from earnest.engines import load
    from earnest.errors import EarnestError
    from earnest.example import Example, load_manifest, save_manifest
    from earnest.finding import Finding, Metric
    from earnest.grading import Outcome
    from earnest.run import RunDirectory

_HOMES: dict[str, str] = {
    "Audio": "earnest.conversation",
    "Clip": "earnest.audio",
    "Completion": "earnest.completion",
    "Conversation": "earnest.conversation",
    "EarnestError": "earnest.errors",
    "Example": "earnest.example",
    "Finding": "earnest.finding",
    "Metric": "earnest.finding",
    "Outcome": "earnest.grading",
    "Reply": "earnest.asking",
    "RunDirectory": "earnest.run",
    "Sampling": "earnest.completion",
    "Text": "earnest.conversation",
    "Turn": "earnest.conversation",
    "ask": "earnest.asking",
    "audit": "earnest.accuracy",
    "load": "earnest.engines",
    "load_manifest": "earnest.example",
    "save_manifest": "earnest.example",
}

__version__ = "0.1.0"
__all__ = [
    "Audio",
    "Clip",
    "Completion",
    "Conversation",
    "EarnestError",
    "Example",
    "Finding",
    "Metric",
    "Outcome",
    "Reply",
    "RunDirectory",
    "Sampling",
    "Text",
    "Turn",
    "__version__",
    "ask",
    "audit",
    "load",
    "load_manifest",
    "save_manifest",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'earnest' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return sorted(__all__)
