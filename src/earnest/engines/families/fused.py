"""Our own architecture: see `earnest.fused`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from earnest.conversation import Audio, Conversation
from earnest.engines.families.added_ears import with_added
from earnest.engines.families.family import Family
from earnest.engines.lora import CONFIG, ears_of, put_on
from earnest.errors import ModelError
from earnest.fused.configuration import SAMPLE_RATE_HZ
from earnest.fused.modeling import FusedModel
from earnest.fused.processing import FusedProcessor


class FusedFamily(Family):
    """A fused model and its processor.

    Long clips are chunked by the model itself. With time markers, the longest clip is what the tokenizer has pieces
    for; without them only the LLM's context bounds it.
    """

    def __init__(self, model: FusedModel, processor: FusedProcessor) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer: Any = processor.tokenizer
        self.language_model = model.language_model
        self.audio_token_id = processor.audio_token_id
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self.max_audio_s = processor.max_audio_s()
        text_config: Any = model.language_model.config.get_text_config(decoder=True)
        self.context_tokens = getattr(text_config, "max_position_embeddings", None)
        # Requests about one clip, or about clips of one length, share what stands for it.
        self._cached_ids = lru_cache(maxsize=4096)(processor.audio_ids)
        self._samples = lru_cache(maxsize=65_536)(_sample_count)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype | str, adapter: Path | None = None) -> Self:
        """As everywhere; an adapter may bring ears of its own, or be ears alone."""
        if adapter is None or (ears := ears_of(adapter)) is None:
            return super().load(folder, device, dtype, adapter)
        model, processor = with_added(cls.load_model(folder, dtype), cls.load_processor(folder), ears)
        if (adapter / CONFIG).is_file():
            put_on(model, adapter)
        hearing: Any = model
        return cls(hearing.to(device).eval(), processor)

    @classmethod
    def load_model(cls, folder: Path, dtype: torch.dtype | str) -> Any:
        """Written by `save_pretrained`."""
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    @cached_property
    def structural_token_ids(self) -> frozenset[int]:
        """As everywhere, and the marks around a clip."""
        marks = [mark for mark in (self.processor.audio_start_token, self.processor.audio_end_token) if mark]
        return super().structural_token_ids | {self.tokenizer.convert_tokens_to_ids(mark) for mark in marks}

    def text(self, conversation: Conversation) -> str:
        """Rendered by the processor."""
        return self.processor.render(conversation)

    def audio_ids(self, audio: Audio) -> list[int]:
        """The processor's layout of a clip, with time markers if the model has them.

        Raises:
            ModelError: no fine pass, or a crop from beyond the last time marker.
        """
        clip = audio.clip
        end_s = clip.offset_s + clip.duration_s
        # Half a sample: offsets and durations are sums of floats.
        if self.max_audio_s is not None and end_s > self.max_audio_s + 0.5 / SAMPLE_RATE_HZ:
            raise ModelError(
                f"clip {clip.source or clip.key} ends {end_s:.2f} s into its recording, the model's time markers reach "
                f"{self.max_audio_s:.2f} s: crop a shorter recording, or make a Clip of the samples alone"
            )
        return self._cached_ids(self._sample_count(audio), audio.fine, clip.offset_s)

    def heard_s(self, audio: Audio) -> float:
        """By the placeholders that the clip got, at the samples that one of them stands for."""
        count = self._sample_count(audio)
        tokens = self.audio_ids(audio).count(self.audio_token_id)
        return audio.clip.duration_s * self.processor.covered_samples(tokens, count, audio.fine) / count

    def encode(self, audio: Sequence[Audio]) -> list[Tensor]:
        """Soft tokens of the model's first or fine pass."""
        samples = [part.clip.resampled(SAMPLE_RATE_HZ).samples for part in audio]
        return self.model.encode_audio(samples, [part.fine for part in audio])

    def embed(self, token_ids: Tensor, audio: Sequence[Tensor]) -> Tensor:
        """The LLM's embeddings with soft tokens in place of the placeholders."""
        return self.model.embed(token_ids, audio)

    def _sample_count(self, audio: Audio) -> int:
        return self._samples(audio.clip.samples.size, audio.clip.sample_rate_hz)


def _sample_count(samples: int, rate_hz: int) -> int:
    """Samples [S] at 16 kHz of a clip: counted on silence of its length, since only the length matters."""
    import numpy as np

    from earnest.audio import Clip

    return Clip(np.zeros(samples, np.float32), rate_hz).resampled(SAMPLE_RATE_HZ).samples.size
