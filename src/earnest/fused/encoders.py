"""Frozen ears: what turns 16 kHz samples into hidden frames.

`EarEncoder` is our own small one; `KINDS` says for each architecture how to build it, what features it takes
and how its hidden states are read. All of them keep one rule: `n` samples give `ceil(n / samples_per_frame)`
frames, and an item gives the same frames alone and in any batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from earnest.errors import ModelError
from earnest.fused.configuration import SAMPLE_RATE_HZ, EarConfig, EncoderSpec, MelConfig
from earnest.fused.mel import log_mel

Samples = NDArray[np.float32]
DILATIONS = (1, 2, 4, 8)


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """[B, F] bool: which frames are real.

    Args:
        lengths: [B] real frames of each item.
        frames: F.
    """
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def ceil_div(value: Tensor, by: int) -> Tensor:
    """Rounded up, elementwise."""
    return torch.div(value + by - 1, by, rounding_mode="floor")


class MaskedConv(nn.Conv1d):
    """Conv1d over [B, F, C] that gives ceil(F / stride) frames.

    Zeros on both sides, k - 1 in all, the shorter side first: with the padding masked, an item's last frames
    see the same zeros alone and in a batch.
    """

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(width_in, width_out, kernel, stride, dilation=dilation)
        total = (kernel - 1) * dilation
        self.sides = (total // 2, total - total // 2)

    def forward(self, input: Tensor) -> Tensor:
        """[B, F, C] -> [B, ceil(F / stride), C']; the caller masks before and after."""
        return super().forward(functional.pad(input.transpose(1, 2), self.sides)).transpose(1, 2)


class EarBlock(nn.Module):
    """x + GELU(LayerNorm(dilated conv(x)))."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = MaskedConv(width, width, kernel, dilation=dilation)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, F, C] -> [B, F, C]; mask [B, F, 1]."""
        return (frames + functional.gelu(self.norm(self.conv(frames)))) * mask


@dataclass
class EarOutput(ModelOutput):
    """Frames of an ear.

    Attributes:
        last_hidden_state: [B, F, C], the last of `hidden_states`.
        hidden_states: the stem's frames and each block's, [B, F, C] each.
        logits: of each label head, [B, F, classes]; empty without heads.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    logits: dict[str, Tensor] | None = None


class EarEncoder(PreTrainedModel):
    """Log-mels through two stride-2 convolutions and dilated residual blocks.

    At 16 kHz and hop 256: 62.5 mel frames a second -> 15.6 hidden frames a second. 0.45 M parameters at width
    128 with 4 blocks. Normalised by frame only, hence independent of padding and of the rest of the batch.
    """

    config_class = EarConfig
    config: EarConfig
    base_model_prefix = ""
    main_input_name = "mel"
    _no_split_modules = ["EarBlock"]  # noqa: RUF012 (transformers reads a mutable list here)

    def __init__(self, config: EarConfig) -> None:
        super().__init__(config)
        width, kernel = config.width, config.kernel
        self.stem = nn.ModuleList(
            [MaskedConv(config.mel_config.n_mels, width, kernel, 2), MaskedConv(width, width, kernel, 2)]
        )
        self.stem_norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.blocks = nn.ModuleList(
            [EarBlock(width, kernel, DILATIONS[i % len(DILATIONS)]) for i in range(config.blocks)]
        )
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in (config.heads or {}).items()})
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.LayerNorm)):
            module.reset_parameters()

    def forward(self, mel: Tensor, lengths: Tensor | None = None, **_: Any) -> EarOutput:
        """Encode mels.

        Args:
            mel: [B, F, M] of `log_mel`.
            lengths: [B] real mel frames of each item; None when nothing is padded.

        Returns:
            Hidden frames [B, ceil(F / 4), C]; frames beyond an item's end are zero.
        """
        if lengths is None:
            lengths = torch.full((mel.shape[0],), mel.shape[1], device=mel.device)
        frames = mel * frame_mask(lengths, mel.shape[1])[:, :, None]
        mask = frames
        for conv, norm in zip(self.stem, self.stem_norms, strict=True):
            frames = functional.gelu(norm(conv(frames)))
            lengths = ceil_div(lengths, 2)
            mask = frame_mask(lengths, frames.shape[1])[:, :, None]
            frames = frames * mask
        hidden_states = (frames,)
        for block in self.blocks:
            frames = block(frames, mask)
            hidden_states = (*hidden_states, frames)
        logits = {name: head(frames) for name, head in self.heads.items()}
        return EarOutput(last_hidden_state=frames, hidden_states=hidden_states, logits=logits)


class EncoderKind(Protocol):
    """What the fused model needs to know of an encoder's architecture."""

    def build(self, spec: EncoderSpec) -> PreTrainedModel:
        """A module with random weights."""
        ...

    def features(self, spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
        """Padded features [N, F', M] of clips at 16 kHz, none longer than the encoder's window."""
        ...

    def hidden(self, module: nn.Module, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Hidden states, [N, F, C] each; lengths [N] in samples."""
        ...


class _Ear:
    def build(self, spec: EncoderSpec) -> PreTrainedModel:
        return EarEncoder(cast(EarConfig, spec.encoder_config))

    def features(self, spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
        mel = cast(EarConfig, spec.encoder_config).mel_config
        return log_mel(torch.from_numpy(pad_clips(clips)), mel)

    def hidden(self, module: nn.Module, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        mel: MelConfig = cast(EarEncoder, module).config.mel_config
        return module(features, ceil_div(lengths, mel.hop)).hidden_states


class _Whisper:
    """Always padded to the window, as in training; frames of the padding are cut by the caller."""

    def build(self, spec: EncoderSpec) -> PreTrainedModel:
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(cast(Any, spec.encoder_config))

    def features(self, spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
        from transformers import WhisperFeatureExtractor

        config = cast(Any, spec.encoder_config)
        extractor = WhisperFeatureExtractor(**{"feature_size": config.num_mel_bins, **(spec.feature or {})})
        window = 320 * config.max_source_positions
        padded = [np.pad(clip, (0, window - clip.size)) for clip in clips]
        batch = extractor(padded, sampling_rate=SAMPLE_RATE_HZ, max_length=window, return_tensors="pt")
        return batch["input_features"]  # [N, M, 2 * max_source_positions]

    def hidden(self, module: nn.Module, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return module(features, output_hidden_states=True).hidden_states


class _Wav2Vec2Bert:
    def build(self, spec: EncoderSpec) -> PreTrainedModel:
        from transformers import Wav2Vec2BertModel

        return Wav2Vec2BertModel(cast(Any, spec.encoder_config))

    def features(self, spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
        from transformers import SeamlessM4TFeatureExtractor

        extractor = SeamlessM4TFeatureExtractor(**(spec.feature or {}))
        # 25 ms windows every 10 ms, stacked in pairs: 320 n + 240 samples give exactly n frames.
        padded = [np.pad(clip, (0, -clip.size % 320 + 240)) for clip in clips]
        batch = extractor(padded, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        return batch["input_features"]  # [N, F, 2 M]

    def hidden(self, module: nn.Module, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        mask = frame_mask(ceil_div(lengths, 320), features.shape[1])
        return module(features, attention_mask=mask.long(), output_hidden_states=True).hidden_states


class _Data2Vec:
    """Samples, brought to mean 0 and variance 1 by clip as in its training; the music encoder music2vec is one."""

    def build(self, spec: EncoderSpec) -> PreTrainedModel:
        from transformers import Data2VecAudioModel

        return Data2VecAudioModel(cast(Any, spec.encoder_config))

    def features(self, spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
        from transformers import Wav2Vec2FeatureExtractor

        extractor = Wav2Vec2FeatureExtractor(**(spec.feature or {}))
        frame, beyond = spec.geometry.samples_per_frame, _receptive_field(cast(Any, spec.encoder_config))
        values = [extractor(clip, sampling_rate=SAMPLE_RATE_HZ)["input_values"][0] for clip in clips]
        # frame * n + beyond samples give exactly n frames.
        padded = [np.pad(value, (0, -len(value) % frame + beyond - frame)) for value in values]
        return torch.from_numpy(pad_clips(padded))

    def hidden(self, module: nn.Module, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        config = cast(Any, module).config
        frame = math.prod(config.conv_stride)
        frames = ceil_div(lengths, frame)
        # Its positions are convolutions that see beyond a clip's end what a mask does not hide: clips of one number
        # of frames go together, others by themselves.
        rows: list[Tensor] = [features] * len(frames)
        for count in set(frames.tolist()):
            chosen = [row for row, own in enumerate(frames.tolist()) if own == count]
            samples = features[chosen, : frame * (count - 1) + _receptive_field(config)]
            states = module(samples, output_hidden_states=True).hidden_states
            for place, row in enumerate(chosen):
                rows[row] = torch.stack([state[place] for state in states])
        padded = nn.utils.rnn.pad_sequence([row.transpose(0, 1) for row in rows], batch_first=True)
        return padded.unbind(2)


def _receptive_field(config: Any) -> int:
    """Samples of which its convolutions make one frame."""
    field, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field


class _SpectrogramTransformer:
    """Patches of a log-mel picture of fixed width; those of one moment are averaged over the frequencies."""

    def build(self, spec: EncoderSpec) -> PreTrainedModel:
        from transformers import ASTModel

        return ASTModel(cast(Any, spec.encoder_config))

    def features(self, spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
        from transformers import ASTFeatureExtractor

        config = cast(Any, spec.encoder_config)
        sizes = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
        extractor = ASTFeatureExtractor(**{**sizes, **(spec.feature or {})})
        # A mel takes 400 samples.
        padded = [np.pad(clip, (0, max(0, 400 - clip.size))) for clip in clips]
        return extractor(padded, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")["input_values"]  # [N, F, M]

    def hidden(self, module: nn.Module, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        config = cast(Any, module).config
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        states = module(features, output_hidden_states=True).hidden_states
        # Two summary tokens stand before the patches, which run through time within each band.
        return tuple(state[:, 2:].unflatten(1, (bands, -1)).mean(1) for state in states)


KINDS: dict[str, EncoderKind] = {
    "earnest_ear": _Ear(),
    "whisper": _Whisper(),
    "wav2vec2-bert": _Wav2Vec2Bert(),
    "data2vec-audio": _Data2Vec(),
    "audio-spectrogram-transformer": _SpectrogramTransformer(),
}


HEARD_BY: dict[str, tuple[str, ...]] = {
    "whisper": ("dither",),
    "wav2vec2-bert": ("padding_value",),
    "data2vec-audio": ("do_normalize",),
    "audio-spectrogram-transformer": ("do_normalize", "mean", "std"),
}
"""Settings of its feature extractor that change what an encoder hears, and not how much of it."""


def feature_settings(source: str, model_type: str) -> dict[str, Any]:
    """What an encoder's preprocessor_config.json says of them, for `EncoderSpec.feature`; nothing where there is none.

    Args:
        source: folder or hub id.
        model_type: key of `KINDS`.

    Raises:
        ModelError: it hears at another rate than 16 kHz.
    """
    from transformers.utils.hub import cached_file

    file = cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    given: dict[str, Any] = json.loads(Path(file).read_text("utf-8")) if file else {}
    if (rate := given.get("sampling_rate", SAMPLE_RATE_HZ)) != SAMPLE_RATE_HZ:
        raise ModelError(f"{source} hears at {rate} Hz by its preprocessor_config.json: {SAMPLE_RATE_HZ} Hz is known")
    return {name: given[name] for name in HEARD_BY.get(model_type, ()) if name in given}


def pad_clips(clips: Sequence[Samples]) -> Samples:
    """[N, S] with zeros after each clip."""
    padded = np.zeros((len(clips), max(clip.size for clip in clips)), np.float32)
    for row, clip in zip(padded, clips, strict=True):
        row[: clip.size] = clip
    return padded


def windows(num_samples: int, window: int | None) -> list[int]:
    """Lengths in samples of the chunks that an encoder hears of one clip."""
    if window is None or num_samples <= window:
        return [num_samples]
    return [min(window, num_samples - start) for start in range(0, num_samples, window)]


def extract_features(spec: EncoderSpec, clips: Sequence[Samples]) -> Tensor:
    """Features of clips at 16 kHz, one row per chunk of each clip in order, [chunks, ...]."""
    window = spec.geometry.window_samples
    chunks = [part for clip in clips for part in np.split(clip, np.cumsum(windows(clip.size, window))[:-1])]
    return KINDS[spec.model_type].features(spec, chunks)


def encode_features(module: nn.Module, spec: EncoderSpec, features: Tensor, lengths: Tensor) -> Tensor:
    """Hidden frames of whole clips.

    Args:
        module: the encoder.
        spec: its spec.
        features: of `extract_features`.
        lengths: [N] samples of each clip.

    Returns:
        [N, F, L * C]: the kept layers side by side (a pass mixes them), zeros beyond each clip's end.
    """
    geometry = spec.geometry
    parts = [windows(n, geometry.window_samples) for n in lengths.tolist()]
    chunk_lengths = torch.tensor([n for clip in parts for n in clip], device=features.device)
    states = KINDS[spec.model_type].hidden(module, features, chunk_lengths)
    rows = torch.cat([states[layer] for layer in spec.layers], dim=-1)  # [chunks, F, L * C]
    frames = [-(-n // geometry.samples_per_frame) for n in chunk_lengths.tolist()]
    rows = [row[:n] for row, n in zip(rows, frames, strict=True)]
    clips: list[Tensor] = []
    for clip in parts:
        clips.append(rows[0] if len(clip) == 1 else torch.cat(rows[: len(clip)]))
        rows = rows[len(clip) :]
    return nn.utils.rnn.pad_sequence(clips, batch_first=True)
