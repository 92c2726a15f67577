"""LLMs that read and hear nothing: writers, judges, and backbones that are to be given ears."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from jinja2 import TemplateError
from torch import Tensor

from earnest.conversation import Audio, Conversation
from earnest.engines.families.family import Family
from earnest.errors import ConversationError, ModelError

_NO_TOKEN = -1
"""Of audio: no text holds it."""


class TextFamily(Family):
    """A causal LM of transformers and its tokenizer. Audio is refused by name."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.tokenizer = processor
        self.language_model = model
        self.audio_token_id = _NO_TOKEN
        self.sample_rate_hz = 16_000
        self.max_audio_s = None
        self.context_tokens = getattr(model.config, "max_position_embeddings", None)

    @classmethod
    def load_model(cls, folder: Path, dtype: torch.dtype | str) -> Any:
        """Written by `save_pretrained`."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    @classmethod
    def load_processor(cls, folder: Path) -> Any:
        """The tokenizer.

        Raises:
            ModelError: it has no chat template.
        """
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        if tokenizer.chat_template is None:
            raise ModelError(f"the tokenizer of {folder} has no chat template: take the model's chat version")
        return tokenizer

    @classmethod
    def lora_targets(cls, *parts: str) -> str:
        """As everywhere; the LLM is all there is."""
        return super().lora_targets(*parts).replace("language_model", "", 1)

    @cached_property
    def structural_token_ids(self) -> frozenset[int]:
        """As everywhere, without a placeholder."""
        return super().structural_token_ids - {_NO_TOKEN}

    def text(self, conversation: Conversation) -> str:
        """The tokenizer's chat template; a turn to be continued stands as it is behind the opening of a reply.

        Raises:
            ModelError: the conversation holds audio.
            ConversationError: there is nothing to reply to, or the template does not take it.
        """
        if conversation.audio:
            _refuse()
        messages = [{"role": turn.role, "content": turn.text} for turn in conversation.answered_turns]
        try:
            opened: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ConversationError(f"the model's chat template does not take this conversation: {error}") from error
        return opened + (conversation.begun.text if conversation.begun else "")

    def audio_ids(self, audio: Audio) -> list[int]:
        """None: refused."""
        _refuse()

    def heard_s(self, audio: Audio) -> float:
        """None: refused."""
        _refuse()

    def encode(self, audio: Sequence[Audio]) -> list[Tensor]:
        """None: refused."""
        _refuse()

    def embed(self, token_ids: Tensor, audio: Sequence[Tensor]) -> Tensor:
        """The LLM's embeddings."""
        return self.model.get_input_embeddings()(token_ids)


def _refuse() -> NoReturn:
    raise ModelError("the model reads text and has no ears: give it a conversation without audio, or another model")
