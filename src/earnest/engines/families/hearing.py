"""What the audio-text architectures of transformers have in common: a processor, an ear, and an LLM behind it.

The model's own code makes both halves of a prompt. Its processor turns a clip into placeholders and features; its
forward pass turns features into soft tokens, and is stopped where the LLM would begin. So what is heard is what the
architecture hears, whatever it does in between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jinja2 import TemplateError
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from earnest.conversation import Audio, Conversation, Text
from earnest.engines.families.family import Family
from earnest.engines.families.windows import cut_features, window
from earnest.errors import AudioError, ConversationError, ModelError

FEATURE_BYTES = 256 * 2**20
"""Bound of the features that wait for being encoded; those of older clips are computed again."""
KEPT_LAYOUTS = 4096
"""Clips whose tokens are kept."""


class _Reached(Exception):
    """The forward pass has come to the LLM."""


class HeadedDecoder:
    """A decoder and its LM head as one callable, as `AutoModelForCausalLM` would have them.

    Positions are [B, T]; architectures with several position axes use the same one on all of them, as they do
    themselves for text and audio.
    """

    def __init__(self, decoder: Any, head: Any) -> None:
        self.decoder = decoder
        self.head = head
        self.config = decoder.config

    def get_output_embeddings(self) -> Any:
        """The LM head."""
        return self.head

    def __call__(self, *, logits_to_keep: int = 0, **inputs: Any) -> CausalLMOutputWithPast:
        """Logits of the last `logits_to_keep` tokens, of all for 0; other arguments are the decoder's."""
        output = self.decoder(**inputs)
        logits = self.head(output.last_hidden_state[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=output.past_key_values)


class HearingFamily(Family):
    """An audio-text model of transformers with its processor.

    Subclasses say what differs. `audio_mark` is how a clip stands in a rendered text, with `placeholder` in it.
    `window_mask` names the mask of an ear that pads clips to a window and does not hear the padding.
    """

    auto_class: ClassVar[str] = "AutoModelForMultimodalLM"
    placeholder: ClassVar[str]
    audio_mark: ClassVar[str]
    seconds_per_token: ClassVar[float]
    window_mask: ClassVar[str | None] = None

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.language_model = HeadedDecoder(model.model.language_model, model.lm_head)
        self.audio_token_id = int(self.tokenizer.convert_tokens_to_ids(self.placeholder))
        self.sample_rate_hz = int(processor.feature_extractor.sampling_rate)
        self.max_audio_s = self.longest_s()
        self.context_tokens = getattr(self.language_model.config, "max_position_embeddings", None)
        self._ids: OrderedDict[str, list[int]] = OrderedDict()
        self._features: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._feature_bytes = 0

    @classmethod
    def load_model(cls, folder: Path, dtype: torch.dtype | str) -> Any:
        """By the Auto class for what it is."""
        import transformers

        auto: Any = getattr(transformers, cls.auto_class)
        return auto.from_pretrained(folder, dtype=dtype)

    def longest_s(self) -> float | None:
        """Longest clip that the processor does not cut, in seconds; None for any."""
        return None

    def text(self, conversation: Conversation) -> str:
        """The processor's chat template; a turn to be continued stands as it is behind the opening of a reply."""
        messages = self.messages(conversation, {"type": "audio", "audio": ""})
        begun = conversation.begun
        try:
            opened: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ConversationError(f"the model's chat template does not take this conversation: {error}") from error
        return opened + (begun.written(self.placeholder, self.audio_mark) if begun else "")

    def messages(self, conversation: Conversation, audio: Mapping[str, str]) -> list[dict[str, Any]]:
        """What a chat template takes, without the turn that is begun; `audio` stands for every audio part.

        Raises:
            ConversationError: there is nothing to reply to, or a text part holds the placeholder.
        """
        for turn in conversation.turns:
            turn.written(self.placeholder)
        return [
            {
                "role": turn.role,
                "content": [
                    {"type": "text", "text": part.text} if isinstance(part, Text) else dict(audio)
                    for part in turn.parts
                ],
            }
            for turn in conversation.answered_turns
        ]

    def audio_ids(self, audio: Audio) -> list[int]:
        """The processor's tokens for one clip.

        Raises:
            AudioError: the processor refuses it.
            ModelError: a segment is to be heard at a finer rate, which these architectures do not have.
        """
        if audio.fine:
            raise ModelError(f"{type(self).__name__} has one token rate: leave out fine=True to hear a segment again")
        key = audio.clip.key
        if key not in self._ids:
            self._ids[key] = self._hear(audio)["input_ids"][0].tolist()
            if len(self._ids) > KEPT_LAYOUTS:
                self._ids.popitem(last=False)
        return self._ids[key]

    def heard_s(self, audio: Audio) -> float:
        """By the placeholders that the clip got, at what one of them stands for."""
        tokens = self.audio_ids(audio).count(self.audio_token_id)
        # The last token of a clip may stand for less than its share.
        heard = tokens * self.seconds_per_token
        return audio.clip.duration_s if heard > audio.clip.duration_s - 2 * self.seconds_per_token else heard

    def encode(self, audio: Sequence[Audio]) -> list[Tensor]:
        """Soft tokens of each clip, encoded by itself: some ears hear a clip differently in company."""
        return [self._encode(part) for part in audio]

    def embed(self, token_ids: Tensor, audio: Sequence[Tensor]) -> Tensor:
        """The LLM's embeddings with soft tokens in place of the placeholders."""
        embeds: Tensor = self.model.get_input_embeddings()(token_ids)
        if not audio:
            return embeds
        mask = (token_ids == self.audio_token_id)[..., None]
        return embeds.masked_scatter(mask, torch.cat(list(audio)).to(embeds.dtype))

    def features(self, samples: Any) -> Mapping[str, Any]:
        """The processor's inputs for one clip alone: `input_ids` and features.

        Args:
            samples: [S] at the model's rate.
        """
        return self.processor(
            text=[self.placeholder], audio=[samples], sampling_rate=self.sample_rate_hz, return_tensors="pt"
        )

    def _hear(self, audio: Audio) -> Mapping[str, Any]:
        """Features of a clip; they wait for being encoded."""
        key = audio.clip.key
        if key not in self._features:
            try:
                features = self.features(audio.clip.resampled(self.sample_rate_hz).samples)
            except (ValueError, IndexError) as error:
                raise AudioError(f"the processor takes no clip {audio.clip.source or key}: {error}") from error
            self._features[key] = cut_features(features, self.window_mask) if self.window_mask else features
            self._feature_bytes += _bytes(self._features[key])
            while self._feature_bytes > FEATURE_BYTES and len(self._features) > 1:
                self._forget(next(iter(self._features)))
        return self._features[key]

    def _forget(self, key: str) -> None:
        self._feature_bytes -= _bytes(self._features.pop(key))

    def _encode(self, audio: Audio) -> Tensor:
        inputs = dict(self._hear(audio))
        self._forget(audio.clip.key)
        if inputs["input_ids"].shape[1] == 1:
            # Qwen2-Audio takes a prompt of one token for a step of decoding, and does not look at its audio.
            for name, token in (("input_ids", self.pad_token_id), ("attention_mask", 1)):
                if name in inputs:
                    inputs[name] = F.pad(inputs[name], (0, 1), value=token)
        given: list[Tensor] = []

        def stop(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
            given.append(inputs["inputs_embeds"])
            raise _Reached

        handle = self.language_model.decoder.register_forward_pre_hook(stop, with_kwargs=True)
        cut = window(self.model.model.audio_tower, inputs[self.window_mask].shape[-1]) if self.window_mask else None
        try:
            with cut or nullcontext():
                # Some towers take only features of the type of their weights.
                self.model(
                    **{
                        name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
                        for name, value in inputs.items()
                    }
                )
        except _Reached:
            pass
        finally:
            handle.remove()
        return given[0][0][(inputs["input_ids"][0] == self.audio_token_id).to(given[0].device)]


def _bytes(inputs: Mapping[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in inputs.values())
