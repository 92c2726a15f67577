"""GLM-ASR: 12.5 soft tokens a second, windows of 30 s."""

from __future__ import annotations

from earnest.engines.families.hearing import HearingFamily


class GlmAsrFamily(HearingFamily):
    """A GLM-ASR model and its processor."""

    placeholder = "<|pad|>"
    audio_mark = "<|pad|>"
    seconds_per_token = 0.08

    def longest_s(self) -> float | None:
        """The processor's limit: 655 s."""
        return float(self.processor.max_audio_len)
