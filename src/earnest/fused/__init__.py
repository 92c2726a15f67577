"""Our own architecture: a frozen causal LM that hears through frozen encoders and trained adapters.

Importing this package registers the architecture with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from earnest.fused.configuration import (
    AdapterConfig,
    EarConfig,
    EncoderSpec,
    FusedConfig,
    FusionConfig,
    MelConfig,
    PassConfig,
    TokenBudget,
)
from earnest.fused.encoders import EarEncoder
from earnest.fused.mel import log_mel
from earnest.fused.modeling import FusedModel
from earnest.fused.processing import FusedProcessor

AutoConfig.register(EarConfig.model_type, EarConfig)
AutoModel.register(EarConfig, EarEncoder)
AutoConfig.register(FusedConfig.model_type, FusedConfig)
AutoModel.register(FusedConfig, FusedModel)
AutoModelForCausalLM.register(FusedConfig, FusedModel)
AutoProcessor.register(FusedConfig, FusedProcessor)

__all__ = [
    "AdapterConfig",
    "EarConfig",
    "EarEncoder",
    "EncoderSpec",
    "FusedConfig",
    "FusedModel",
    "FusedProcessor",
    "FusionConfig",
    "MelConfig",
    "PassConfig",
    "TokenBudget",
    "log_mel",
]
