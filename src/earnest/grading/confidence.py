"""How sure a model was of the answer that is graded."""

from __future__ import annotations

import math

from earnest.completion import Completion
from earnest.grading.tags import answer_span


def answer_probability(completion: Completion) -> float | None:
    """Mean probability that the model gave to the tokens of the graded answer when it wrote them.

    None where the engine gives no log-probabilities, or nothing was answered.
    """
    span = answer_span(completion.text)
    if span is None or completion.logprobs is None or not completion.token_ends:
        return None
    starts = (0, *completion.token_ends[:-1])
    chosen = [
        math.exp(logprob)
        for start, end, logprob in zip(starts, completion.token_ends, completion.logprobs, strict=True)
        if max(start, span[0]) < min(end, span[1])
    ]
    return sum(chosen) / len(chosen)
