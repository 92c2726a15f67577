"""Phrases that betray a text where there should be audio (ALARM, arXiv 2603.09556, section 3).

The list is data, `data/leaks.txt`, with what is allowed beside it; it is English.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from earnest.completion import content_key
from earnest.grading.phrases import any_of, plainly, read_lines

_LIST = Path(__file__).parent / "data" / "leaks.txt"
_ALLOWED = "+"


def leak(text: str) -> tuple[str, ...]:
    """The phrases by which a text betrays that there was a text, in order; empty if it does not.

    What is allowed is taken out before: "a text message" is none, "the text mentions a message" is one.
    """
    pattern, allowed = _phrases()
    return tuple(found[0] for found in pattern.finditer(plainly(text)) if found[0] not in allowed)


@cache
def list_key() -> str:
    """Content key of the list: another list finds other leaks."""
    return content_key(read_lines(_LIST))


@cache
def _phrases() -> tuple[re.Pattern[str], frozenset[str]]:
    lines = read_lines(_LIST)
    allowed = frozenset(plainly(line.removeprefix(_ALLOWED)) for line in lines if line.startswith(_ALLOWED))
    return any_of([plainly(line) for line in lines if not line.startswith(_ALLOWED)] + list(allowed)), allowed
