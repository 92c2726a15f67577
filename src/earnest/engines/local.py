"""The engine that runs a transformers model in this process, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from earnest.completion import Completion, Heard, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines.audio_cache import AudioCache, AudioKey
from earnest.engines.decoding import Job, StopFinder, decode, left_pad, positions_of
from earnest.engines.engine import Capabilities
from earnest.engines.families.family import Family, Prompt
from earnest.engines.weights import state_key, weights_stamp
from earnest.errors import EarnestError, ModelError

ENCODE_SECONDS = 600.0
"""Audio that is encoded at once, padding included, in seconds."""


GREEDY = Sampling()


@dataclass(frozen=True)
class _Item:
    """A request that can be run: its place among the requests, its prompt and what is asked of it."""

    place: int
    prompt: Prompt
    sampling: Sampling
    key: str

    @property
    def columns(self) -> int:
        """Most columns that it may take in a batch."""
        return len(self.prompt.token_ids) + self.sampling.max_new_tokens


class LocalEngine:
    """Answers in batches of requests of similar length; each distinct clip is encoded once.

    Memory is bounded by `token_budget`: a batch holds at most so many rows times columns (prompt and longest reply),
    and at least one row. Soft tokens of clips are kept up to `audio_cache_bytes`, least recently used leave first;
    they are forgotten when the weights change.

    Args:
        family: the loaded model.
        name: what the user called it.
        key: content key of the weights as loaded; None: hashed from memory when first asked for.
        batch_size: most rows of a batch.
        token_budget: most rows times columns of a batch.
        audio_cache_bytes: bound of the cache of soft tokens.
    """

    def __init__(
        self,
        family: Family,
        *,
        name: str,
        key: str | None = None,
        batch_size: int = 64,
        token_budget: int = 49_152,
        audio_cache_bytes: int = 256 * 2**20,
    ) -> None:
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}: it must be at least 1")
        self.family = family
        self.name = name
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.audio_cache = AudioCache(audio_cache_bytes)
        self._stops = StopFinder(family.token_texts)
        self._stamp = weights_stamp(family.model)
        self._key = key

    @property
    def capabilities(self) -> Capabilities:
        """Everything: the model is at hand."""
        return Capabilities(
            continues_assistant=True, audio_in_assistant=True, logprobs=True, hidden_states=True, trainable=True
        )

    @property
    def settings(self) -> dict[str, str]:
        """Device and type of the weights."""
        model: Any = self.family.model
        return {"device": model.device.type, "dtype": str(model.dtype).removeprefix("torch.")}

    @property
    def key(self) -> str:
        """Content key of the weights; a new one after they were trained in place."""
        self._notice_training()
        if self._key is None:
            self._key = state_key(self.family.model)
        return self._key

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling | Sequence[Sampling] = GREEDY
    ) -> list[Completion]:
        """One completion for each conversation, in order; see `Engine.generate`.

        A request that the model cannot take (clip too long, prompt beyond the context, ...) is a completion with
        `Stop.FAILED` and its error; the others go on.
        """
        samplings = [sampling] * len(conversations) if isinstance(sampling, Sampling) else list(sampling)
        if len(samplings) != len(conversations):
            raise ModelError(
                f"{len(samplings)} samplings for {len(conversations)} conversations: give one, or one for each"
            )
        done: list[Completion | None] = [None] * len(conversations)
        items: list[_Item] = []
        for place, prompt in enumerate(self.family.render(conversations)):
            fault = prompt if isinstance(prompt, EarnestError) else self._beyond_context(prompt)
            if fault is not None:
                given = Heard(seconds_given=conversations[place].audio_s)
                done[place] = Completion(text="", stop=Stop.FAILED, heard=given, error=str(fault))
                continue
            assert isinstance(prompt, Prompt)
            asked = self._within_context(samplings[place], prompt)
            items.append(_Item(place, prompt, asked, conversations[place].key))
        with self._answering():
            for batch in self._batches(items):
                for item, completion in zip(batch, self._answer(batch), strict=True):
                    done[item.place] = completion
        completions = [completion for completion in done if completion is not None]
        assert len(completions) == len(conversations), "a request was neither answered nor refused"
        return completions

    def logprobs(
        self, conversations: Sequence[Conversation], continuations: Sequence[str | Sequence[int]]
    ) -> list[Tensor]:
        """Log-probability of every token of each continuation, [T] float32 each, on the CPU; see `Engine.logprobs`.

        Raises:
            EarnestError: a conversation that the model cannot take.
        """
        if len(conversations) != len(continuations):
            raise ModelError(
                f"{len(continuations)} continuations for {len(conversations)} conversations: give one each"
            )
        ids = [tuple(self.family.continuation_ids(c) if isinstance(c, str) else c) for c in continuations]
        found: list[Tensor] = [torch.zeros(0)] * len(ids)

        def collect(batch: list[_Item], logits: Tensor) -> None:
            for row, item in enumerate(batch):
                said = torch.tensor(ids[item.place], device=logits.device)
                if len(said):
                    own = logits[row, -len(said) - 1 : -1].float().log_softmax(-1)
                    found[item.place] = own.gather(1, said[:, None])[:, 0].cpu()

        self._score(conversations, ids, collect)
        return found

    def last_hidden(self, conversations: Sequence[Conversation]) -> Tensor:
        """[N, D] float32 on the CPU: what the LM head is given at the last token before the reply.

        Raises:
            EarnestError: a conversation that the model cannot take.
        """
        head = self.family.language_model.get_output_embeddings()
        found: list[Tensor] = [torch.zeros(0)] * len(conversations)
        given: list[Tensor] = []

        def keep(_module: Any, inputs: tuple[Tensor, ...]) -> None:
            given.append(inputs[0][:, -1])

        def collect(batch: list[_Item], _logits: Tensor) -> None:
            for item, vector in zip(batch, given.pop().float().cpu(), strict=True):
                found[item.place] = vector

        handle = head.register_forward_pre_hook(keep)
        try:
            self._score(conversations, [()] * len(conversations), collect)
        finally:
            handle.remove()
        return torch.stack(found) if found else torch.zeros(0, head.weight.shape[1])

    def _score(
        self,
        conversations: Sequence[Conversation],
        continuations: Sequence[tuple[int, ...]],
        collect: Callable[[list[_Item], Tensor], None],
    ) -> None:
        """Runs prompts with their continuations through the model; `collect` gets items and logits [B, n + 1, V].

        n is the longest continuation of the batch.
        """
        items: list[_Item] = []
        for place, prompt in enumerate(self.family.render(conversations)):
            if isinstance(prompt, EarnestError):
                raise prompt
            whole = replace(prompt, token_ids=(*prompt.token_ids, *continuations[place]))
            if (fault := self._beyond_context(whole)) is not None:
                raise fault
            items.append(_Item(place, whole, Sampling(max_new_tokens=1), ""))
        with self._answering():
            for batch in self._batches(items):
                embeds, mask = self._embed(batch)
                output = self.family.language_model(
                    inputs_embeds=embeds,
                    attention_mask=mask,
                    position_ids=positions_of(mask),
                    use_cache=False,
                    logits_to_keep=1 + max(len(continuations[item.place]) for item in batch),
                )
                collect(batch, output.logits)

    def _answer(self, batch: list[_Item]) -> list[Completion]:
        began = time.perf_counter()
        embeds, mask = self._embed(batch)
        replies = decode(
            self.family.language_model,
            embeds,
            mask,
            [Job(i.sampling, i.key, partial(self.family.reply_text, i.prompt.token_ids)) for i in batch],
            end_ids=self.family.end_token_ids,
            banned_ids=self.family.structural_token_ids,
            stops=self._stops,
        )
        seconds = (time.perf_counter() - began) / len(batch)
        return [
            Completion(
                text=reply.text,
                stop=reply.stop,
                token_ids=tuple(reply.token_ids),
                logprobs=tuple(reply.logprobs),
                token_ends=self.family.token_ends(item.prompt.token_ids, reply.token_ids, reply.text),
                prompt_tokens=len(item.prompt.token_ids),
                heard=item.prompt.heard,
                seconds=seconds,
            )
            for item, reply in zip(batch, replies, strict=True)
        ]

    def _batches(self, items: Sequence[_Item]) -> Iterator[list[_Item]]:
        """Items of similar length together, the longest first, within both bounds."""
        batch: list[_Item] = []
        for item in sorted(items, key=lambda item: (-item.columns, item.place)):
            widest = max(batch[0].columns, item.columns) if batch else item.columns
            if batch and (len(batch) == self.batch_size or (len(batch) + 1) * widest > self.token_budget):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _embed(self, batch: Sequence[_Item]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, T, D] and mask [B, T] of a batch, padded on the left."""
        ids, mask = left_pad(
            [item.prompt.token_ids for item in batch], self.family.pad_token_id, self.family.model.device
        )
        heard = self._encode([audio for item in batch for audio in item.prompt.audio])
        soft = [heard[_audio_key(audio)] for item in batch for audio in item.prompt.audio]
        return self.family.embed(ids, soft), mask

    def _encode(self, audio: Sequence[Audio]) -> dict[AudioKey, Tensor]:
        """Soft tokens [F, D] of every distinct clip, from the cache or encoded in groups of similar duration."""
        found: dict[AudioKey, Tensor] = {}
        missing: dict[AudioKey, Audio] = {}
        for part in audio:
            key = _audio_key(part)
            if key in found or key in missing:
                continue
            tokens = self.audio_cache.get(key)
            if tokens is None:
                missing[key] = part
            else:
                found[key] = tokens
        for group in _groups(list(missing.values())):
            for part, tokens in zip(group, self.family.encode(group), strict=True):
                found[_audio_key(part)] = tokens
                self.audio_cache.put(_audio_key(part), tokens)
        return found

    def _beyond_context(self, prompt: Prompt) -> EarnestError | None:
        limit, length = self.family.context_tokens, len(prompt.token_ids)
        if limit is None or length < limit:
            return None
        return ModelError(
            f"the prompt has {length} tokens ({prompt.heard.audio_tokens} of them audio), {self.name} takes fewer than "
            f"{limit}: shorten the text or crop the audio"
        )

    def _within_context(self, sampling: Sampling, prompt: Prompt) -> Sampling:
        """The sampling with its limit cut to what the context leaves; such a reply ends as `Stop.LENGTH`."""
        if self.family.context_tokens is None:
            return sampling
        room = self.family.context_tokens - len(prompt.token_ids)
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))

    def _notice_training(self) -> None:
        stamp = weights_stamp(self.family.model)
        if stamp != self._stamp:
            self._stamp = stamp
            self._key = None
            self.audio_cache.clear()

    @contextmanager
    def _answering(self) -> Generator[None]:
        """Inference with every module in evaluation mode; afterwards each is as it was."""
        self._notice_training()
        training: list[Any] = [module for module in self.family.model.modules() if module.training]
        self.family.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for module in training:
                module.training = True


def _audio_key(audio: Audio) -> AudioKey:
    return audio.clip.key, audio.fine


def _groups(audio: list[Audio]) -> Iterator[list[Audio]]:
    """Audio parts of similar duration together, padded at most `ENCODE_SECONDS` at once, at least one."""
    group: list[Audio] = []
    for part in sorted(audio, key=lambda part: -part.clip.duration_s):
        if group and (len(group) + 1) * group[0].clip.duration_s > ENCODE_SECONDS:
            yield group
            group = []
        group.append(part)
    if group:
        yield group
