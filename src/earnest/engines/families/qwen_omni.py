"""The thinkers of Qwen2.5-Omni (arXiv 2503.20215) and Qwen3-Omni (arXiv 2509.17765), for audio and text.

Both hear a clip in windows of their own, so that it may be long; Qwen2.5-Omni's feature extractor still cuts at its
`chunk_length`, which is refused by name here. What Qwen3-Omni makes of a clip depends on the others in its batch, so
clips are encoded alone.

Their processors cannot be imported without torchvision. Where that is missing, the audio half of them is put together
from the same feature extractor and tokenizer; its tokens and features are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe
from transformers.utils.import_utils import is_torchvision_available

from earnest.engines.families.hearing import HearingFamily


class Qwen3AudioProcessor(Qwen2AudioProcessor):
    """The audio half of Qwen3-Omni's processor: as Qwen2-Audio's, with another number of tokens and no window."""

    def _process_audio(self, audio: Any, **_: Any) -> tuple[Any, list[str]]:
        heard: Any = self.feature_extractor(
            audio,
            sampling_rate=self.feature_extractor.sampling_rate,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        heard["feature_attention_mask"] = heard.pop("attention_mask")
        lengths = heard["feature_attention_mask"].sum(-1)
        counts = modeling_qwen3_omni_moe._get_feat_extract_output_lengths(lengths)  # pyright: ignore[reportPrivateUsage]
        heard["num_audio_tokens"] = counts.tolist()
        return heard, [self.replace_audio_token(heard, audio_idx=place) for place in range(len(audio))]


class Qwen25OmniFamily(HearingFamily):
    """A Qwen2.5-Omni thinker: 25 soft tokens a second."""

    placeholder = "<|AUDIO|>"
    audio_mark = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    seconds_per_token = 0.04
    thinker: ClassVar[Any] = Qwen2_5OmniThinkerForConditionalGeneration
    audio_processor: ClassVar[type[Qwen2AudioProcessor]] = Qwen2AudioProcessor

    @classmethod
    def load_model(cls, folder: Path, dtype: torch.dtype | str) -> Any:
        """The thinker of a folder, which may be a thinker's or hold the talker as well."""
        return cls.thinker.from_pretrained(folder, dtype=dtype)

    @classmethod
    def load_processor(cls, folder: Path) -> Any:
        """The model's own, or its audio half where torchvision is missing."""
        if is_torchvision_available():
            return AutoProcessor.from_pretrained(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        ear = WhisperFeatureExtractor.from_pretrained(folder)
        return cls.audio_processor(ear, tokenizer, chat_template=tokenizer.chat_template)

    def longest_s(self) -> float | None:
        """What the feature extractor keeps."""
        return float(self.processor.feature_extractor.chunk_length)


class Qwen3OmniFamily(Qwen25OmniFamily):
    """A Qwen3-Omni thinker: 13 soft tokens a second."""

    seconds_per_token = 1 / 13
    thinker = Qwen3OmniMoeThinkerForConditionalGeneration
    audio_processor = Qwen3AudioProcessor

    def longest_s(self) -> float | None:
        """None: nothing is cut."""
        return None
