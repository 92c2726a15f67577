"""What SFT learns from traces: to cite, to go on from what is heard again, and still to answer from a single pass."""

from __future__ import annotations

import random
from collections.abc import Sequence

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
    fine: bool = True,
    seed: int = 0,
) -> list[Lesson]:
    """One lesson of each example; its `meta` holds a `trace`.

    Args:
        examples: with traces.
        words: what asks for segments.
        form: one of `FORMS`.
        single: share of the examples that are learnt as a single pass instead, where there is `meta["single_pass"]`,
            the reply of one who heard the clip once.
        places: share that is learnt as a look-up of several places instead, where there is `meta["places"]`.
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
    return [_lesson(example, words, form, single, places, fine, seed) for example in examples]


def _lesson(example: Example, words: Prompt, form: str, single: float, places: float, fine: bool, seed: int) -> Lesson:
    trace = Trace.from_json(example.meta["trace"])
    kind = random.Random(f"lesson/{seed}/{example.id}").random()
    if kind < single and "single_pass" in example.meta:
        return Lesson(
            lambda: question_of(example, words, listen=False), example.meta["single_pass"], f"{example.id}/single"
        )
    if single <= kind < single + places and example.meta.get("places"):
        asked: dict[str, str] = example.meta["places"]
        return Lesson(
            lambda: Conversation().user(Audio(example.clip), f"\n\n{asked['question']}"),
            asked["reply"],
            f"{example.id}/places",
        )
    if form == TAGS or not trace.segments:
        return Lesson(lambda: question_of(example, words), trace.text, f"{example.id}/{form}")

    def conversation() -> Conversation:
        return question_of(example, words).assistant(*trace.parts(example.clip, fine=fine))

    return Lesson(conversation, trace.texts[-1], f"{example.id}/{form}", begun=True)
