"""Training-free methods (arXiv 2505.19294, section 4.1): a few lines over an engine each, whatever the engine.

    untouched    the question as it is
    forced       an answer is demanded: the baseline for models that abstain by themselves
    idk_prompt   "I don't know" is allowed
    mcot         step by step, with examples and the IDK option
    task_agent   classify the audio, let the matching tool listen, answer from the audio and what the tool said

The words are files in `prompts/`; their ids stand in the results. A changed text gets a new id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earnest.completion import Completion, Stop
from earnest.conversation import Audio, Conversation
from earnest.errors import RecipeError
from earnest.example import Example
from earnest.grading import parse_reply
from earnest.grading.options import words
from earnest.prompts import Prompt

Ask = Callable[[Sequence[Conversation]], list[Completion]]
"""One completion for each conversation, in order."""
MODALITIES = ("speech", "music", "sound")
"""As the Task Agent tells them apart; what it cannot read counts as sound."""
HEARD_CHARACTERS = 600
"""Of a tool's text: a model that repeats itself would fill the context."""


@dataclass(frozen=True)
class Method:
    """A way to ask.

    Attributes:
        name: in tables and claims.
        prompt: its words; None for the question as it is.
        answer: examples to one completion each.
        adapter: folder of an adapter that the model wears meanwhile; None for none.
    """

    name: str
    prompt: Prompt | None
    answer: Callable[[Sequence[Example], Ask], list[Completion]]
    adapter: Path | None = None

    @property
    def shown(self) -> str:
        """Its name with the id of its words."""
        return f"{self.name} ({self.prompt.id})" if self.prompt else self.name


def untouched() -> Method:
    """The question as it is."""
    return Method("untouched", None, _as_it_is)


def wearing(name: str, adapter: Path) -> Method:
    """The question as it is, to the model with an adapter on."""
    return Method(name, None, _as_it_is, adapter)


def instructed(name: str, prompt: Prompt) -> Method:
    """A last line is added to the question."""

    def answer(examples: Sequence[Example], ask: Ask) -> list[Completion]:
        return ask([example.conversation(prompt.texts["answer"]) for example in examples])

    return Method(name, prompt, answer)


def task_agent(prompt: Prompt) -> Method:
    """Three calls of the same model; where one of the first two fails, that is the item's failure."""

    def answer(examples: Sequence[Example], ask: Ask) -> list[Completion]:
        kinds = ask([_about(example, prompt.texts["classify"]) for example in examples])
        tools = ask(
            [
                _about(example, prompt.texts[modality_of(kind.text)])
                for example, kind in zip(examples, kinds, strict=True)
            ]
        )
        failed = {
            place: step
            for place, steps in enumerate(zip(kinds, tools, strict=True))
            for step in steps
            if step.stop is Stop.FAILED
        }
        left = [place for place in range(len(examples)) if place not in failed]
        answered = ask(
            [
                examples[place].conversation(
                    prompt.texts["answer"].replace("{heard}", parse_reply(tools[place].text).rest[:HEARD_CHARACTERS])
                )
                for place in left
            ]
        )
        return [
            found for _, found in sorted([*failed.items(), *zip(left, answered, strict=True)], key=lambda row: row[0])
        ]

    return Method("task_agent", prompt, answer)


WORDS: dict[str, tuple[str, str, str, str]] = {
    "general": ("forced-2", "idk-1", "mcot-1", "task-agent-1"),
    "pocket": ("forced-pocket-1", "idk-pocket-1", "mcot-pocket-1", "task-agent-pocket-1"),
}
"""Prompts of all methods: for models that follow instructions, and in the closed language of pocket."""


def methods(words: str = "general") -> tuple[Method, ...]:
    """All of them, the two baselines first.

    Args:
        words: key of `WORDS`.

    Raises:
        RecipeError: there are no such words.
    """
    if words not in WORDS:
        raise RecipeError(f"no prompts called {words!r}: known are {', '.join(WORDS)}")
    forced, idk, mcot, agent = (Prompt.load("reliability", name) for name in WORDS[words])
    return (
        untouched(),
        instructed("forced", forced),
        instructed("idk_prompt", idk),
        instructed("mcot", mcot),
        task_agent(agent),
    )


def modality_of(text: str) -> str:
    """Which modality the answer to the classifying question names first, whatever was reasoned; sound if none."""
    return next((word for word in words(parse_reply(text).answer) if word in MODALITIES), "sound")


def _as_it_is(examples: Sequence[Example], ask: Ask) -> list[Completion]:
    return ask([example.conversation() for example in examples])


def _about(example: Example, text: str) -> Conversation:
    return Conversation().user(*(Audio(clip) for clip in example.clips), f"\n\n{text}")
