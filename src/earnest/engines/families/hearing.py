"""What the audio-text architectures of transformers have in common: a processor, an ear, and an LLM behind it.

The model's own code makes both halves of a prompt. Its processor turns a clip into placeholders and features; its
forward pass turns features into soft tokens, and is stopped where the LLM would begin. So what is heard is what the
architecture hears, whatever it does in between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from earnest.conversation import Audio, Conversation, Text, Turn
from earnest.engines.families.family import Family
from earnest.errors import AudioError, ConversationError, ModelError

KEPT_FEATURES = 64
"""Clips whose features wait for being encoded; older ones are computed again."""


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
    """

    auto_class: ClassVar[str] = "AutoModelForMultimodalLM"
    placeholder: ClassVar[str]
    audio_mark: ClassVar[str]
    seconds_per_token: ClassVar[float]
    lora_targets: ClassVar[str] = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.language_model = HeadedDecoder(model.model.language_model, model.lm_head)
        self.audio_token_id = int(self.tokenizer.convert_tokens_to_ids(self.placeholder))
        self.sample_rate_hz = int(processor.feature_extractor.sampling_rate)
        self.max_audio_s = self.longest_s()
        self.context_tokens = getattr(self.language_model.config, "max_position_embeddings", None)
        self._ends = self._end_ids()
        self._structural = self._structural_ids() - self._ends
        self._heard: OrderedDict[str, tuple[list[int], Mapping[str, Any]]] = OrderedDict()

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype | str) -> Self:
        """Loads a folder by transformers' Auto classes."""
        import transformers

        auto: Any = getattr(transformers, cls.auto_class)
        model: Any = auto.from_pretrained(folder, dtype=dtype)
        return cls(model.to(device).eval(), transformers.AutoProcessor.from_pretrained(folder))

    def longest_s(self) -> float | None:
        """Longest clip that the processor does not cut, in seconds; None for any."""
        return None

    @property
    def structural_token_ids(self) -> frozenset[int]:
        """The tokenizer's special tokens and ids that stand for no text."""
        return self._structural

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The EOS of the tokenizer and of the generation config."""
        return self._ends

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's, or any token where it has none: padding is masked."""
        found = self.tokenizer.pad_token_id
        return 0 if found is None else int(found)

    def text(self, conversation: Conversation) -> str:
        """The processor's chat template; a turn to be continued stands as it is behind the opening of a reply."""
        turns, begun = conversation.turns, ""
        if conversation.continues_assistant:
            turns, begun = turns[:-1], self._written(turns[-1])
        if not turns:
            raise ConversationError("the conversation has nothing to reply to; begin with .user(...)")
        for turn in turns:
            self._written(turn)
        messages = [
            {
                "role": turn.role,
                "content": [
                    {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "audio", "audio": ""}
                    for part in turn.parts
                ],
            }
            for turn in turns
        ]
        try:
            opened: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ConversationError(f"the model's chat template does not take this conversation: {error}") from error
        return opened + begun

    def audio_ids(self, audio: Audio) -> list[int]:
        """The processor's tokens for one clip.

        Raises:
            AudioError: the processor refuses it.
            ModelError: a segment is to be heard at a finer rate, which these architectures do not have.
        """
        if audio.fine:
            raise ModelError(f"{type(self).__name__} has one token rate: leave out fine=True to hear a segment again")
        return self._hear(audio)[0]

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

    def _hear(self, audio: Audio) -> tuple[list[int], Mapping[str, Any]]:
        key = audio.clip.key
        if key not in self._heard:
            try:
                inputs = self.features(audio.clip.resampled(self.sample_rate_hz).samples)
            except (ValueError, IndexError) as error:
                raise AudioError(f"the processor takes no clip {audio.clip.source or key}: {error}") from error
            self._heard[key] = inputs["input_ids"][0].tolist(), inputs
            if len(self._heard) > KEPT_FEATURES:
                self._heard.popitem(last=False)
        self._heard.move_to_end(key)
        return self._heard[key]

    def _encode(self, audio: Audio) -> Tensor:
        ids, inputs = self._hear(audio)
        given: list[Tensor] = []

        def stop(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
            given.append(inputs["inputs_embeds"])
            raise _Reached

        handle = self.language_model.decoder.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        except _Reached:
            pass
        finally:
            handle.remove()
        return given[0][0][torch.tensor(ids, device=given[0].device) == self.audio_token_id]

    def _written(self, turn: Turn) -> str:
        texts: list[str] = []
        for part in turn.parts:
            if isinstance(part, Text) and self.placeholder in part.text:
                raise ConversationError(
                    f"a text part holds {self.placeholder!r}, which stands for audio; pass the audio as an Audio part"
                )
            texts.append(part.text if isinstance(part, Text) else self.audio_mark)
        return "".join(texts)

    def _end_ids(self) -> frozenset[int]:
        generation: Any = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(generation if isinstance(generation, list) else [generation])}
        return frozenset(int(end) for end in ends if end is not None)

    def _structural_ids(self) -> frozenset[int]:
        special = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        beyond = range(len(self.tokenizer), self.language_model.config.vocab_size)
        return frozenset({*self.tokenizer.all_special_ids, *special, self.audio_token_id, *beyond})
