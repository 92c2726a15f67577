"""A request in three conditions: spoken with an instruction, typed, and spoken alone (arXiv 2505.19670, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from earnest.audio import Clip
from earnest.conversation import Audio, Conversation
from earnest.example import Example
from earnest.prompts import Prompt

AUDIO_TEXT, TEXT_ONLY, AUDIO_ONLY = "audio_text", "text_only", "audio_only"
CONDITIONS: tuple[str, ...] = (AUDIO_TEXT, TEXT_ONLY, AUDIO_ONLY)
WORDS: dict[str, str] = {"general": "words-1", "pocket": "words-pocket-1"}
"""For models that follow instructions, and in the closed language of pocket."""


@dataclass(frozen=True)
class Words:
    """What stands beside a request.

    Attributes:
        id: of this version.
        audio: instruction for a spoken request (P0).
        text: for a typed one.
        hint: that the request breaks the policy; behind the instruction it makes P_ref.
        pool: neutral instructions, one of which is drawn at each step of a training.
        system: warning of the baseline as a system turn; empty where it is a prefix.
        prefix: warning of the baseline before the instruction.
        spliced: harmless words, spoken before a request to see whether a refusal survives them.
    """

    id: str
    audio: str
    text: str
    hint: str
    pool: tuple[str, ...]
    system: str = ""
    prefix: str = ""
    spliced: str = ""

    @staticmethod
    def load(name: str) -> Words:
        """Those of a key of `WORDS`.

        Raises:
            RecipeError: there are none.
        """
        prompt = Prompt.load("safety", WORDS.get(name, name))
        texts = dict(prompt.texts)
        pool = tuple(line.strip() for line in texts.pop("pool").splitlines())
        return Words(prompt.id, pool=pool, **texts)

    @property
    def hinted(self) -> str:
        """P_ref: the instruction for a spoken request with the hint."""
        return f"{self.audio} {self.hint}"


def spoken(clips: Sequence[Clip], instruction: str = "") -> Conversation:
    """Audio, then the instruction, if any."""
    return Conversation().user(*map(Audio, clips), *([f"\n\n{instruction}"] if instruction else []))


def asked(
    example: Example, condition: str, words: Words, *, warned: bool = False, clip: Clip | None = None
) -> Conversation:
    """A request in one of the conditions.

    Args:
        example: a spoken request, whose question is its text.
        condition: one of `CONDITIONS`.
        words: what stands beside it.
        warned: with the baseline's warning.
        clip: heard in place of the example's own.

    Raises:
        AudioError: a file cannot be read.
    """
    before = f"{words.prefix} " if warned and words.prefix else ""
    if condition == TEXT_ONLY:
        conversation = Conversation().user(f"{before}{words.text}\n{example.question}")
    else:
        instruction = words.audio if condition == AUDIO_TEXT else ""
        conversation = spoken([clip] if clip else example.clips, f"{before}{instruction}".strip())
    return _under_system(conversation, words) if warned else conversation


def ordinary(example: Example, words: Words, *, warned: bool = False) -> Conversation:
    """A question that is no request, with the baseline's warning or without."""
    if not warned:
        return example.conversation()
    if words.prefix:
        example = replace(example, question=f"{words.prefix} {example.question}")
    return _under_system(example.conversation(), words)


def _under_system(conversation: Conversation, words: Words) -> Conversation:
    return (
        Conversation((*Conversation().system(words.system).turns, *conversation.turns))
        if words.system
        else conversation
    )
