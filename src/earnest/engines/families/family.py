"""The contract of an architecture: how a conversation becomes tokens, and audio becomes what its LLM hears.

A new architecture is a file with a subclass of `Family` and a line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from earnest.completion import Heard
from earnest.conversation import Audio, Conversation
from earnest.errors import ConversationError, EarnestError, ModelError, needs_extra

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FAMILIES: dict[str, str] = {
    "audioflamingo3": "earnest.engines.families.audio_flamingo:AudioFlamingo3Family",
    "earnest_fused": "earnest.engines.families.fused:FusedFamily",
    "glmasr": "earnest.engines.families.glm_asr:GlmAsrFamily",
    "musicflamingo": "earnest.engines.families.audio_flamingo:MusicFlamingoFamily",
    "qwen2_5_omni": "earnest.engines.families.qwen_omni:Qwen25OmniFamily",
    "qwen2_5_omni_thinker": "earnest.engines.families.qwen_omni:Qwen25OmniFamily",
    "qwen2_audio": "earnest.engines.families.qwen2_audio:Qwen2AudioFamily",
    "qwen3_omni_moe": "earnest.engines.families.qwen_omni:Qwen3OmniFamily",
    "qwen3_omni_moe_thinker": "earnest.engines.families.qwen_omni:Qwen3OmniFamily",
    "voxtral": "earnest.engines.families.voxtral:VoxtralFamily",
}
"""`model_type` -> where its family is. By name, so that nothing heavy is imported for the others."""

TEXT_LLMS: frozenset[str] = frozenset(
    {
        "gemma", "gemma2", "gemma3_text", "glm4", "gpt_oss", "granite", "llama", "ministral", "mistral", "mixtral",
        "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3",
    }
)  # fmt: skip
"""`model_type`s of causal LMs without ears; all of them are read by `TextFamily`."""

EXTRAS: dict[str, str] = {"voxtral": "voxtral"}
"""`model_type` -> the extra of earnest that it needs beyond the core."""

CONTEXT_TOKENS = 8
"""How many tokens before a reply are looked at to tell whether its text begins with a blank."""


@dataclass(frozen=True)
class Prompt:
    """A conversation as tokens.

    Attributes:
        token_ids: [T]; every position that holds audio is the audio placeholder.
        audio: the audio parts, in order; their soft tokens fill the placeholders in this order.
        audio_tokens: how many placeholders each of them has.
        heard: the hearing account.
    """

    token_ids: tuple[int, ...]
    audio: tuple[Audio, ...]
    audio_tokens: tuple[int, ...]
    heard: Heard


class Family(ABC):
    """A loaded model together with all that is particular to its architecture.

    Attributes:
        model: the transformers model.
        tokenizer: its tokenizer, with a chat template.
        language_model: the part that maps `inputs_embeds` or `input_ids` to logits (the LLM and its head).
        audio_token_id: the placeholder of one soft token, and of one audio part in a rendered text.
        sample_rate_hz: what the ear takes.
        max_audio_s: longest clip in seconds, None for any; longer ones are refused, never cut in silence.
        context_tokens: longest prompt and reply together, None if the model names no limit.
        lora_names: last names of the LLM's matrices, by part; those of the ear often have the same.
    """

    lora_names: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "mlp": ("gate_proj", "up_proj", "down_proj"),
    }
    model: Any
    tokenizer: Any
    language_model: Any
    audio_token_id: int
    sample_rate_hz: int
    max_audio_s: float | None
    context_tokens: int | None

    @abstractmethod
    def __init__(self, model: Any, processor: Any) -> None: ...

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype | str, adapter: Path | None = None) -> Self:
        """Loads a folder by transformers' Auto classes, and an adapter that peft saved on top of it."""
        model = cls.load_model(folder, dtype)
        if adapter is not None:
            from earnest.engines.lora import put_on

            put_on(model, adapter)
        return cls(model.to(device).eval(), cls.load_processor(folder))

    @classmethod
    @abstractmethod
    def load_model(cls, folder: Path, dtype: torch.dtype | str) -> Any:
        """The model, on the CPU."""

    @classmethod
    def load_processor(cls, folder: Path) -> Any:
        """The processor."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(folder)

    @cached_property
    def structural_token_ids(self) -> frozenset[int]:
        """Tokens that a reply never holds: audio placeholder, padding, the marks of a turn, ids without a text."""
        # The marks of a turn are special, but few tokenizers name them as such.
        special = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return (self._unwritten_ids() | special | {self.audio_token_id}) - self.end_token_ids

    @cached_property
    def end_token_ids(self) -> frozenset[int]:
        """Tokens that end the assistant's turn: the EOS of the tokenizer and of the generation config."""
        generation: Any = getattr(self.model.generation_config, "eos_token_id", None)
        ends = {self.tokenizer.eos_token_id, *(generation if isinstance(generation, list) else [generation])}
        return frozenset(int(end) for end in ends if end is not None)

    @cached_property
    def turn_end_id(self) -> int:
        """The token that stands behind a finished reply, as the chat template writes it.

        Raises:
            ModelError: the template writes none that ends a reply.
        """
        asked = Conversation().user("a")
        before, after = self.render([asked, asked.assistant("a").user("a")])
        if isinstance(before, EarnestError):
            raise before
        if isinstance(after, EarnestError):
            raise after
        # What both have in common ends where the reply begins.
        pairs = zip(before.token_ids, after.token_ids, strict=False)
        same = next((place for place, (one, two) in enumerate(pairs) if one != two), len(before.token_ids))
        found = next((token for token in after.token_ids[same:] if token in self.end_token_ids), None)
        if found is None:
            raise ModelError(
                "the chat template ends no reply by a token that the model stops at: it cannot be taught to"
            )
        return found

    @classmethod
    def lora_targets(cls, *parts: str) -> str:
        """Pattern, for peft, of the matrices of the LLM and of nothing else.

        Args:
            parts: "attention", "mlp"; all if none is named.

        Raises:
            ModelError: an unknown part.
        """
        if unknown := set(parts) - set(cls.lora_names):
            raise ModelError(f"no matrices called {sorted(unknown)}: known are {', '.join(cls.lora_names)}")
        names = [name for part in parts or cls.lora_names for name in cls.lora_names[part]]
        return rf".*language_model.*\.({'|'.join(names)})"

    @property
    def repetition_penalty(self) -> float:
        """Of the checkpoint's generation config: `generate` applies it to greedy decoding too."""
        return float(getattr(self.model.generation_config, "repetition_penalty", None) or 1.0)

    @property
    def pad_token_id(self) -> int:
        """What stands left of a short prompt: the tokenizer's, or any token where it has none, since it is masked."""
        found = self.tokenizer.pad_token_id
        return 0 if found is None else int(found)

    def _unwritten_ids(self) -> frozenset[int]:
        """The tokenizer's special tokens and ids that stand for no text."""
        vocabulary: int = self.language_model.config.get_text_config(decoder=True).vocab_size
        return frozenset({*self.tokenizer.all_special_ids, *range(len(self.tokenizer), vocabulary)})

    @abstractmethod
    def text(self, conversation: Conversation) -> str:
        """The conversation as one string up to where the reply begins, one placeholder for each audio part.

        An assistant turn that is to be continued stands behind the template's opening of a reply, as it is, audio
        at its end included.

        Raises:
            ConversationError: there is nothing to reply to, or a text part holds the placeholder.
        """

    @abstractmethod
    def audio_ids(self, audio: Audio) -> list[int]:
        """All the tokens that stand for an audio part: placeholders, marks around them, time markers.

        Raises:
            EarnestError: the model cannot take this clip.
        """

    @abstractmethod
    def heard_s(self, audio: Audio) -> float:
        """Seconds of the clip that its placeholders in `audio_ids` stand for: less than all if it was cut."""

    @abstractmethod
    def encode(self, audio: Sequence[Audio]) -> list[Tensor]:
        """Soft tokens [F, D] of each audio part, as many as its `audio_ids` hold placeholders."""

    @abstractmethod
    def embed(self, token_ids: Tensor, audio: Sequence[Tensor]) -> Tensor:
        """Embeddings [B, T, D] of token ids [B, T], soft tokens in the place of the placeholders, in order."""

    def render(self, conversations: Sequence[Conversation]) -> list[Prompt | EarnestError]:
        """A prompt for each conversation, or the error that keeps it from being one."""
        rendered: list[Prompt | EarnestError | None] = []
        texts: list[str] = []
        for conversation in conversations:
            try:
                texts.append(self.text(conversation))
                rendered.append(None)
            except EarnestError as error:
                rendered.append(error)
        tokenized = iter(self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        return [
            fault if fault is not None else self._expand(next(tokenized), conversation)
            for fault, conversation in zip(rendered, conversations, strict=True)
        ]

    def continuation_ids(self, text: str) -> list[int]:
        """Token ids of a text by itself, as it may follow a prompt."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def reply_text(self, prompt_ids: Sequence[int], reply_ids: Sequence[int]) -> str:
        """Text of a reply. A reply that goes on in the middle of a sentence keeps the blank it begins with."""
        return self._reply_texts(prompt_ids, [reply_ids])[0]

    def token_ends(self, prompt_ids: Sequence[int], reply_ids: Sequence[int], text: str) -> tuple[int, ...]:
        """Where each token of a reply ends in its text.

        Args:
            prompt_ids: what stands before.
            reply_ids: [T].
            text: of the reply.

        Returns:
            [T] rising places in characters. Tokens without text (the end of the turn) end where the text does.
        """
        begun = self._reply_texts(prompt_ids, [reply_ids[: count + 1] for count in range(len(reply_ids))])
        ends = [min(len(part), len(text)) for part in begun]
        # The bytes of one character are shown as several until it is whole.
        for place in reversed(range(len(ends) - 1)):
            ends[place] = min(ends[place], ends[place + 1])
        return tuple(ends)

    def _reply_texts(self, prompt_ids: Sequence[int], replies: Sequence[Sequence[int]]) -> list[str]:
        """Texts of several replies to one prompt, or of one reply's beginnings."""
        context: list[int] = []
        outside = self.structural_token_ids | self.end_token_ids
        for token in reversed(prompt_ids[-CONTEXT_TOKENS:]):
            if token in outside:
                break
            context.insert(0, token)
        before, *wholes = self._decoded([context, *([*context, *reply] for reply in replies)])
        # A context that ends within a character decodes differently alone: then the reply stands by itself.
        return [
            whole[len(before) :] if whole.startswith(before) else self._decoded([reply])[0]
            for whole, reply in zip(wholes, replies, strict=True)
        ]

    def _decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return self.tokenizer.batch_decode(
            [list(row) for row in rows], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def token_texts(self) -> list[str]:
        """Text of every token id by itself."""
        return self.tokenizer.batch_decode(
            [[index] for index in range(len(self.tokenizer))], clean_up_tokenization_spaces=False
        )

    def _expand(self, token_ids: Sequence[int], conversation: Conversation) -> Prompt | EarnestError:
        """Replaces each placeholder by the tokens of its audio part."""
        audio = conversation.audio
        if (found := list(token_ids).count(self.audio_token_id)) != len(audio):
            return ConversationError(
                f"the model's chat template makes {found} places for {len(audio)} clips: it repeats or drops audio, so "
                "another template is needed"
            )
        ids: list[int] = []
        counts: list[int] = []
        remaining = iter(audio)
        try:
            for token in token_ids:
                if token == self.audio_token_id:
                    own = self._audio_ids(next(remaining))
                    counts.append(own.count(self.audio_token_id))
                    ids += own
                else:
                    ids.append(token)
        except EarnestError as error:
            return error
        heard_s = sum(self.heard_s(part) for part in audio)
        return Prompt(tuple(ids), audio, tuple(counts), Heard(conversation.audio_s, heard_s, sum(counts)))

    def _audio_ids(self, audio: Audio) -> list[int]:
        if self.max_audio_s is not None and audio.clip.duration_s > self.max_audio_s:
            raise ModelError(
                f"clip {audio.clip.source or audio.clip.key} lasts {audio.clip.duration_s:.2f} s, the model takes at "
                f"most {self.max_audio_s:.2f} s: crop it"
            )
        return self.audio_ids(audio)


def find_family(model_type: str) -> type[Family]:
    """The family of an architecture.

    Raises:
        ModelError: no family has this `model_type`.
    """
    if model_type in TEXT_LLMS:
        from earnest.engines.families.text import TextFamily

        return TextFamily
    if model_type not in FAMILIES:
        raise ModelError(
            f"no family for the architecture {model_type!r}: known are {', '.join(sorted({*FAMILIES, *TEXT_LLMS}))}; "
            "add a file to earnest/engines/families"
        )
    module, _, name = FAMILIES[model_type].partition(":")
    with needs_extra(EXTRAS[model_type]) if model_type in EXTRAS else nullcontext():
        return getattr(importlib.import_module(module), name)
