"""What is asked of a model and what comes back: plain data, known to the engines and to the run directory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from earnest.errors import RecipeError


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Attributes:
        max_new_tokens: limit of the reply in tokens.
        temperature: 0 is greedy.
        top_p: nucleus; 1 keeps every token. Without effect when greedy.
        seed: seed of an item's draws; the batch that an item travels in never changes its reply.
        stop: strings that end a reply. The one that was met stays at the end of the text.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            RecipeError: a number lies outside its range, or a stop string is empty.
        """
        if self.max_new_tokens < 1:
            raise RecipeError(f"max_new_tokens is {self.max_new_tokens}: ask for at least 1 token")
        if not 0.0 <= self.temperature < float("inf"):
            raise RecipeError(f"temperature is {self.temperature}: it must be 0 (greedy) or a positive number")
        if not 0.0 < self.top_p <= 1.0:
            raise RecipeError(f"top_p is {self.top_p}: it must be above 0 and at most 1 (1 keeps every token)")
        if "" in self.stop:
            raise RecipeError("an empty stop string would end every reply at once: leave it out")

    @property
    def key(self) -> str:
        """Content hash [32 hex digits]; a greedy one leaves out seed and nucleus, which cannot change it."""
        greedy = self.temperature == 0.0
        drawn = [] if greedy else [float(self.temperature), float(self.top_p), self.seed]
        return content_key([self.max_new_tokens, list(self.stop), drawn])


class Stop(StrEnum):
    """Why a reply ended."""

    END = "end"
    """The model ended its turn."""
    STOP_STRING = "stop_string"
    """One of the stop strings was met."""
    LENGTH = "length"
    """The limit of new tokens was reached: the reply is cut."""
    FAILED = "failed"
    """The engine has no reply; the completion's `error` says why."""


@dataclass(frozen=True)
class Heard:
    """The hearing account of one request, summed over its clips.

    Attributes:
        seconds_given: length of the audio that was handed over, in seconds.
        seconds_heard: length of the audio that reached the model, in seconds; None where the engine cannot tell.
        audio_tokens: positions in the prompt that hold audio.
    """

    seconds_given: float = 0.0
    seconds_heard: float | None = 0.0
    audio_tokens: int = 0

    @property
    def lost_s(self) -> float | None:
        """Seconds that were given and not heard; None where the engine cannot tell."""
        return None if self.seconds_heard is None else self.seconds_given - self.seconds_heard

    @property
    def shown(self) -> str:
        """As in "3.0 of 3.0 s, 12 audio tokens"."""
        if self.seconds_heard is None:
            return f"{self.seconds_given:.1f} s given; the server does not tell how much of it"
        return f"{self.seconds_heard:.1f} of {self.seconds_given:.1f} s, {self.audio_tokens} audio tokens"


@dataclass(frozen=True)
class Completion:
    """One reply.

    Attributes:
        text: the reply without special tokens; ends with the stop string that was met.
        stop: why it ended.
        token_ids: [T] ids of the new tokens.
        logprobs: [T] natural log-probability of each new token; None where the engine gives none.
        prompt_tokens: length of the prompt in tokens, audio included.
        heard: the hearing account.
        seconds: wall-clock seconds, a batch's time shared evenly among its items.
        error: why there is no reply; empty unless `stop` is failed.
        token_ends: [T] where the text of each new token ends in `text`, in characters; empty where the engine does
            not tell.
    """

    text: str
    stop: Stop
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    prompt_tokens: int = 0
    heard: Heard = Heard()
    seconds: float = 0.0
    error: str = ""
    token_ends: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict for a line of JSON."""
        return asdict(self)

    @staticmethod
    def from_json(row: dict[str, Any]) -> Completion:
        """Inverse of `to_json`, also after a round trip through JSON."""
        logprobs = row["logprobs"]
        values: dict[str, Any] = {
            **row,
            "stop": Stop(row["stop"]),
            "token_ids": tuple(row["token_ids"]),
            "token_ends": tuple(row["token_ends"]),
            "logprobs": None if logprobs is None else tuple(logprobs),
            "heard": Heard(**row["heard"]),
        }
        return Completion(**values)


def content_key(value: Any) -> str:
    """Hash of a value made of JSON types [32 hex digits of SHA-256 over its canonical JSON]."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
