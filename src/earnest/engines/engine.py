"""The contract between a concern and whatever answers: a model in this process, or one behind a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from earnest.completion import Completion, Heard, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Capabilities", "Completion", "Engine", "Heard", "Sampling", "Stop", "require", "worn"]


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do beyond answering.

    Attributes:
        continues_assistant: goes on with an assistant turn that has begun.
        audio_in_assistant: hears audio inside the assistant turn.
        logprobs: gives log-probabilities of replies and of given continuations.
        hidden_states: gives the last hidden state.
        trainable: its weights are at hand and may be trained.
    """

    continues_assistant: bool = False
    audio_in_assistant: bool = False
    logprobs: bool = False
    hidden_states: bool = False
    trainable: bool = False


class Engine(Protocol):
    """Answers conversations.

    If a conversation's last turn is the assistant's, the engine continues it. Replies keep the order of the
    requests. Greedy by default; sampling draws per item from (seed, conversation key), so that the batch that an
    item travels in never changes its answer.
    """

    @property
    def name(self) -> str:
        """What the user called the model."""
        ...

    @property
    def key(self) -> str:
        """Content key of the weights and of what turns text into tokens."""
        ...

    @property
    def settings(self) -> Mapping[str, str]:
        """What can change an answer beside the weights and the request, such as device and dtype."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling | Sequence[Sampling]
    ) -> list[Completion]:
        """One completion for each conversation, in order; a fault of one item is that item's `Stop.FAILED`.

        The hearing account is complete in every one of them: a failed one has its seconds given, too.

        Args:
            conversations: the requests.
            sampling: one for all, or one for each (a group of samples of one request: seeds that differ).
        """
        ...

    def logprobs(
        self, conversations: Sequence[Conversation], continuations: Sequence[str | Sequence[int]]
    ) -> list[Tensor]:
        """Natural log-probability of every token of each continuation, [T] each.

        Args:
            conversations: what stands before.
            continuations: text, tokenized by itself, or token ids, such as a completion's.
        """
        ...

    def last_hidden(self, conversations: Sequence[Conversation]) -> Tensor:
        """[N, D]: the input of the LM head at the last token before the reply."""
        ...


def each_sampling(sampling: Sampling | Sequence[Sampling], count: int) -> list[Sampling]:
    """The sampling of each of `count` requests.

    Raises:
        ModelError: another number of them.
    """
    samplings = [sampling] * count if isinstance(sampling, Sampling) else list(sampling)
    if len(samplings) != count:
        raise ModelError(f"{len(samplings)} samplings for {count} conversations: give one, or one for each")
    return samplings


def worn(engine: Engine, adapter: Path | None, strength: float = 1.0) -> AbstractContextManager[None]:
    """The context in which an engine answers with an adapter on; as it is if there is none.

    Args:
        engine: who answers.
        adapter: folder of an adapter that peft saved.
        strength: the dial.

    Raises:
        ModelError: the engine cannot wear one.
    """
    if adapter is None:
        return nullcontext()
    wearing: Callable[[Path, float], AbstractContextManager[None]] | None = getattr(engine, "wearing", None)
    if wearing is None:
        raise ModelError(f"{engine.name} does not run in this process: it cannot wear {adapter}")
    return wearing(adapter, strength)


def require(engine: Engine, purpose: str, *needs: str) -> None:
    """Says before any work what an engine cannot do.

    Args:
        engine: who is asked.
        purpose: what the need is for, for the error's text.
        needs: names of `Capabilities` fields.

    Raises:
        ModelError: something is missing.
    """
    known = {field.name for field in fields(Capabilities)}
    assert known.issuperset(needs), f"unknown capabilities {set(needs) - known}"
    missing = [need for need in needs if not getattr(engine.capabilities, need)]
    if missing:
        have = [name for name in sorted(known) if getattr(engine.capabilities, name)]
        raise ModelError(
            f"{purpose} needs {', '.join(missing)}, which {engine.name} does not offer "
            f"(it offers {', '.join(have) or 'answers only'}): choose a model that runs in this process"
        )
