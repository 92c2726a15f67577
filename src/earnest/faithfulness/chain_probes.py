"""Probes of the reasoning: the audio stays, the chain of thought is edited (Lanham et al., arXiv 2307.13702).

The edited chain is the beginning of the model's own turn, where it is reasoning; in the user's turn, which
`in_user_turn` asks for, it is an instruction, and what is measured is obedience. All edits of an item share its audio
and its question, which the engine computes once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from earnest.faithfulness.cot import SEPARATORS, Chain, filled
from earnest.faithfulness.language import Language
from earnest.faithfulness.probes import Edited, Item, NotApplicable, Probe

EARLY, FILLER, PARAPHRASE, MISTAKE, CONTINUED = "early", "filler", "paraphrase", "mistake", "continued"
NEED_REWRITER = (PARAPHRASE, MISTAKE, CONTINUED)
FILLED = tuple(number / 20 for number in range(21))


@dataclass(frozen=True)
class Early:
    """Only the first k steps are kept; with k = 0 the answer alone is asked for."""

    language: Language
    in_user_turn: bool = False
    name: str = EARLY
    of_chain: bool = True

    def grid(self, item: Item) -> Sequence[float]:
        """0 to all steps."""
        return tuple(float(count) for count in range(len(item.reason().steps) + 1))

    def edit(self, item: Item, value: float) -> Edited:
        """With the first steps alone."""
        if value == 0:
            return Edited(self.language.asked_directly(item.example))
        return self.conditioned(item, item.reason().first(int(value)))

    def conditioned(self, item: Item, text: str, *, closed: bool = True) -> Edited:
        """Asked for the answer behind another reasoning.

        Args:
            item: the question with its chain.
            text: the reasoning.
            closed: whether the answer must follow; else the model may reason on.
        """
        chain = item.reason()
        if self.in_user_turn:
            return Edited(self.language.asked_with(item.example, text))
        lead = chain.written(text) if closed else f"{chain.opening}{text}"
        return Edited(self.language.asked(item.example).assistant(lead), lead=lead)


@dataclass(frozen=True)
class Filler(Early):
    """A share of the words is replaced by lorem ipsum."""

    name: str = FILLER
    shares: tuple[float, ...] = FILLED
    seed: int = 0

    def grid(self, item: Item) -> Sequence[float]:
        """Shares of the words."""
        item.reason()
        return self.shares

    def edit(self, item: Item, value: float) -> Edited:
        """With that share replaced."""
        return self.conditioned(item, filled(item.reason().text, value, self.seed))


@dataclass(frozen=True)
class Paraphrase(Early):
    """The first k steps are said in other words, by another model or by rules; nothing is generated anew."""

    name: str = PARAPHRASE

    def grid(self, item: Item) -> Sequence[float]:
        """0 to all steps."""
        _need(item, item.paraphrased)
        return super().grid(item)

    def edit(self, item: Item, value: float) -> Edited:
        """With the first steps rewritten."""
        return self.conditioned(item, _replaced(item.reason(), item.paraphrased, 0, int(value)))


@dataclass(frozen=True)
class Continued(Early):
    """The model goes on by itself after its own first k steps: what a mistake is compared with."""

    name: str = CONTINUED

    def grid(self, item: Item) -> Sequence[float]:
        """1 to all steps."""
        _need(item, item.mistaken)
        return super().grid(item)[1:]

    def edit(self, item: Item, value: float) -> Edited:
        """After the first steps."""
        text = "".join(item.reason().steps[: int(value)]).rstrip(SEPARATORS)
        return self.conditioned(item, text, closed=False)


@dataclass(frozen=True)
class Mistake(Continued):
    """Step k is said with an error, and the model goes on from there."""

    name: str = MISTAKE

    def edit(self, item: Item, value: float) -> Edited:
        """After the mistaken step."""
        count = int(value)
        chain = item.reason()
        text = _replaced(chain.with_text("".join(chain.steps[:count])), item.mistaken, count - 1, count)
        return self.conditioned(item, text.rstrip(SEPARATORS), closed=False)


def chain_probes(language: Language, *, in_user_turn: bool = False, seed: int = 0) -> tuple[Probe, ...]:
    """All of them; those that need a rewriter only where there is one.

    Args:
        language: how it is asked, and who rewrites.
        in_user_turn: the user form, for comparison; without mistakes, after which the model must be able to go on.
        seed: of the order in which words are replaced.
    """
    # In the user's turn nothing can be gone on with.
    goes_on = () if in_user_turn else (Continued, Mistake)
    rewritten = (Paraphrase, *goes_on) if language.rewriter else ()
    return (
        Early(language, in_user_turn),
        Filler(language, in_user_turn, seed=seed),
        *(probe(language, in_user_turn) for probe in rewritten),
    )


def _replaced(chain: Chain, others: Sequence[str | None], start: int, end: int) -> str:
    """The text with steps [start, end) taken from others, which have no separators."""
    out = ""
    for place, step in enumerate(chain.steps):
        core = step.rstrip(SEPARATORS)
        other = others[place] if start <= place < end else None
        out += (core if other is None else other) + step[len(core) :]
    return out


def _need(item: Item, rewritten: Sequence[str | None]) -> None:
    item.reason()
    if any(text is None for text in rewritten) or len(rewritten) != len(item.reason().steps):
        raise NotApplicable("a step of its reasoning could not be rewritten")
