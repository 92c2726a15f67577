"""A fused model of stock parts: any causal LLM and any known encoders, with the paper's adapters (arXiv 2603.09556).

Parts may also come out of a fused model, such as pocket: its LLM, and its encoders by their names. Encoders above 25
frames a second are brought to that by strided convolutions; slower ones keep their rate. LLMs whose vocabulary has no
audio tags get learned start and end vectors.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from earnest.engines.load import HUB_ID, find_folder, own_gpu, usable_device
from earnest.errors import EarnestError, ModelError, RecipeError
from earnest.fused import AdapterConfig, FusedConfig, FusedModel, FusedProcessor, FusionConfig, PassConfig
from earnest.fused.configuration import GEOMETRIES, SAMPLE_RATE_HZ
from earnest.fused.encoders import feature_settings
from earnest.training.numbers import above_zero, at_least

PLACEHOLDER = "<|earnest_audio|>"
POCKET = "pocket"
SINGLE, CA, PERCEIVER, CONCAT = "single", "ca", "perceiver", "concat"
FUSIONS = (CA, PERCEIVER, CONCAT)


@dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Attributes:
        llm: folder or hub id of a causal LLM with a chat template; "pocket", or a fused model's folder, for its LLM.
        encoders: "name=folder or hub id", separated by commas; the first leads the fusion. Of pocket and other fused
            models the encoder of that name: "speech=pocket, events=pocket".
        layers: "name=8+16+24", separated by commas: hidden states that are mixed, 0 what enters the first layer, -1 the
            last; the last one where not given.
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
            RecipeError: no LLM, no encoder, a name twice, a folder that is not there or holds no model, layers of an
                unknown encoder, an unknown dtype, or a number below 1.
        """
        if not self.llm:
            raise RecipeError("llm is empty: name a folder or a hub id of a causal LLM, or pocket")
        _require_source("llm", self.llm)
        for name, source in self.sources.items():
            _require_source(f"encoder {name!r}", source)
        kind = getattr(torch, self.dtype, None)
        if not (isinstance(kind, torch.dtype) and kind.is_floating_point):
            raise RecipeError(f"dtype is {self.dtype!r}: give float32, bfloat16 or float16")
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
    """Loads LLM, tokenizer and encoders by transformers' Auto classes, or out of a fused model.

    Raises:
        ModelError: a part that cannot be loaded, an LLM without a chat template, an encoder of an unknown architecture
            or rate, layers that it does not have, or a device that is not there.
    """
    from tokenizers import AddedToken
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    device = usable_device(parts.place)
    whole: dict[str, Any] = {}

    def fused(source: str) -> Any:
        """The fused model of a folder; it is loaded once."""
        if source not in whole:
            whole[source] = FusedModel.from_pretrained(source, dtype=parts.dtype)
        return whole[source]

    llm_source = _place(parts.llm)
    with _named("llm", parts.llm):
        is_fused = _is_fused(llm_source)
        tokenizer: Any = (
            FusedProcessor.from_pretrained(llm_source).tokenizer  # pyright: ignore[reportAttributeAccessIssue]
            if is_fused
            else AutoTokenizer.from_pretrained(llm_source)
        )
        if tokenizer.chat_template is None:
            raise ModelError(f"{parts.llm} has no chat template: give one that answers, or set tokenizer.chat_template")
        llm: Any = (
            fused(llm_source).language_model
            if is_fused
            else AutoModelForCausalLM.from_pretrained(llm_source, dtype=parts.dtype)
        )
    tokenizer.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)])
    encoders: dict[str, Any] = {}
    features: dict[str, dict[str, Any]] = {}
    for name, given in parts.sources.items():
        source = _place(given)
        with _named(f"encoder {name!r}", given):
            if _is_fused(source):
                encoders[name], features[name] = _ear_of(fused(source), name, given)
            else:
                module: Any = AutoModel.from_pretrained(source, dtype=parts.dtype)
                # Of a model that hears and writes, the half that hears.
                module = module.get_encoder() if getattr(module.config, "is_encoder_decoder", False) else module
                if module.config.model_type not in GEOMETRIES:
                    raise ModelError(
                        f"encoder {name!r} ({given}) is of type {module.config.model_type!r}; known types: "
                        f"{', '.join(GEOMETRIES)}"
                    )
                encoders[name], features[name] = module, feature_settings(source, module.config.model_type)
        _require_layers(name, encoders[name].config, parts.layers_by_name.get(name, ()))
        encoders[name].to(device).eval()
    return Loaded(llm.to(device).eval(), tokenizer, encoders, features)


def _place(source: str) -> str:
    """Where a part lies, as transformers takes it."""
    if source == POCKET:
        return str(find_folder(POCKET))
    return source if Path(source).is_dir() else source.removeprefix("hf/")


def _is_fused(source: str) -> bool:
    config = Path(source) / "config.json"
    return config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == FusedConfig.model_type


def _ear_of(model: FusedModel, name: str, source: str) -> tuple[Any, dict[str, Any]]:
    """An encoder of a fused model, and the settings of its features."""
    specs = {spec.name: spec for spec in model.config.encoder_specs}
    if name not in specs:
        raise ModelError(
            f"{source} has no encoder {name!r}: it has {', '.join(specs)}; write {next(iter(specs))}={source}"
        )
    return model.encoders[name], dict(specs[name].feature or {})


def _require_source(what: str, source: str) -> None:
    """Checks that a part is pocket, a folder of a model, or has the form of a hub id.

    Raises:
        RecipeError: it is none of them.
    """
    if source == POCKET:
        return
    if not Path(source).exists() and HUB_ID.fullmatch(source.removeprefix("hf/")):
        return
    if not Path(source).is_dir():
        raise RecipeError(f"{what} is {source!r}: no such folder; give one, a hub id ORG/NAME, or {POCKET}")
    if not (Path(source) / "config.json").is_file():
        raise RecipeError(f"{what} is {source!r}, which has no config.json: give a folder written by save_pretrained")


def _require_layers(name: str, config: Any, layers: Sequence[int]) -> None:
    """Checks that an encoder has the hidden states that are asked for.

    Raises:
        ModelError: it has not.
    """
    last = config.blocks if config.model_type == "earnest_ear" else config.num_hidden_layers
    if beyond := [layer for layer in layers if not -last - 1 <= layer <= last]:
        raise ModelError(f"layers names {beyond[0]} of encoder {name!r}, which has {last}: give 0 to {last}, or -1")


@contextmanager
def _named(what: str, source: str) -> Generator[None]:
    """Says which part it was that transformers could not load."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, EarnestError):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{what}: {source!r} cannot be loaded: {first}") from error


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
