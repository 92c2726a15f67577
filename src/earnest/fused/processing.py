"""Text with audio slots -> input_ids with placeholders, marks and time markers.

A clip's layout: <start_audio> 00:00 s s s s 00:01 s s s s ... <end_audio>; each s is one audio placeholder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from earnest.audio import Clip
from earnest.conversation import Conversation
from earnest.errors import ConversationError, ModelError
from earnest.fused.configuration import SAMPLE_RATE_HZ, FusedConfig, TokenBudget

ClipShape = tuple[int, bool, float]
"""What the prompt depends on: samples at 16 kHz, whether fine, and its start in the recording in seconds."""


class FusedProcessor(ProcessorMixin):
    """Builds a fused model's inputs.

    Args:
        tokenizer: with the audio tokens, and a chat template if conversations are to be rendered.
        budgets: by pass, `TokenBudget`s as dicts.
        audio_token: one slot in a text, and the placeholder of one soft token.
        audio_start_token: stands before a clip, None for nothing.
        audio_end_token: stands after a clip, None for nothing.
        time_marker_s: whole seconds between the markers of a clip, None for none.
        time_marker_format: the tokenizer's piece of a moment, with `{clock}` for MM:SS.
        chat_template: overrides the tokenizer's.

    Raises:
        ModelError: a token that the tokenizer does not have, or markers that cannot be placed.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        budgets: Mapping[str, Mapping[str, Any]],
        audio_token: str = "<audio>",
        audio_start_token: str | None = "<start_audio>",
        audio_end_token: str | None = "<end_audio>",
        time_marker_s: float | None = None,
        time_marker_format: str = "{clock}",
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        self.tokenizer = tokenizer
        self.budgets = {name: dict(budget) for name, budget in budgets.items()}
        self.audio_token = audio_token
        self.audio_start_token = audio_start_token
        self.audio_end_token = audio_end_token
        self.time_marker_s = time_marker_s
        self.time_marker_format = time_marker_format
        self._budgets = {name: TokenBudget.from_dict(budget) for name, budget in self.budgets.items()}
        self.audio_token_id = self._id(audio_token)
        self._start = [self._id(audio_start_token)] if audio_start_token else []
        self._end = [self._id(audio_end_token)] if audio_end_token else []
        if time_marker_s is not None:
            if time_marker_s < 1 or time_marker_s != int(time_marker_s):
                raise ModelError(f"time_marker_s {time_marker_s}: markers read MM:SS, so give whole seconds, or None")
            if "{clock}" not in time_marker_format:
                raise ModelError(f"time_marker_format {time_marker_format!r} names no moment: put {{clock}} into it")
            # Latents that follow the last moment of a whole clip are in nobody's way.
            timeless = [
                n for n, b in self._budgets.items() if b.extra_per_clip or (b.extra_per_chunk and b.chunk_samples)
            ]
            if timeless:
                raise ModelError(
                    f"time markers cannot be placed in pass {', '.join(timeless)}: its latents or "
                    "boundary vectors belong to no moment; set time_marker_s to None"
                )

    @classmethod
    def from_config(cls, config: FusedConfig, tokenizer: PreTrainedTokenizerBase, **options: Any) -> FusedProcessor:
        """The processor of a model.

        Args:
            config: of the model.
            tokenizer: of its LLM.
            options: of the constructor.

        Raises:
            ModelError: the model's placeholder is another token.
        """
        budgets = {name: config.budget(name).to_dict() for name in config.pass_specs}
        processor = cls(tokenizer, budgets, **options)
        if processor.audio_token_id != config.audio_token_id:
            raise ModelError(
                f"{processor.audio_token!r} has id {processor.audio_token_id}, the model's audio_token_id is "
                f"{config.audio_token_id}"
            )
        return processor

    def over(self, config: FusedConfig) -> FusedProcessor:
        """The same tokens and markers over the passes of another model.

        Raises:
            ModelError: that model's placeholder is another token, or its passes leave no place for the markers.
        """
        return FusedProcessor.from_config(
            config,
            self.tokenizer,
            audio_token=self.audio_token,
            audio_start_token=self.audio_start_token,
            audio_end_token=self.audio_end_token,
            time_marker_s=self.time_marker_s,
            time_marker_format=self.time_marker_format,
        )

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return ["input_ids", "attention_mask", "audio", "fine"]

    # One clip

    def audio_tokens(self, num_samples: int, fine: bool = False) -> int:
        """Soft tokens of a clip of `num_samples` samples at 16 kHz."""
        return sum(budget.tokens(num_samples) for budget in self._heard(fine))

    def covered_samples(self, tokens: int, num_samples: int, fine: bool = False) -> int:
        """Samples at 16 kHz that `tokens` soft tokens of a clip of `num_samples` samples stand for."""
        # An ensemble hears all of a clip twice: what the first of them covers is what is heard.
        first = self._heard(fine)[0]
        return first.covered_samples(min(tokens, first.tokens(num_samples)), num_samples)

    def max_audio_s(self) -> float | None:
        """Where the last time marker's interval ends in a recording, in seconds; None without markers.

        Raises:
            ModelError: the tokenizer has not even a piece for the first moment.
        """
        if self.time_marker_s is None:
            return None
        self.time_token(0)
        second = 0
        while self._find(self._time_piece(second)) is not None:
            second += int(self.time_marker_s)
        return float(second)

    def time_token(self, second: int) -> int:
        """Id of the tokenizer's piece for a moment, "MM:SS" in `time_marker_format`.

        Raises:
            ModelError: the tokenizer has no such piece.
        """
        return self._id(self._time_piece(second))

    def _time_piece(self, second: int) -> str:
        return self.time_marker_format.format(clock=f"{second // 60:02d}:{second % 60:02d}")

    def audio_ids(self, num_samples: int, fine: bool = False, offset_s: float = 0.0) -> list[int]:
        """All tokens of one clip: start, time markers, placeholders, end.

        A crop begins with the marker of the second it lies in; a marker stands before the first soft token
        that begins in its interval.

        Args:
            num_samples: at 16 kHz.
            fine: a re-listened segment.
            offset_s: where the clip starts in its recording.

        Raises:
            AudioError: no samples.
            ModelError: no fine pass, or no piece for a moment of the clip.
        """
        return [token for budget in self._heard(fine) for token in self._marked(budget, num_samples, offset_s)]

    def _marked(self, budget: TokenBudget, num_samples: int, offset_s: float) -> list[int]:
        """One pass's tokens of a clip, with start, end and markers."""
        tokens = budget.tokens(num_samples)
        if self.time_marker_s is None:
            return [*self._start, *[self.audio_token_id] * tokens, *self._end]
        marker_s = int(self.time_marker_s)
        offset = round(offset_s * SAMPLE_RATE_HZ)
        ids = list(self._start)
        marked = -1
        for token in range(tokens - budget.extra_per_chunk):
            interval = (offset + token * budget.samples_per_token) // (marker_s * SAMPLE_RATE_HZ)
            if interval != marked:
                ids.append(self.time_token(interval * marker_s))
                marked = interval
            ids.append(self.audio_token_id)
        return [*ids, *[self.audio_token_id] * budget.extra_per_chunk, *self._end]

    def _heard(self, fine: bool) -> list[TokenBudget]:
        """The passes through which a clip is heard, one after the other."""
        name = "fine" if fine else "first"
        if name not in self._budgets:
            raise ModelError(f"the model has no {name!r} pass; it has {', '.join(self._budgets) or 'none'}")
        names = [name] if fine or "second" not in self._budgets else [name, "second"]
        return [self._budgets[own] for own in names]

    def _id(self, piece: str) -> int:
        found = self._find(piece)
        if found is None:
            raise ModelError(f"the tokenizer has no piece {piece!r}; add it, or choose another in the processor config")
        return found

    def _find(self, piece: str) -> int | None:
        """Id of a piece, None if the tokenizer does not have it."""
        found: Any = self.tokenizer.convert_tokens_to_ids(piece)
        if found is None or (found == self.tokenizer.unk_token_id and piece != self.tokenizer.unk_token):
            return None
        return int(found)

    # Texts

    def input_ids(self, text: str, clips: Sequence[ClipShape] = ()) -> list[int]:
        """Tokens of a rendered text, each audio slot replaced by its clip's tokens.

        Args:
            text: with one `audio_token` per clip.
            clips: (samples at 16 kHz, fine, offset in seconds) of each, in order.

        Raises:
            ConversationError: another number of slots than clips.
        """
        pieces: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        slots = pieces.count(self.audio_token_id)
        if slots != len(clips):
            raise ConversationError(
                f"the text holds {slots} {self.audio_token!r} slots for {len(clips)} clips; write one where "
                "each clip is heard, and none elsewhere"
            )
        remaining = iter(clips)
        ids: list[int] = []
        for piece in pieces:
            ids.extend(self.audio_ids(*next(remaining)) if piece == self.audio_token_id else [piece])
        return ids

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        text: str | Sequence[str],
        audio: Sequence[Clip | NDArray[np.floating]] | None = None,
        fine: Sequence[bool] | None = None,
        sampling_rate: int = SAMPLE_RATE_HZ,
        padding: bool = True,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """Model inputs of rendered texts.

        Args:
            text: one or several, one `audio_token` per clip.
            audio: clips, flat over the batch, in reading order.
            fine: which of them are re-listened segments.
            sampling_rate: in Hz, of clips given as arrays [S].
            padding: pad to the longest on the tokenizer's side.
            return_tensors: "pt", or None for lists.

        Returns:
            input_ids and attention_mask [B, T]; audio: arrays [S] at 16 kHz; fine: a flag for each.
            `FusedModel.generate` takes all of them.

        Raises:
            ConversationError: slots and clips differ in number.
            ModelError: padding without a padding token.
        """
        texts = [text] if isinstance(text, str) else list(text)
        clips = [c if isinstance(c, Clip) else Clip(np.asarray(c, np.float32), sampling_rate) for c in audio or ()]
        flags = [bool(flag) for flag in fine] if fine is not None else [False] * len(clips)
        if len(flags) != len(clips):
            raise ConversationError(f"{len(flags)} fine flags for {len(clips)} clips; give one for each")
        clips = [clip.resampled(SAMPLE_RATE_HZ) for clip in clips]
        shapes = [(c.samples.size, flag, c.offset_s) for c, flag in zip(clips, flags, strict=True)]
        rows: list[list[int]] = []
        for index, one in enumerate(texts):
            # The last text takes all that is left, so that a surplus of clips is noticed.
            slots = one.count(self.audio_token) if index < len(texts) - 1 else len(shapes)
            rows.append(self.input_ids(one, shapes[:slots]))
            shapes = shapes[slots:]
        data: dict[str, Any] = self._padded(rows, padding, return_tensors)
        if audio is not None:
            data |= {"audio": [clip.samples for clip in clips], "fine": flags}
        return BatchFeature(data)

    def _padded(self, rows: list[list[int]], padding: bool, return_tensors: str | None) -> dict[str, Any]:
        longest = max(len(row) for row in rows)
        if padding and self.tokenizer.pad_token_id is None and any(len(row) < longest for row in rows):
            raise ModelError("the tokenizer has no padding token; set tokenizer.pad_token to one that is not its EOS")
        if not padding:
            longest = 0
        ids: list[list[int]] = []
        masks: list[list[int]] = []
        left = self.tokenizer.padding_side == "left"
        for row in rows:
            fill = [cast(int, self.tokenizer.pad_token_id)] * (longest - len(row))
            mask = [0] * len(fill)
            ids.append([*fill, *row] if left else [*row, *fill])
            masks.append([*mask, *[1] * len(row)] if left else [*[1] * len(row), *mask])
        if return_tensors is None:
            return {"input_ids": ids, "attention_mask": masks}
        import torch

        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks)}

    # Conversations

    def render(self, conversation: Conversation, add_generation_prompt: bool = True) -> str:
        """A conversation as text, each audio part as one slot.

        The assistant's last turn is continued as it stands, behind the template's opening of a reply:
        templates strip or rewrite such turns.

        Args:
            conversation: with audio in any turn.
            add_generation_prompt: open the reply; without it the template closes the assistant's last turn.

        Raises:
            ConversationError: a text part holds the slot, or there is nothing to reply to.
        """
        begun = conversation.begun if add_generation_prompt else None
        # Without an opening the assistant's last turn is a turn like any other.
        turns = conversation.turns if conversation.begun and not begun else conversation.answered_turns
        messages = [{"role": turn.role, "content": turn.written(self.audio_token)} for turn in turns]
        template: Any = self.chat_template or getattr(self.tokenizer, "chat_template", None)
        if template is None:
            raise ModelError("neither the processor nor its tokenizer has a chat template; set tokenizer.chat_template")
        opened = self.tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return cast(str, opened) + (begun.written(self.audio_token) if begun else "")

    def apply_chat_template(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        conversation: Sequence[Any],
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = True,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> Any:
        """Messages in Hugging Face's form -> text, or model inputs.

        Args:
            conversation: messages, or a list of such lists; parts {"type": "text", "text": ...} and
                {"type": "audio", "audio": array, "sampling_rate": Hz}, or with a local "path"; in any turn.
            add_generation_prompt: open the reply.
            continue_final_message: go on with the assistant's last message.
            tokenize: return `__call__`'s inputs instead of text.
            return_dict: else only the input_ids.
            return_tensors: "pt" or None.
        """
        batched = bool(conversation) and not isinstance(conversation[0], Mapping)
        read = [Conversation.from_hf(one) for one in (conversation if batched else [conversation])]
        open_reply = add_generation_prompt or continue_final_message
        texts = [self.render(one, add_generation_prompt=open_reply) for one in read]
        if not tokenize:
            return texts if batched else texts[0]
        clips = [part for one in read for part in one.audio]
        inputs = self(
            texts,
            audio=[part.clip for part in clips] or None,
            fine=[part.fine for part in clips] or None,
            return_tensors=return_tensors,
        )
        return inputs if return_dict else inputs["input_ids"]
