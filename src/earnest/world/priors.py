"""What a question's text alone gives away: the best guess without a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from earnest.world.questions import Question


class TextPrior:
    """Guesses the choice that was right most often when it was offered, among questions of the same kind.

    Kinds are the template together with the smallest of the choices where all of them are numbers. Fitted on
    questions with their answers, then asked about others: a question-only baseline that no model has to learn.

    Args:
        questions: to fit on.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self._offered: Counter[tuple[str, ...]] = Counter()
        self._right: Counter[tuple[str, ...]] = Counter()
        for question in questions:
            kind = _kind(question)
            for choice in question.choices:
                self._offered[*kind, choice] += 1
            self._right[*kind, question.answer] += 1

    def __call__(self, question: Question) -> str:
        """The guess; the first choice where nothing is known."""
        kind = _kind(question)

        def share(choice: str) -> float:
            # One imagined miss and a fourth of a hit: what was offered once or twice is not yet trusted.
            return (self._right[*kind, choice] + 0.25) / (self._offered[*kind, choice] + 1)

        return max(question.choices, key=share)


def _kind(question: Question) -> tuple[str, ...]:
    numbers = [int(choice) for choice in question.choices if choice.isdigit()]
    return (question.template, str(min(numbers)) if len(numbers) == len(question.choices) else "")
