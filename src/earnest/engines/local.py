"""The engine that runs a transformers model in this process, in batches."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.completion import Completion, Heard, Sampling, Stop, content_key
from earnest.conversation import Conversation
from earnest.engines.decoding import Job, StopFinder, decode
from earnest.engines.engine import Capabilities, each_sampling
from earnest.engines.families.family import Family, Prompt
from earnest.engines.linear import fast_linear
from earnest.engines.lora import adapter_key, dialled
from earnest.engines.prefill import Prefilled
from earnest.engines.sharing import Answer, Request, SharedPrefill
from earnest.engines.weights import Stamp, adapter_state, state_key, weights_stamp
from earnest.errors import EarnestError, ModelError

GREEDY = Sampling()


class LocalEngine:
    """Answers in batches of similar length; each distinct clip is encoded once, and each distinct prefix run once.

    What is bounded, and how, is said by `SharedPrefill`. All that is kept is forgotten when the weights change.

    Args:
        family: the loaded model.
        name: what the user called it.
        key: content key of the weights as loaded; None: hashed from memory when first asked for.
        batch_size: most rows of a batch.
        token_budget: most rows times columns (prompt and longest reply) of a batch; None: 24,576 on a CPU, else 49,152.
        prefix_cache_bytes: bound of the keys and values that are kept beyond a call; 0 for none.
        audio_cache_bytes: bound of the soft tokens that are kept.
    """

    def __init__(
        self,
        family: Family,
        *,
        name: str,
        key: str | None = None,
        batch_size: int = 64,
        token_budget: int | None = None,
        prefix_cache_bytes: int = 512 * 2**20,
        audio_cache_bytes: int = 256 * 2**20,
    ) -> None:
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}: it must be at least 1")
        self.family = family
        self.name = name
        self.shared = SharedPrefill(
            family,
            batch_size=batch_size,
            token_budget=token_budget or (24_576 if family.model.device.type == "cpu" else 49_152),
            prefix_cache_bytes=prefix_cache_bytes,
            audio_cache_bytes=audio_cache_bytes,
        )
        self._stops = StopFinder(family.token_texts)
        self._stamp = weights_stamp(family.model)
        self._keys: dict[Stamp, str] = {} if key is None else {self._stamp: key}

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
        """Content key of the weights; another one after they were trained in place, or adapters were switched."""
        self._notice_change()
        if self._stamp not in self._keys:
            model = self.family.model
            self._keys[self._stamp] = content_key([state_key(model), adapter_state(model)])
        return self._keys[self._stamp]

    @contextmanager
    def wearing(self, adapter: Path | str, strength: float = 1.0) -> Generator[None]:
        """Within it the model wears an adapter that peft saved; afterwards it is bit for bit what it was.

        Args:
            adapter: its folder.
            strength: the dial: a multiplier of what was trained.

        Raises:
            ModelError: the adapter does not fit, or the model wears one already.
        """
        folder = Path(adapter)
        made_of = [self.key, adapter_key(folder), *([strength] if strength != 1 else [])]
        with dialled(self.family.model, folder, strength):
            self._notice_change()
            self._keys[self._stamp] = content_key(made_of)
            yield

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling | Sequence[Sampling] = GREEDY
    ) -> list[Completion]:
        """One completion for each conversation, in order; see `Engine.generate`.

        A request that the model cannot take (clip too long, prompt beyond the context, ...) is a completion with
        `Stop.FAILED` and its error; the others go on.
        """
        samplings = each_sampling(sampling, len(conversations))
        done: list[Completion | None] = [None] * len(conversations)
        requests: list[Request] = []
        jobs: dict[int, Job] = {}
        for place, prompt in enumerate(self.family.render(conversations)):
            fault = prompt if isinstance(prompt, EarnestError) else self._beyond_context(prompt)
            if fault is not None:
                given = Heard(seconds_given=conversations[place].audio_s)
                done[place] = Completion(text="", stop=Stop.FAILED, heard=given, error=str(fault))
                continue
            assert isinstance(prompt, Prompt)
            asked = self._within_context(samplings[place], prompt)
            requests.append(Request(place, prompt, asked.max_new_tokens))
            text_of = partial(self.family.reply_text, prompt.token_ids)
            jobs[place] = Job(asked, conversations[place].key, text_of, prompt.token_ids)
        began = time.perf_counter()

        def answer(batch: list[Request], begun: Prefilled) -> None:
            nonlocal began
            completions = self._answer(batch, begun, [jobs[request.place] for request in batch])
            ended = time.perf_counter()
            for request, completion in zip(batch, completions, strict=True):
                done[request.place] = replace(completion, seconds=(ended - began) / len(batch))
            began = ended

        def refuse(request: Request, error: ModelError) -> None:
            given = Heard(seconds_given=request.prompt.heard.seconds_given)
            done[request.place] = Completion(text="", stop=Stop.FAILED, heard=given, error=str(error))

        with self._answering():
            self.shared.run(requests, answer, refuse)
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

        def collect(batch: list[Request], begun: Prefilled) -> None:
            for row, request in enumerate(batch):
                said = torch.tensor(ids[request.place], device=begun.logits.device)
                if len(said):
                    own = begun.logits[row, -len(said) - 1 : -1].float().log_softmax(-1)
                    found[request.place] = own.gather(1, said[:, None])[:, 0].cpu()

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

        def remember(_module: Any, inputs: tuple[Tensor, ...]) -> None:
            given.append(inputs[0][:, -1])

        def collect(batch: list[Request], begun: Prefilled) -> None:
            # The last call of the head was this batch's; those before it were of prefixes.
            vectors = given[-1].float().cpu()
            given.clear()
            for request, row in zip(batch, begun.rows, strict=True):
                found[request.place] = vectors[row]

        handle = head.register_forward_pre_hook(remember)
        try:
            self._score(conversations, [()] * len(conversations), collect)
        finally:
            handle.remove()
        return torch.stack(found) if found else torch.zeros(0, head.weight.shape[1])

    def _score(
        self,
        conversations: Sequence[Conversation],
        continuations: Sequence[tuple[int, ...]],
        collect: Answer,
    ) -> None:
        """Runs prompts with their continuations through the model; `collect` gets logits [B, n + 1, V].

        n is the longest continuation of the batch.
        """
        requests: list[Request] = []
        for place, prompt in enumerate(self.family.render(conversations)):
            if isinstance(prompt, EarnestError):
                raise prompt
            whole = replace(prompt, token_ids=(*prompt.token_ids, *continuations[place]))
            if (fault := self._beyond_context(whole)) is not None:
                raise fault
            requests.append(Request(place, whole, keep=1 + len(continuations[place])))

        def refuse(_: Request, error: ModelError) -> None:
            raise error

        with self._answering():
            self.shared.run(requests, collect, refuse)

    def _answer(self, batch: list[Request], begun: Prefilled, jobs: list[Job]) -> list[Completion]:
        replies = decode(
            self.family.language_model,
            begun,
            jobs,
            end_ids=self.family.end_token_ids,
            banned_ids=self.family.structural_token_ids,
            stops=self._stops,
            repetition_penalty=self.family.repetition_penalty,
            on_reply=lambda row, layers, said: self.shared.keep(batch[row], layers, said),
        )
        return [
            Completion(
                text=reply.text,
                stop=reply.stop,
                token_ids=tuple(reply.token_ids),
                logprobs=tuple(reply.logprobs),
                token_ends=self.family.token_ends(request.prompt.token_ids, reply.token_ids, reply.text),
                prompt_tokens=len(request.prompt.token_ids),
                heard=request.prompt.heard,
            )
            for request, reply in zip(batch, replies, strict=True)
        ]

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

    def _notice_change(self) -> None:
        stamp = weights_stamp(self.family.model)
        if stamp != self._stamp:
            self._stamp = stamp
            self.shared.clear()

    @contextmanager
    def _answering(self) -> Generator[None]:
        """Inference with every module in evaluation mode; afterwards each is as it was."""
        self._notice_change()
        training: list[Any] = [module for module in self.family.model.modules() if module.training]
        self.family.model.eval()
        try:
            with torch.inference_mode(), fast_linear():
                yield
        finally:
            for module in training:
                module.training = True
