"""Qwen2-Audio (arXiv 2407.10759): 25 soft tokens a second behind a Whisper encoder whose window is 30 s.

Its processor pads every clip to the window and cuts a longer one in silence; here that is refused by name.
"""

from __future__ import annotations

from earnest.engines.families.hearing import HearingFamily


class Qwen2AudioFamily(HearingFamily):
    """A Qwen2-Audio model and its processor."""

    placeholder = "<|AUDIO|>"
    audio_mark = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    seconds_per_token = 0.04
    window_mask = "feature_attention_mask"

    def longest_s(self) -> float | None:
        """The feature extractor's window."""
        return float(self.processor.feature_extractor.chunk_length)
