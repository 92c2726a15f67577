"""What a fused model is made of: an LLM, frozen encoders, and one or two passes of adapters between them.

Sizes and geometry only, no tensors: how many soft tokens a clip takes follows from this file alone.

The nested parts are frozen dataclasses that refuse unknown keys; `FusedConfig` keeps them as plain dicts, so
that config.json stays readable, and hands them out typed through `encoder_specs` and `pass_specs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, cast

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from earnest.errors import AudioError, ModelError

SAMPLE_RATE_HZ = 16_000
"""Every encoder of a fused model hears 16 kHz."""


PASSES: tuple[str, ...] = ("first", "second", "fine")


class _Typed:
    """A frozen dataclass that is read from a dict and does not let a misspelt key pass."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = [f.name for f in fields(cast(Any, cls))]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ModelError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(cast(Any, self))


@dataclass(frozen=True)
class MelConfig(_Typed):
    """Log-mel features: `(log(power + floor) + shift) / scale`, never normalised by clip.

    A normalisation by clip would make an event's features depend on what else sounds, and silence look loud.
    """

    n_fft: int = 512
    hop: int = 256
    n_mels: int = 64
    low_hz: float = 40.0
    high_hz: float = 7900.0
    floor: float = 1e-5
    shift: float = 4.0
    scale: float = 4.0

    def frames(self, num_samples: int) -> int:
        """Mel frames of `num_samples` samples at 16 kHz."""
        return -(-num_samples // self.hop)


@strict
class EarConfig(PreTrainedConfig):
    """A small convolutional encoder, see `earnest.fused.encoders.EarEncoder`.

    Attributes:
        mel: `MelConfig` as a dict; None means its defaults.
        width: channels of every layer.
        kernel: taps of every convolution.
        blocks: residual blocks; their dilations cycle through 1, 2, 4, 8.
        heads: label heads for training, name -> number of classes; none in use once the encoder is frozen.
    """

    model_type = "earnest_ear"

    mel: dict[str, Any] | None = None
    width: int = 128
    kernel: int = 5
    blocks: int = 4
    heads: dict[str, int] | None = None

    @property
    def mel_config(self) -> MelConfig:
        """The typed mel settings."""
        return MelConfig.from_dict(self.mel or {})


@dataclass(frozen=True)
class Geometry:
    """How an encoder divides time.

    Attributes:
        samples_per_frame: samples at 16 kHz; `n` of them give `ceil(n / samples_per_frame)` frames.
        window_samples: longest input that it takes at once, None for any.
        width: channels of a hidden frame.
    """

    samples_per_frame: int
    window_samples: int | None
    width: int


def _ear_geometry(config: Any) -> Geometry:
    return Geometry(4 * config.mel_config.hop, None, config.width)


def _whisper_geometry(config: Any) -> Geometry:
    return Geometry(320, 320 * config.max_source_positions, config.d_model)


def _wav2vec2_bert_geometry(config: Any) -> Geometry:
    return Geometry(320, None, config.hidden_size)


def _data2vec_geometry(config: Any) -> Geometry:
    return Geometry(math.prod(config.conv_stride), None, config.hidden_size)


def _spectrogram_transformer_geometry(config: Any) -> Geometry:
    # A frame every time_stride mels of 10 ms, as many as the position embeddings hold.
    frames = (config.max_length - config.patch_size) // config.time_stride + 1
    return Geometry(160 * config.time_stride, 160 * config.time_stride * frames, config.hidden_size)


GEOMETRIES: dict[str, Callable[[Any], Geometry]] = {
    "earnest_ear": _ear_geometry,
    "whisper": _whisper_geometry,
    "wav2vec2-bert": _wav2vec2_bert_geometry,
    "data2vec-audio": _data2vec_geometry,
    "audio-spectrogram-transformer": _spectrogram_transformer_geometry,
}


@dataclass(frozen=True)
class EncoderSpec(_Typed):
    """One frozen encoder.

    Attributes:
        name: how passes refer to it.
        config: its own config as a dict with `model_type`.
        layers: which entries of its hidden states are kept; a pass mixes them.
        feature: settings of its HF feature extractor that differ from the default; none for an ear, whose
            mel is in its config.
        window_s: cut longer audio into chunks of this many seconds; for encoders without an own window.
    """

    name: str
    config: dict[str, Any]
    layers: tuple[int, ...] = (-1,)
    feature: dict[str, Any] | None = None
    window_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.name.isidentifier():
            raise ModelError(f"encoder name {self.name!r} must be an identifier, such as 'events' or 'whisper'")
        if not self.layers:
            raise ModelError(f"encoder {self.name!r} keeps no layer; give at least one, such as [-1]")

    @property
    def model_type(self) -> str:
        """The architecture."""
        return str(self.config.get("model_type"))

    @cached_property
    def encoder_config(self) -> PreTrainedConfig:
        """The encoder's own config object.

        Raises:
            ModelError: unknown architecture.
        """
        if self.model_type not in GEOMETRIES:
            raise ModelError(
                f"encoder {self.name!r} is of type {self.model_type!r}; known types: {', '.join(GEOMETRIES)}"
            )
        return AutoConfig.for_model(**self.config)

    @cached_property
    def geometry(self) -> Geometry:
        """Frames and window; `window_s` is rounded down to whole frames."""
        own = GEOMETRIES[self.model_type](self.encoder_config)
        if self.window_s is None:
            return own
        window = int(self.window_s * SAMPLE_RATE_HZ) // own.samples_per_frame * own.samples_per_frame
        if window < own.samples_per_frame or (own.window_samples is not None and window > own.window_samples):
            raise ModelError(
                f"encoder {self.name!r}: window_s {self.window_s} must hold a frame "
                f"({own.samples_per_frame / SAMPLE_RATE_HZ} s) and fit the encoder "
                f"({(own.window_samples or math.inf) / SAMPLE_RATE_HZ} s)"
            )
        return Geometry(own.samples_per_frame, window, own.width)


@dataclass(frozen=True)
class AdapterConfig(_Typed):
    """From an encoder's frames to fewer, wider ones.

    [Linear to input_width]; Conv1d, GELU and norm for each of (widths, kernels, strides); a residual Conv1d,
    norm and GELU for each of residual_kernels; [Linear to output_width].
    The paper's (arXiv 2603.09556): 1024; (2048, 1024), (3, 4), (1, 2); D of the LLM.
    """

    input_width: int | None = None
    widths: tuple[int, ...] = (2048, 1024)
    kernels: tuple[int, ...] = (3, 4)
    strides: tuple[int, ...] = (1, 2)
    residual_kernels: tuple[int, ...] = ()
    output_width: int | None = None
    norm: Literal["layer", "none"] = "layer"

    def __post_init__(self) -> None:
        for name in ("widths", "kernels", "strides", "residual_kernels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.widths) == len(self.kernels) == len(self.strides) or not self.widths:
            raise ModelError(
                f"an adapter needs as many widths as kernels and strides, at least one: {self.widths}, "
                f"{self.kernels}, {self.strides}"
            )

    @property
    def stride(self) -> int:
        """Encoder frames per token."""
        return math.prod(self.strides)

    @property
    def width(self) -> int:
        """Channels that come out."""
        return self.output_width or self.widths[-1]


@dataclass(frozen=True)
class FusionConfig(_Typed):
    """How several adapted streams become one.

    concat: channels side by side, same rate. ca: the first stream asks each other one in turn through
    `layers` decoder layers. perceiver: the first stream as is, then `latents` vectors for each other one.
    """

    kind: Literal["concat", "ca", "perceiver"] = "concat"
    width: int = 1024
    heads: int = 16
    ffn: int = 4096
    layers: int = 1
    latents: int = 20


@dataclass(frozen=True)
class PassConfig(_Typed):
    """From hidden frames to soft tokens: "first" over the whole clip, "fine" over a re-listened segment.

    Attributes:
        adapters: by encoder name; a pass may leave encoders out. The one that stands first in the model's list
            of encoders leads the fusion.
        fusion: see `FusionConfig`; its kind alone will do.
        head: "linear": Linear + LayerNorm at the scale of the LLM's embeddings; "align": softmax over its
            vocabulary times its embeddings (arXiv 2502.01341); "none": the fused stream is used as it is.
        blank_token_id: the token that an "align" head prefers at the start, by `blank_bias`; None for none.
        chunk_s: adapt and fuse long clips in chunks of this many seconds (rounded down to whole tokens).
        boundary: learned start and end vectors around a clip, for LLMs whose vocabulary has no audio tags.
    """

    adapters: dict[str, AdapterConfig]
    fusion: FusionConfig = field(default_factory=FusionConfig)
    head: Literal["linear", "align", "none"] = "linear"
    blank_token_id: int | None = None
    blank_bias: float = 2.0
    chunk_s: float | None = None
    boundary: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the nested parts too."""
        values = dict(values)
        adapters: dict[str, Any] = values.get("adapters") or {}
        if not adapters:
            raise ModelError("a pass needs at least one adapter: {encoder name: {widths, kernels, strides, ...}}")
        values["adapters"] = {
            name: a if isinstance(a, AdapterConfig) else AdapterConfig.from_dict(a) for name, a in adapters.items()
        }
        fusion = values.get("fusion", "concat")
        if isinstance(fusion, str):
            fusion = {"kind": fusion}
        values["fusion"] = fusion if isinstance(fusion, FusionConfig) else FusionConfig.from_dict(fusion)
        return super().from_dict(values)


@dataclass(frozen=True)
class TokenBudget(_Typed):
    """How many soft tokens a clip takes in a pass: a pure function of its samples at 16 kHz.

    Attributes:
        samples_per_token: of the leading stream; token i begins at sample i * samples_per_token.
        chunk_samples: the pass's chunk, None for the whole clip at once.
        extra_per_chunk: tokens that belong to no moment (Perceiver latents and their marks).
        extra_per_clip: learned start and end vectors.
    """

    samples_per_token: int
    chunk_samples: int | None = None
    extra_per_chunk: int = 0
    extra_per_clip: int = 0

    def tokens(self, num_samples: int) -> int:
        """Soft tokens of `num_samples` samples.

        Raises:
            AudioError: no samples.
        """
        if num_samples < 1:
            raise AudioError(f"a clip of {num_samples} samples has nothing to hear; give at least one sample")
        chunks = -(-num_samples // self.chunk_samples) if self.chunk_samples else 1
        return -(-num_samples // self.samples_per_token) + chunks * self.extra_per_chunk + self.extra_per_clip

    def covered_samples(self, tokens: int, num_samples: int) -> int:
        """Samples of a clip that its first `tokens` soft tokens stand for: all of them, unless it was cut."""
        timeless = self.tokens(num_samples) - -(-num_samples // self.samples_per_token)
        return min(num_samples, max(0, tokens - timeless) * self.samples_per_token)


@strict
class FusedConfig(PreTrainedConfig):
    """A frozen causal LM that hears through frozen encoders and trained passes.

    Attributes:
        text_config: any causal LM's config.
        encoders: `EncoderSpec`s as dicts.
        passes: `PassConfig`s as dicts: "first"; "second" behind it in an ensemble of two (fusion E of arXiv
            2603.09556); "fine" where the model can listen again more finely.
        audio_token_id: the placeholder that stands for one soft token in input_ids.
    """

    model_type = "earnest_fused"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen3")
    }

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    encoders: list[dict[str, Any]] | None = None
    passes: dict[str, dict[str, Any]] | None = None
    audio_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        """Bring the nested parts into their normal form, which also checks them."""
        self.encoders = [EncoderSpec.from_dict(e).to_dict() for e in self.encoders or []]
        self.passes = {name: PassConfig.from_dict(p).to_dict() for name, p in (self.passes or {}).items()}
        super().__post_init__(**kwargs)
        self._check_passes()
        # A saved config sorts its keys: only the encoders' list has an order that lasts.
        names = [spec.name for spec in self.encoder_specs]
        for spec in self.passes.values():
            spec["adapters"] = {name: spec["adapters"][name] for name in names if name in spec["adapters"]}

    def _check_passes(self) -> None:
        names = [spec.name for spec in self.encoder_specs]
        if len(set(names)) < len(names):
            raise ModelError(f"encoder names must differ: {', '.join(names)}")
        for name, spec in self.pass_specs.items():
            if name not in PASSES:
                raise ModelError(
                    f"pass {name!r} is not known; a model has 'first', if it is an ensemble 'second', and if it "
                    "re-listens 'fine'"
                )
            missing = [encoder for encoder in spec.adapters if encoder not in names]
            if missing:
                raise ModelError(f"pass {name!r} adapts {', '.join(missing)}; the encoders are {', '.join(names)}")
            rates = {self._samples_per_token(spec, encoder) for encoder in spec.adapters}
            if spec.fusion.kind == "concat" and len(rates) > 1:
                raise ModelError(f"pass {name!r}: concat needs one rate, got {sorted(rates)} samples per token")

    @property
    def encoder_specs(self) -> list[EncoderSpec]:
        """The encoders, typed, in order."""
        return [EncoderSpec.from_dict(e) for e in self.encoders or []]

    @property
    def pass_specs(self) -> dict[str, PassConfig]:
        """The passes, typed."""
        return {name: PassConfig.from_dict(p) for name, p in (self.passes or {}).items()}

    def passes_of(self, fine: bool) -> tuple[str, ...]:
        """Through which passes a clip is heard, one after the other; a re-listened segment through the fine one."""
        if fine:
            return ("fine",)
        return ("first", "second") if "second" in (self.passes or {}) else ("first",)

    def encoder_spec(self, name: str) -> EncoderSpec:
        """The encoder called `name`."""
        return next(spec for spec in self.encoder_specs if spec.name == name)

    def _samples_per_token(self, spec: PassConfig, encoder: str) -> int:
        return self.encoder_spec(encoder).geometry.samples_per_frame * spec.adapters[encoder].stride

    def budget(self, pass_name: str) -> TokenBudget:
        """The number of soft tokens that a pass makes.

        Raises:
            ModelError: the model has no such pass, or its chunk is shorter than a token.
        """
        if pass_name not in self.pass_specs:
            raise ModelError(f"the model has no pass {pass_name!r}; it has {', '.join(self.pass_specs) or 'none'}")
        spec = self.pass_specs[pass_name]
        rates = [self._samples_per_token(spec, encoder) for encoder in spec.adapters]
        chunk = None
        if spec.chunk_s is not None:
            # A chunk that is a whole number of tokens of every stream keeps token i at sample i * rate.
            step = math.lcm(*rates)
            chunk = int(spec.chunk_s * SAMPLE_RATE_HZ) // step * step
            if chunk == 0:
                raise ModelError(
                    f"pass {pass_name!r}: chunk_s {spec.chunk_s} is shorter than a token: "
                    f"{step / SAMPLE_RATE_HZ} s at least"
                )
        others = len(rates) - 1
        latents = others * spec.fusion.latents + 2 if spec.fusion.kind == "perceiver" else 0
        return TokenBudget(rates[0], chunk, latents, 2 if spec.boundary else 0)
