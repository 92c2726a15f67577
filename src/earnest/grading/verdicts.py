"""What a judge decided, where it was asked to end in a line such as "Verdict: valid"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from earnest.grading.tags import parse_reply


def read_verdict(text: str, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The verdict, in lower case, or None where it cannot be read; and the lines of the answer, blank ones left out.

    The verdict is the last line, and the only one of its kind: a judge that says two things has said nothing.

    Args:
        text: the judge's reply.
        words: among which it decides.
    """
    pattern = re.compile(rf"\W*verdict\W+({'|'.join(words)})\W*", re.IGNORECASE)
    lines = [line for line in parse_reply(text).answer.splitlines() if line.strip()]
    found = [match[1].lower() for line in lines if (match := pattern.fullmatch(line))]
    alone = len(found) == 1 and pattern.fullmatch(lines[-1])
    return (found[0] if alone else None), lines
