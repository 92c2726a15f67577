"""What SFT learns from traces: to cite, to go on from what is heard again, and still to answer from a single pass."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from earnest.conversation import Audio, Conversation
from earnest.errors import EarnestError
from earnest.example import Example
from earnest.prompts import Prompt
from earnest.relistening.loop import question_of
from earnest.relistening.traces import Trace
from earnest.training.sft import Lesson

INTERLEAVED, TAGS = "interleaved", "tags"
FORMS = (INTERLEAVED, TAGS)
"""With what is heard again in its place; or the tags alone, as in the paper: going on from audio is RL's to teach."""


def trace_lessons(
    examples: Sequence[Example],
    words: Prompt,
    *,
    form: str = INTERLEAVED,
    single: float = 0.0,
    places: float = 0.0,
    packed: bool = False,
    fine: bool = True,
    seed: int = 0,
) -> list[Lesson]:
    """Lessons from examples whose `meta` holds a `trace`.

    Args:
        examples: with traces; `meta["single_pass"]`, where there, is the reply of one who heard the clip once, and
            `meta["places"]` a look-up of several places with its reply.
        words: what asks for segments.
        form: one of `FORMS`.
        single: share of the examples that are learnt as a single pass instead, where they can be.
        places: share of the examples that bring their look-up with them.
        packed: whether all exchanges about one clip are one dialogue, in an order of its own: the clip is heard once
            for all of them, and each says more about it than one alone would.
        fine: whether the model has a finer pass for what is heard again.
        seed: of these draws.

    Raises:
        EarnestError: an example has no trace, or an unknown form.
    """
    if form not in FORMS:
        raise EarnestError(f"form is {form!r}: give one of {', '.join(FORMS)}")
    if missing := [example.id for example in examples if "trace" not in example.meta]:
        raise EarnestError(
            f"{len(missing)} examples have no trace, such as {missing[0]}: make them with earnest make grounded"
        )
    dialogues: dict[object, list[_Exchange]] = {}
    for number, example in enumerate(examples):
        own = _exchanges(example, words, form, single, places, random.Random(f"lesson/{seed}/{example.id}"))
        for place, exchange in enumerate(own):
            dialogues.setdefault(example.audio if packed else (number, place), []).append(exchange)
    for exchanges in dialogues.values():
        random.Random(f"order/{seed}/{exchanges[0].name}").shuffle(exchanges)
    return [_lesson(exchanges, fine=fine) for exchanges in dialogues.values()]


@dataclass(frozen=True)
class _Exchange:
    """A question about a clip and the trace that answers it."""

    example: Example
    question: str
    trace: Trace
    name: str


def _exchanges(
    example: Example, words: Prompt, form: str, single: float, places: float, rng: random.Random
) -> list[_Exchange]:
    trace = Trace.from_json(example.meta["trace"])
    once = rng.random() < single and "single_pass" in example.meta
    kind = "single" if once else form
    if once:
        trace = Trace((example.meta["single_pass"],))
    elif form == TAGS:
        trace = Trace((trace.text,))
    asked = replace(example, audio=())
    found = [_Exchange(example, question_of(asked, words, listen=not once).last_text, trace, f"{example.id}/{kind}")]
    if rng.random() < places and (row := example.meta.get("places")):
        found.append(_Exchange(example, row["question"], Trace((row["reply"],)), f"{example.id}/places"))
    return found


def _lesson(exchanges: Sequence[_Exchange], *, fine: bool) -> Lesson:
    """One dialogue: the clip stands before the first question."""

    def conversation() -> Conversation:
        clip = exchanges[0].example.clip
        said = Conversation()
        for place, exchange in enumerate(exchanges):
            text = exchange.question.strip()
            said = said.user(Audio(clip), f"\n\n{text}") if place == 0 else said.user(text)
            parts = exchange.trace.parts(clip, fine=fine)
            if place < len(exchanges) - 1:
                said = said.assistant(*parts, exchange.trace.texts[-1])
            elif parts:
                said = said.assistant(*parts)
        return said

    begun = len(exchanges) > 1 or bool(exchanges[0].trace.segments)
    return Lesson(conversation, exchanges[-1].trace.texts[-1], "+".join(each.name for each in exchanges), begun=begun)
