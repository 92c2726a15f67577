"""How alignment's data asks a model about many rows: slice by slice, keeping nothing of a reply but its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.run import Generator, RunDirectory

T = TypeVar("T")

SLICE_ROWS = 1024
"""Rows whose conversations are in memory at once."""
THINKING_TOKENS = 1536
"""That a model may think before it is made to write."""
THOUGHT = "</think>"


@dataclass(frozen=True)
class TextOnly:
    """An engine whose completions lose what is kept for each token: a run of many rows holds their texts alone."""

    engine: Generator

    @property
    def key(self) -> str:
        """Of the engine."""
        return self.engine.key

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """One completion for each conversation, in order."""
        done = self.engine.generate(conversations, sampling)
        return [replace(each, token_ids=(), logprobs=None, token_ends=()) for each in done]


@dataclass(frozen=True)
class Asking:
    """A run, and how an engine is asked for it.

    Attributes:
        run: where completions go, and where those that are there are found.
        batch_size: conversations at once, which is also what a kill can cost.
        retry_failed: whether what failed earlier is asked again.
    """

    run: RunDirectory
    batch_size: int = 64
    retry_failed: bool = True

    def __call__(
        self, engine: Generator, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion for each conversation, in order; what the run holds is not asked for again."""
        return self.run.run_batched(
            TextOnly(engine), conversations, sampling, self.batch_size, retry_failed=self.retry_failed
        )


def thought_out(
    asking: Asking,
    engine: Generator,
    asked: Sequence[Conversation],
    room: int,
    *,
    thinking_tokens: int,
    closing: str,
    writes: Callable[[str], bool],
) -> list[Completion]:
    """All that a model says, its thinking included, which is bounded and closed by force where it takes too long.

    Args:
        asking: the run.
        engine: who is asked; with a bound it must go on with a reply (`Capabilities.continues_assistant`).
        asked: requests.
        room: most tokens behind the thinking, or in all where there is no bound.
        thinking_tokens: the bound; 0 for none.
        closing: said at the end of a thought that was cut.
        writes: whether a reply that was cut at the bound does not think, but is writing already.
    """
    if not thinking_tokens:
        return asking(engine, asked, Sampling(room))
    said = asking(engine, asked, Sampling(thinking_tokens, stop=(THOUGHT,)))
    begun = {
        k: done.text
        if done.stop is Stop.STOP_STRING or writes(done.text)
        else f"{done.text.rstrip()}\n\n{closing}\n{THOUGHT}\n\n"
        for k, done in enumerate(said)
        if done.stop in (Stop.LENGTH, Stop.STOP_STRING)
    }
    rest = asking(engine, [asked[k].assistant(text) for k, text in begun.items()], Sampling(room))
    for (k, text), more in zip(begun.items(), rest, strict=True):
        said[k] = replace(more, text=text + more.text)
    return said


def slices(rows: Sequence[T], size: int = SLICE_ROWS) -> Iterator[Sequence[T]]:
    """Consecutive stretches of at most `size` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
