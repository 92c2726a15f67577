"""How alignment's data asks a model about many rows: slice by slice, keeping nothing of a reply but its text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from earnest.completion import Completion, Sampling
from earnest.conversation import Conversation
from earnest.run import Generator, RunDirectory

T = TypeVar("T")

SLICE_ROWS = 1024
"""Rows whose conversations are in memory at once."""


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


def slices(rows: Sequence[T], size: int = SLICE_ROWS) -> Iterator[Sequence[T]]:
    """Consecutive stretches of at most `size` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
