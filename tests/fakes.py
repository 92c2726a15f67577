"""Engines that need no model: what they answer is known beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from earnest.completion import Completion, Heard, Sampling, Stop, content_key
from earnest.conversation import Conversation
from earnest.engines import Capabilities
from earnest.example import Example


class FakeEngine:
    """Answers by a function of the conversation; counts what it was asked.

    Args:
        reply: text of the reply, or an Exception's text in a Completion that failed if it returns None.
        seconds: how long each request takes.
        log: a file that gets one line per request, before it is answered.
        heard_share: share of each clip that is said to be heard.
    """

    def __init__(
        self,
        reply: Callable[[Conversation], str | None],
        *,
        name: str = "fake",
        seconds: float = 0.0,
        log: Path | None = None,
        heard_share: float = 1.0,
    ) -> None:
        self.reply = reply
        self.name = name
        self.key = content_key(name)
        self.settings = {"device": "none"}
        self.capabilities = Capabilities(continues_assistant=True)
        self.seconds = seconds
        self.log = log
        self.heard_share = heard_share
        self.asked: list[str] = []

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [self._complete(conversation) for conversation in conversations]

    def logprobs(self, conversations: Sequence[Conversation], continuations: Sequence[str]) -> list[object]:
        raise NotImplementedError

    def last_hidden(self, conversations: Sequence[Conversation]) -> object:
        raise NotImplementedError

    def _complete(self, conversation: Conversation) -> Completion:
        self.asked.append(conversation.key)
        time.sleep(self.seconds)
        if self.log:
            with self.log.open("a") as file:
                file.write(conversation.key + "\n")
        given = sum(clip.duration_s for clip in conversation.clips)
        heard = Heard(given, given * self.heard_share, round(4 * given))
        text = self.reply(conversation)
        if text is None:
            return Completion("", Stop.FAILED, heard=Heard(given, 0.0, 0), error="too long for the fake")
        return Completion(text, Stop.END, heard=heard)


def constant(text: str, **settings: object) -> FakeEngine:
    """Says the same to everything."""
    return FakeEngine(lambda _: text, name=f"constant {text}", **settings)  # pyright: ignore[reportArgumentType]


def oracle(
    examples: Sequence[Example], overrides: Mapping[str, str | None] | None = None, **settings: object
) -> FakeEngine:
    """Knows every answer, as one that reads the timeline; without the audio it says that it does not know.

    Args:
        examples: whose answers it knows.
        overrides: example id to another reply (None: the request fails).
    """
    replies: dict[str, str | None] = {}
    for example in examples:
        reply = f"<think> i hear it.</think><answer> {example.answer}</answer>"
        replies[example.conversation().key] = (overrides or {}).get(example.id, reply)

    def reply(conversation: Conversation) -> str | None:
        return replies.get(conversation.key, "<answer> i don't know</answer>")

    return FakeEngine(reply, name="oracle", **settings)  # pyright: ignore[reportArgumentType]
