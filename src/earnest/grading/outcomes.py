"""What a reply is worth: exactly one outcome each, never a bool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum


class Outcome(StrEnum):
    """The seven outcomes.

    All of them stay in the denominator of every rate: a failure is never safe, never random, never dropped.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    ABSTAINED = "abstained"
    """It says that it does not know."""
    REFUSED = "refused"
    """It declines the request."""
    MALFORMED = "malformed"
    """It ended, but no single answer can be read from it."""
    UNFINISHED = "unfinished"
    """It was cut before its answer was there."""
    FAILED = "failed"
    """The engine has no reply."""


def count(outcomes: Iterable[Outcome]) -> dict[Outcome, int]:
    """How many of each, all seven named, in the order of the enum."""
    counter = Counter(outcomes)
    return {outcome: counter[outcome] for outcome in Outcome}
