"""A fused model of stock parts: any causal LLM and any known encoders, with the paper's adapters (arXiv 2603.09556).

Encoders above 25 frames a second are brought to that by strided convolutions; slower ones keep their rate. LLMs whose
vocabulary has no audio tags get learned start and end vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from earnest.engines.load import own_gpu
from earnest.errors import EarnestError, ModelError, RecipeError
from earnest.fused import AdapterConfig, FusedModel, FusedProcessor, FusionConfig, PassConfig
from earnest.fused.configuration import GEOMETRIES, SAMPLE_RATE_HZ
from earnest.fused.encoders import feature_settings
from earnest.training.numbers import above_zero, at_least

PLACEHOLDER = "<|earnest_audio|>"
SINGLE, CA, PERCEIVER, CONCAT = "single", "ca", "perceiver", "concat"
FUSIONS = (CA, PERCEIVER, CONCAT)


@dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Attributes:
        llm: folder or hub id of a causal LLM with a chat template.
        encoders: "name=folder or hub id", separated by commas; the first leads the fusion.
        layers: "name=8+16+24", separated by commas: hidden layers that are mixed; the last one where not given.
        adapter_width: channels of the adapters' narrow layers.
        adapter_inner: channels of their wide one.
        tokens_per_second: what faster encoders are brought to.
        fusion_width: of CA and P.
        fusion_heads: attention heads.
        fusion_ffn: channels of the feed-forward parts.
        ca_layers: decoder layers for each asked encoder.
        perceiver_layers: layers of latents for each other encoder.
        latents: of P for each other encoder.
        dtype: of LLM and encoders; what is trained is float32.
        device: where all of it is.
    """

    llm: str = ""
    encoders: str = ""
    layers: str = ""
    adapter_width: int = 1024
    adapter_inner: int = 2048
    tokens_per_second: float = 25.0
    fusion_width: int = 1024
    fusion_heads: int = 16
    fusion_ffn: int = 4096
    ca_layers: int = 1
    perceiver_layers: int = 2
    latents: int = 20
    dtype: str = "bfloat16"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Checks what can be checked before anything is loaded.

        Raises:
            RecipeError: no LLM, no encoder, a name twice, layers of an unknown encoder, or a number below 1.
        """
        if not self.llm:
            raise RecipeError("llm is empty: name a folder or a hub id of a causal LLM")
        if unknown := set(self.layers_by_name) - set(self.sources):
            raise RecipeError(f"layers names {sorted(unknown)[0]!r}: the encoders are {', '.join(self.sources)}")
        at_least(
            self, 1, "adapter_width", "adapter_inner", "fusion_width", "fusion_heads", "fusion_ffn", "ca_layers",
            "perceiver_layers", "latents",
        )  # fmt: skip
        above_zero(self, "tokens_per_second")

    @property
    def place(self) -> str:
        """The device; under torchrun each process has a GPU of its own."""
        return own_gpu() if self.device == "cuda" else self.device

    @property
    def sources(self) -> dict[str, str]:
        """Encoder names and where they are."""
        return _pairs("encoders", self.encoders)

    @property
    def layers_by_name(self) -> dict[str, tuple[int, ...]]:
        """Hidden layers of the encoders that are named."""
        if not self.layers:
            return {}
        pairs = _pairs("layers", self.layers)
        try:
            return {name: tuple(int(layer) for layer in layers.split("+")) for name, layers in pairs.items()}
        except ValueError as error:
            raise EarnestError(f"layers is {self.layers!r}: write name=8+16+24, name=-1") from error

    def adapter(self, encoder_width: int, frames_per_second: float, output_width: int | None) -> AdapterConfig:
        """The paper's adapter for one encoder."""
        stride = max(1, round(frames_per_second / self.tokens_per_second))
        narrow, wide = self.adapter_width, self.adapter_inner
        if stride == 1:
            return AdapterConfig(narrow, (narrow,), (1,), (1,), (), output_width, "none")
        enter = None if encoder_width == narrow else narrow
        return AdapterConfig(enter, (wide, narrow), (3, 2 * stride), (1, stride), (), output_width)

    def audio_pass(self, widths: Mapping[str, tuple[int, float]], llm_width: int, kind: str) -> PassConfig:
        """A pass over some encoders.

        Args:
            widths: by encoder: channels, and frames a second.
            llm_width: D of the LLM.
            kind: one of `FUSIONS`, or "single".
        """
        adapters = {name: self.adapter(*own, llm_width) for name, own in widths.items()}
        layers = self.ca_layers if kind == CA else self.perceiver_layers
        fusion = FusionConfig(
            "concat" if kind == SINGLE else kind,  # pyright: ignore[reportArgumentType]
            self.fusion_width,
            self.fusion_heads,
            self.fusion_ffn,
            layers,
            self.latents,
        )
        # Side by side the streams are wider than the LLM: a Linear brings them back.
        head = "linear" if kind == CONCAT and len(adapters) > 1 else "none"
        return PassConfig(adapters, fusion, head, boundary=True)


