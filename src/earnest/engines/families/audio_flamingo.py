"""Audio Flamingo 3 (arXiv 2507.08128) and Music Flamingo: windows of 30 s, 25 soft tokens a second.

Their processors take one clip a text and cut beyond their `max_audio_len` with no more than a log line; here each
clip is processed by itself, so that a conversation may hold several, and a longer one is refused by name.
"""

from __future__ import annotations

from earnest.engines.families.hearing import HearingFamily


class AudioFlamingo3Family(HearingFamily):
    """An Audio Flamingo 3 model and its processor."""

    auto_class = "AutoModelForSeq2SeqLM"
    placeholder = "<sound>"
    audio_mark = "<sound>"
    seconds_per_token = 0.04
    window_mask = "input_features_mask"

    def longest_s(self) -> float | None:
        """The processor's limit: 600 s."""
        return float(self.processor.max_audio_len)


class MusicFlamingoFamily(AudioFlamingo3Family):
    """A Music Flamingo model: marks around each clip are added by its processor."""
