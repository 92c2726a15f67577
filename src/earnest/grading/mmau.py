"""The official string match of MMAU (v05.15.25) and MMAR, and the official letter rule of MMSU.

They are kept as they are, with their weaknesses, so that official numbers stay comparable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LETTERS = "ABCD"


def mmau_match(prediction: str, answer: str, choices: Sequence[str]) -> bool:
    r"""MMAU's rule on sets of words, `\b\w+\b` of the lower-cased text.

    Right if the prediction holds every word of the answer and none that only other choices hold. Its known
    weakness stays: to the answer "10" among 10 and 100, "10.5" is right.

    Args:
        prediction: the model's output; an empty one is wrong.
        answer: the right choice.
        choices: all choices.
    """
    said, wanted = _words(prediction), _words(answer)
    if not said:
        return False
    others: set[str] = set()
    for choice in choices:
        if (words := _words(choice)) != wanted:
            others |= words - wanted
    return wanted <= said and said.isdisjoint(others)


def mmsu_letter(prediction: str) -> int | None:
    """MMSU's rule: the first character if it is A to D, else the second-last one.

    Returns:
        The place of the choice, or None: officially such a row is skipped, here it is malformed.
    """
    text = prediction.strip()
    for letter in (text[:1], text[-2:-1]):
        if letter and letter in LETTERS:
            return LETTERS.index(letter)
    return None


def _words(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))
