"""Chains of thought as text to edit: steps, the sanitised form, fillers and prefixes.

The edits are those of Lanham et al. (arXiv 2307.13702) as the study of audio models uses them (arXiv 2509.22363 v3,
section 3): the answer-bearing last step is removed first, otherwise every edit leaks the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from earnest.grading.options import match_option, mentions

LOREM = re.findall(
    r"\w+",
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua ut enim ad minim veniam quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat",
)
UNTAGGED_CLOSING = "\nAnswer:"
"""What leads from a chain to its answer where the model uses no tags."""
_BREAK = re.compile(r"(?<=[.!?])\s+|(?<=\]),\s+|\n+")
"""Between sentences, and between events with their times, of which a short chain is one sentence."""
SEPARATORS = " ,\n"
"""What stands between two steps."""
_OPEN = re.compile(r"<think>", re.IGNORECASE)
_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>", re.IGNORECASE)
_LETTER = re.compile(r"\b(?:option|choice|answer)(?:\s+is)?\s+\(?([A-Za-z])\b(?!')", re.IGNORECASE)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Chain:
    """A reply's reasoning and what stands around it.

    Attributes:
        opening: what stands before it, `<think>` included.
        text: the reasoning, stripped.
        closing: what leads from it to the answer.
    """

    opening: str
    text: str
    closing: str

    @property
    def steps(self) -> tuple[str, ...]:
        """Sentences, or events with their times, with what separates them: joined they are the text."""
        places = [0, *(found.end() for found in _BREAK.finditer(self.text)), len(self.text)]
        pairs = pairwise(places)
        return tuple(self.text[start:end] for start, end in pairs if self.text[start:end])

    def first(self, count: int) -> str:
        """The text's first steps, ended as the whole of it is."""
        text = "".join(self.steps[:count]).rstrip(SEPARATORS)
        end = self.text[-1:]
        return text + end if text and end in ".!?" and text[-1] not in ".!?" else text

    def with_text(self, text: str) -> Chain:
        """With another reasoning."""
        return replace(self, text=text)

    def written(self, text: str) -> str:
        """The beginning of a reply with another reasoning, up to where the answer stands."""
        return f"{self.opening}{text}{self.closing}"


def chain_of(reply: str) -> Chain | None:
    """The reasoning of a reply; None if there is none.

    It stands in a think block, which the prompt may have opened; without one, it is all that comes before the answer's
    tag, or but the last sentence.
    """
    closed = _CLOSE.search(reply)
    if closed is not None:
        opened = _OPEN.search(reply, 0, closed.start())
        start = opened.end() if opened else 0
        inside = reply[start : closed.start()]
        text = inside.strip()
        if not text:
            return None
        lead = inside[: len(inside) - len(inside.lstrip())]
        # All that leads to the answer, so that the model does not begin to reason anew.
        answer = _ANSWER.search(reply, closed.end())
        return Chain(reply[:start] + lead, text, reply[closed.start() : (answer or closed).end()])
    if answer := _ANSWER.search(reply):
        text = reply[: answer.start()].strip()
        return Chain("", text, "\n<answer>") if text else None
    whole = Chain("", reply.strip(), UNTAGGED_CLOSING)
    text = whole.first(len(whole.steps) - 1)
    return whole.with_text(text) if text else None


def sanitised(chain: Chain, answer: str, choices: Sequence[str] | None = None) -> Chain | None:
    """Without its last step if that says the answer: by its text, a number as a word, or its letter; None: all is gone.

    Args:
        chain: of a reply.
        answer: as it was read.
        choices: the options, whose letters may be said.
    """
    steps = chain.steps
    step = steps[-1]
    says = bool(mentions(step, [answer])) or _says(step, answer)
    if choices and answer in choices and not says:
        found = match_option(step, choices)
        letters = _LETTER.findall(step)
        says = found.index == choices.index(answer) or chr(ord("a") + choices.index(answer)) in map(str.lower, letters)
    if not says:
        return chain
    text = chain.first(len(steps) - 1)
    return chain.with_text(text) if text else None


def _says(step: str, answer: str) -> bool:
    return bool(answer and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", step, re.IGNORECASE))


def filled(text: str, share: float, seed: int) -> str:
    """A share of the words, drawn by the seed, replaced by lorem ipsum; more of it holds all of less.

    Args:
        text: words and what stands between them, which stays.
        share: 0 to 1; int(share * words) are replaced.
        seed: of the order in which words are drawn.
    """
    words = list(_WORD.finditer(text))
    rng = np.random.default_rng(seed)
    # 1e-9: 0.3 * 10 is less than 3.
    chosen = rng.permutation(len(words))[: int(share * len(words) + 1e-9)]
    filler = {int(place): LOREM[number % len(LOREM)] for number, place in enumerate(chosen)}
    out, last = "", 0
    for place, word in enumerate(words):
        out += text[last : word.start()] + filler.get(place, word[0])
        last = word.end()
    return out + text[last:]
