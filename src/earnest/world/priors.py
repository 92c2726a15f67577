"""What a question's text alone gives away: the best guess without a clip."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from earnest.world.questions import Question


class TextPrior:
    """Guesses the likeliest choice from wording, slots, choices and their order: naive Bayes, by template.

    Evidence for a choice is the choice itself, the window of numbers that it stands in, its place, whether the
    question names it, and each word of the question beside it. Fitted on questions with their answers, then asked
    about others: a question-only baseline that no model has to learn.

    Args:
        questions: to fit on.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._right: Counter[tuple[str, ...]] = Counter()
        for question in questions:
            for place, choice in enumerate(question.choices):
                for sign in _signs(question, place):
                    self._seen[sign] += 1
                    self._right[sign] += choice == question.answer

    def __call__(self, question: Question) -> str:
        """The guess; the first choice where nothing is known."""
        chance = 1 / len(question.choices)

        def score(place: int) -> float:
            # Four imagined choices at chance: what was seen once or twice is not yet trusted.
            shares = [(self._right[s] + 4 * chance) / (self._seen[s] + 4) for s in _signs(question, place)]
            return sum(math.log(share / chance) for share in shares)

        return question.choices[max(range(len(question.choices)), key=score)]


def _signs(question: Question, place: int) -> Iterator[tuple[str, ...]]:
    choice = question.choices[place]
    words = re.findall(r"[a-z']+", question.text)
    numbers = [int(choice) for choice in question.choices if choice.isdigit()]
    window = str(min(numbers)) if len(numbers) == len(question.choices) else ""
    yield question.template, "choice", window, choice
    yield question.template, "place", str(len(question.choices)), str(place)
    yield question.template, "named", str(choice in words)
    if choice in ("yes", "no") or choice in words:
        for word in words:
            yield question.template, "beside", word if choice in ("yes", "no") else str(words.index(choice)), choice
