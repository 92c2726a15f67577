"""Does an answer say that the model does not know? (arXiv 2505.19294, section 3: detected before scoring.)"""

from __future__ import annotations

import re
from collections.abc import Sequence

from earnest.grading.options import match_option
from earnest.grading.phrases import load_phrases, plainly

NOTHING = frozenset({"no", "none", "nothing", "0", "zero"})
"""Choices that silence makes right."""
_TURN = re.compile(r"\b(?:but|however|though|although|still|best guess|if i had to|most likely|probably|answer is)\b")


def abstains(answer: str, choices: Sequence[str] | None = None) -> bool:
    """Whether an answer abstains.

    "I'm not sure, but I think it is a dog" does not: it turns after the phrase and commits to one choice.

    Args:
        answer: the final answer, without the reasoning: doubt inside the reasoning is no abstention.
        choices: the options; None for an open question.
    """
    plain = plainly(answer)
    found = load_phrases("abstention").find(plain)
    if found is None:
        return False
    turn = _TURN.search(plain, found.end())
    return not (turn and choices and match_option(plain[turn.end() :], choices).index is not None)


def open_at_silence(choices: Sequence[str] | None) -> bool:
    """Whether nobody could answer over silence: "no" and "0" are right there where they can be chosen."""
    return not choices or NOTHING.isdisjoint(choice.strip().lower() for choice in choices)
