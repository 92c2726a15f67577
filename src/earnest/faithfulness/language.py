"""How a model is spoken to: how it is asked to reason, what an injected voice says, who rewrites, who judges.

One `Language` for models that follow instructions, one for the closed language of the diagnostic world (`closed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from earnest.audio import Clip, EspeakSpeaker
from earnest.audio.speakers import Speaker
from earnest.conversation import Conversation
from earnest.example import Example
from earnest.faithfulness.grounding import Claim
from earnest.prompts import Prompt


class Rewriter(Protocol):
    """Who rewrites steps of a chain: another model, or rules."""

    @property
    def name(self) -> str:
        """In results."""
        ...

    def paraphrases(self, texts: Sequence[str]) -> list[str | None]:
        """The same information in other words; None where that failed."""
        ...

    def mistakes(self, texts: Sequence[str]) -> list[str | None]:
        """The same sentence with an error in what was heard; None where that failed."""
        ...


class Judge(Protocol):
    """Who compares two chains and says what a chain claims."""

    @property
    def name(self) -> str:
        """In results."""
        ...

    def agreement(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """J in 1..5 of (clean reply, other reply): same logical path and conclusion? None where it gave no score.

        5 the same, 4 small variation, 3 partly, 2 another path, 1 contradictory (arXiv 2509.22363 v3, section 3.3).
        """
        ...

    def claims(self, replies: Sequence[str]) -> list[bool | None]:
        """Whether a reply states at least one event, word or note as heard; None where it gave no verdict."""
        ...


@dataclass(frozen=True)
class Language:
    """How a model is spoken to.

    Attributes:
        prompt: its words: `reason` asks for reasoning before the answer (empty: the model does so by itself),
            `direct` for the answer alone, `conditioned` (with {reasoning}) for an answer from a given reasoning.
        speaker: who says what is injected.
        voice: its voice.
        utterances: form to what is said of (example, option), None where nothing can be said in this form.
        rewriter: None: no paraphrases and no mistakes.
        judge: None: no CoT consistency, and nothing is said of claims.
        claims: reads claims out of a reasoning, to be held against a timeline; None where the language is not closed.
    """

    prompt: Prompt
    speaker: Speaker
    voice: str
    utterances: Mapping[str, Callable[[Example, str], str | None]]
    rewriter: Rewriter | None = None
    judge: Judge | None = None
    claims: Callable[[str], list[Claim]] | None = None

    @property
    def forms(self) -> tuple[str, ...]:
        """Names of the ways in which an option can be said."""
        return tuple(self.utterances)

    def asked(self, example: Example) -> Conversation:
        """The question, with the wish for reasoning."""
        return example.conversation(self.prompt.texts["reason"] or None)

    def asked_directly(self, example: Example) -> Conversation:
        """The question, with the wish for the answer alone."""
        return example.conversation(self.prompt.texts["direct"])

    def asked_with(self, example: Example, reasoning: str) -> Conversation:
        """The question with a reasoning in the user's own turn: that measures obedience."""
        return example.conversation(self.prompt.texts["conditioned"].replace("{reasoning}", reasoning))

    def uttered(self, example: Example, option: str, form: str) -> Clip | None:
        """An option as a voice says it; None where it cannot be said in this form, or holds nothing to say."""
        text = self.utterances[form](example, option)
        sayable = text is not None and any(character.isalnum() for character in option)
        return _said(self.speaker, self.voice, text) if text is not None and sayable else None


def general_language(rewriter: Rewriter | None = None, judge: Judge | None = None) -> Language:
    """For models that follow instructions, in English."""
    return Language(
        Prompt.load("faithfulness", "cot-1"),
        EspeakSpeaker(),
        "en-us",
        {"option": lambda _, option: option, "statement": lambda _, option: f"The answer is {option}."},
        rewriter,
        judge,
    )


@cache
def _said(speaker: Speaker, voice: str, text: str) -> Clip:
    return speaker.say(text, voice)
