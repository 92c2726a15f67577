"""Voxtral (arXiv 2507.13264): 12.5 soft tokens a second, in whole windows of 30 s.

Its tokenizer is mistral-common's, which renders a conversation itself and takes audio as files. It is given a short
silence for each clip; what stands for that is replaced by what stands for the clip.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import soundfile
import torch
from mistral_common.exceptions import MistralCommonException

from earnest.conversation import Audio, Conversation, Text
from earnest.engines.families.family import Prompt
from earnest.engines.families.hearing import HearingFamily
from earnest.errors import ConversationError, EarnestError

WINDOW_S = 30.0


class VoxtralFamily(HearingFamily):
    """A Voxtral model and its processor."""

    placeholder = "[AUDIO]"
    audio_mark = "[BEGIN_AUDIO][AUDIO]"
    seconds_per_token = 0.08

    def render(self, conversations: Sequence[Conversation]) -> list[Prompt | EarnestError]:
        """As mistral-common renders it; a turn to be continued stands as it is behind the opening of a reply."""
        return [self._rendered(conversation) for conversation in conversations]

    def heard_s(self, audio: Audio) -> float:
        """All of the clip, as long as its windows suffice: the rest of the last one is silence."""
        tokens = self.audio_ids(audio).count(self.audio_token_id)
        return min(audio.clip.duration_s, tokens * self.seconds_per_token)

    def features(self, samples: Any) -> dict[str, Any]:
        """Features of whole windows, and as many placeholders as the ear makes of them."""
        options: dict[str, Any] = dict(self.processor.audio_kwargs)
        positions = options.pop("max_source_positions")
        features = self.processor._retrieve_input_features([samples], positions, **options)
        tokens = round(len(features) * WINDOW_S / self.seconds_per_token)
        return {"input_ids": torch.full((1, tokens), self.audio_token_id), "input_features": features}

    @cached_property
    def structural_token_ids(self) -> frozenset[int]:
        """As mistral-common names them: the audio placeholder is among them."""
        return self._unwritten_ids() - self.end_token_ids

    def _rendered(self, conversation: Conversation) -> Prompt | EarnestError:
        try:
            messages = self.messages(conversation, {"type": "audio", "base64": _silence(self.sample_rate_hz)})
        except EarnestError as error:
            return error
        try:
            rendered: Any = self.tokenizer.apply_chat_template([messages], tokenize=True, return_dict=True)
        except (ValueError, MistralCommonException) as error:
            return ConversationError(f"the model's tokenizer does not take this conversation: {error}")
        ids = _once(list(rendered["input_ids"][0]), self.audio_token_id)
        begin = int(self.tokenizer.convert_tokens_to_ids("[BEGIN_AUDIO]"))
        for part in conversation.begun.parts if conversation.begun else ():
            ids += self.continuation_ids(part.text) if isinstance(part, Text) else [begin, self.audio_token_id]
        return self._expand(ids, conversation)


def _once(ids: list[int], token: int) -> list[int]:
    """Every run of a token, once."""
    return [*ids[:1], *(after for before, after in pairwise(ids) if (before, after) != (token, token))]


@cache
def _silence(rate_hz: int) -> str:
    """A short file, in base64."""
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(rate_hz // 10, np.float32), rate_hz, format="WAV")
    return base64.b64encode(stream.getvalue()).decode()
