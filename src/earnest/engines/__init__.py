"""Who answers: the contract, the local engine on transformers models, and the loader.

Light: torch is imported when a model is loaded, not before.
"""

from earnest.completion import Completion, Heard, Sampling, Stop
from earnest.engines.engine import Capabilities, Engine, require
from earnest.engines.load import load, model_key

__all__ = ["Capabilities", "Completion", "Engine", "Heard", "Sampling", "Stop", "load", "model_key", "require"]
