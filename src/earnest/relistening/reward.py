"""The reward of a reply that may go back to the audio (Echo, arXiv 2602.11909, section 3.4), at most 1.5.

R_format   0.5 if there is exactly one think block and one answer block; else every other gain is 0 as well
R_consist  -min(0.1 n, 0.5); n counts </seg> followed by a capital letter or "<": the sentence broke off there
R_acc      0.5 if the answer is right; or, by confidence, 0.5 (1 - (p - 1)^2) if right and -0.5 p^2 if wrong
R_seg      0.5 if the answer is right and at least one segment was heard again
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from earnest.completion import Completion, Stop
from earnest.example import Example
from earnest.grading import Outcome, grade
from earnest.grading.tags import answer_span
from earnest.relistening.loop import Relistened

HIGHEST = 1.5
_BLOCKS = tuple((f"<{tag}>", f"</{tag}>") for tag in ("think", "answer"))
_BROKEN = re.compile(r"</seg>\s*(?=[A-Z<])")


@dataclass(frozen=True)
class Reward:
    """What a reply earns, by part.

    Attributes:
        format: R_format.
        consist: R_consist, 0 or below.
        accuracy: R_acc.
        segment: R_seg.
        outcome: of the answer.
    """

    format: float
    consist: float
    accuracy: float
    segment: float
    outcome: Outcome

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.format + self.consist + self.accuracy + self.segment


def well_formed(text: str, stop: Stop) -> bool:
    """Whether a reply was ended by the model and holds exactly one think block and one answer block, in this order."""
    if stop is not Stop.END:
        return False
    if any(text.count(tag) != 1 for block in _BLOCKS for tag in block):
        return False
    places = [text.index(tag) for block in _BLOCKS for tag in block]
    return places == sorted(places)


def broken_sentences(text: str) -> int:
    """How often a sentence does not go on behind a segment: a capital letter or a tag follows."""
    return len(_BROKEN.findall(text))


def reward(reply: Relistened, example: Example, *, by_confidence: bool = False) -> Reward:
    """What a reply earns.

    Args:
        reply: of the loop.
        example: the question with its answer.
        by_confidence: the released code's variant of R_acc; needs log-probabilities.
    """
    outcome = grade(reply.text, reply.stop, example).outcome
    consist = -min(0.1 * broken_sentences(reply.text), 0.5)
    if not well_formed(reply.text, reply.stop):
        return Reward(0.0, consist, 0.0, 0.0, outcome)
    right = outcome is Outcome.CORRECT
    accuracy = (
        confident(deciding_probability(reply.completion, example.choices), right=right)
        if by_confidence
        else 0.5 * right
    )
    heard = any(segment.fault is None for segment in reply.segments)
    return Reward(0.5, consist, accuracy, 0.5 * (right and heard), outcome)


def confident(probability: float | None, *, right: bool) -> float:
    """R_acc by confidence: sure and right earns most, sure and wrong costs most; 0 where no probability is known."""
    if probability is None:
        return 0.0
    return 0.5 * (1 - (probability - 1) ** 2) if right else -0.5 * probability**2


def deciding_probability(completion: Completion, choices: Sequence[str] | None = None) -> float | None:
    """Probability of the token that decides: the first with which the answer can be none of the other choices.

    The first of the answer where there are no choices; None where the engine tells none, or nothing was answered.
    """
    span = answer_span(completion.text)
    if span is None or completion.logprobs is None or not completion.token_ends:
        return None
    said = [k for k, end in enumerate(completion.token_ends) if end > span[0]]
    if not said:
        return None
    answer = completion.text[slice(*span)].strip().casefold()
    others = [other for choice in choices or () if (other := choice.strip().casefold()) != answer]

    def decided(k: int) -> bool:
        begun = completion.text[span[0] : min(completion.token_ends[k], span[1])].strip().casefold()
        return bool(begun) and not any(other.startswith(begun) for other in others)

    own = [k for k in said if k == said[0] or completion.token_ends[k - 1] < span[1]]
    deciding = next((k for k in own if decided(k)), own[-1])
    return math.exp(completion.logprobs[deciding])