@dataclass(frozen=True)
class Loaded:
    """The frozen parts in memory, shared by all models that are made of them."""

    llm: Any
    tokenizer: Any
    encoders: dict[str, Any]
    features: dict[str, dict[str, Any]]

    def fused(self, parts: Parts, names: Sequence[str], kind: str, seed: int) -> tuple[FusedModel, FusedProcessor]:
        """A model with a fresh pass over some of the encoders.

        Args:
            parts: numbers of the pass.
            names: of the encoders; the first leads.
            kind: of the fusion, or "single".
            seed: of the pass's weights.
        """
        torch.manual_seed(seed)
        configs = {name: self.encoders[name].config for name in names}
        geometries = {name: GEOMETRIES[config.model_type](config) for name, config in configs.items()}
        widths = {name: (own.width, SAMPLE_RATE_HZ / own.samples_per_frame) for name, own in geometries.items()}
        llm_width = self.llm.get_input_embeddings().weight.shape[1]
        model = FusedModel.from_parts(
            self.llm,
            {name: self.encoders[name] for name in names},
            {"first": parts.audio_pass(widths, llm_width, kind)},
            audio_token_id=self.tokenizer.convert_tokens_to_ids(PLACEHOLDER),
            layers={name: layers for name, layers in parts.layers_by_name.items() if name in names},
            features=self.features,
        )
        model.passes.to(device=parts.place, dtype=torch.float32)
        processor = FusedProcessor.from_config(
            model.config, self.tokenizer, audio_token=PLACEHOLDER, audio_start_token=None, audio_end_token=None
        )
        return model, processor


def load_parts(parts: Parts) -> Loaded:
    """Loads LLM, tokenizer and encoders by transformers' Auto classes.

    Raises:
        ModelError: an LLM without a chat template, or an encoder of an unknown architecture or rate.
    """
    from tokenizers import AddedToken
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(parts.llm)
    if tokenizer.chat_template is None:
        raise ModelError(f"{parts.llm} has no chat template: give one that answers, or set tokenizer.chat_template")
    tokenizer.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)])
    llm: Any = AutoModelForCausalLM.from_pretrained(parts.llm, dtype=parts.dtype)
    encoders: dict[str, Any] = {}
    features: dict[str, dict[str, Any]] = {}
    for name, source in parts.sources.items():
        module: Any = AutoModel.from_pretrained(source, dtype=parts.dtype)
        # Of a model that hears and writes, the half that hears.
        module = module.get_encoder() if getattr(module.config, "is_encoder_decoder", False) else module
        if module.config.model_type not in GEOMETRIES:
            raise ModelError(
                f"encoder {name!r} ({source}) is of type {module.config.model_type!r}; known types: "
                f"{', '.join(GEOMETRIES)}"
            )
        encoders[name] = module.to(parts.place).eval()
        features[name] = feature_settings(source, module.config.model_type)
    return Loaded(llm.to(parts.place).eval(), tokenizer, encoders, features)


def _pairs(what: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not equals or not value or not name.isidentifier():
            raise EarnestError(f"{what} has the entry {entry!r}: write name=value, with a name such as whisper")
        if name in found:
            raise EarnestError(f"{what} names {name!r} twice: give each a name of its own")
        found[name] = value
    if not found:
        raise EarnestError(f"{what} is empty: write name=value, separated by commas")
    return found
