"""Questions about a scene: wording, choices, answer, evidence and the reason for it.

A template (`templates/`) draws its slots from a timeline and answers from the timeline alone. Answers and
choices are balanced so that the question's text tells nothing: yes and no alternate by a coin, every number
that is offered is right equally often, and the order of choices is shuffled.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from earnest.world.surrogates import clock
from earnest.world.templates import TEMPLATES
from earnest.world.templates.drafts import UNKNOWN, Cite, Draft, Modality, Reason
from earnest.world.timeline import Scene
from earnest.world.vocabulary import INSTRUMENTS, PITCHES, SOUNDS, SPEAKERS, TEMPI, WORDS

__all__ = ["TEMPLATES", "UNKNOWN", "Cite", "Question", "Reason", "ask", "ask_unanswerable", "difficulty"]


@dataclass(frozen=True)
class Question:
    """A question about a scene with everything that is known about it."""

    template: str
    modality: Modality
    hops: int
    text: str
    choices: tuple[str, ...]
    answer: str
    reason: Reason
    difficulty: str

    @property
    def evidence(self) -> tuple[tuple[float, float], ...]:
        """The segments in seconds that hold the answer."""
        return tuple((part.event.start_s, part.event.end_s) for part in self.reason if isinstance(part, Cite))


def ask(scene: Scene, rng: random.Random, template: str | None = None, *, n_choices: int = 4) -> Question | None:
    """Asks one question about a scene.

    Args:
        scene: whose timeline holds the answer; its split decides the wordings.
        rng: source of every choice.
        template: name of the template; drawn if None (None comes back only if it is given).
        n_choices: number of choices where the set is open.

    Returns:
        A question, or None if the scene cannot be asked the given template.
    """
    for _ in range(200):
        chosen = TEMPLATES[template or rng.choice(list(TEMPLATES))]
        draft = chosen.draw(scene, rng)
        if draft is None:
            if template:
                return None
            continue
        wordings = chosen.wordings_of(scene.split)
        return Question(
            template=chosen.name,
            modality=chosen.modality,
            hops=chosen.hops,
            text=_worded(rng.choice(wordings), draft.slots),
            choices=_choices(draft, rng, n_choices),
            answer=draft.answer,
            reason=draft.reason,
            difficulty=difficulty(scene, chosen.hops),
        )
    return None


def ask_unanswerable(scene: Scene, rng: random.Random) -> Question | None:
    """Asks about something that the scene does not hold; the answer is `UNKNOWN`."""
    name = rng.choice(list(_ABSENT))
    template = TEMPLATES[name]
    pool, noun = _ABSENT[name]
    heard = {event.name for event in scene.events} | {
        word for event in scene.of_kind("speech") for word in event.name.split()
    }
    thing = rng.choice([item for item in pool if item not in heard])
    draft = Draft(UNKNOWN, (f"no {noun}{thing}",), _DISTRACTORS[name], {"x": thing})
    wordings = template.wordings_of(scene.split)
    choices = tuple(rng.sample([c for c in draft.others if c != thing], min(4, len(draft.others) - 1)))
    return Question(
        name, template.modality, template.hops, _worded(rng.choice(wordings), draft.slots), choices,
        UNKNOWN, draft.reason, difficulty(scene, template.hops),
    )  # fmt: skip


def difficulty(scene: Scene, hops: int) -> str:
    """easy, medium or hard: by events, hops, overlap and noise."""
    overlaps = any(b.start_s < a.end_s for a, b in zip(scene.events, scene.events[1:], strict=False))
    noisy = scene.snr_db is not None and scene.snr_db < 5
    points = (len(scene.events) > 4) + (hops > 1) + overlaps + 2 * noisy
    return ("easy", "medium", "hard")[min(points, 2)]


def _worded(wording: str, slots: dict[str, str]) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", wording.format(**slots))


def _choices(draft: Draft, rng: random.Random, n_choices: int) -> tuple[str, ...]:
    if draft.fixed:
        choices = list(draft.fixed)
    else:
        others = [other for other in dict.fromkeys(draft.others) if other != draft.answer]
        near = others[: n_choices - 1] if len(others) <= n_choices - 1 else rng.sample(others, n_choices - 1)
        choices = [draft.answer, *near]
    rng.shuffle(choices)
    return tuple(choices)


_ABSENT: dict[str, tuple[Sequence[str], str]] = {
    "sound_after": (SOUNDS, ""),
    "sound_before": (SOUNDS, ""),
    "sound_when": (SOUNDS, ""),
    "word_after": (WORDS, "word "),
    "who_says": (WORDS, "word "),
    "pitch_of": (INSTRUMENTS, ""),
    "tempo_of": (INSTRUMENTS, ""),
    "instrument_after": (INSTRUMENTS, ""),
}
_DISTRACTORS: dict[str, Sequence[str]] = {
    "sound_after": SOUNDS, "sound_before": SOUNDS, "sound_when": [clock(s) for s in range(0, 12, 2)],
    "word_after": WORDS, "who_says": SPEAKERS, "pitch_of": PITCHES, "tempo_of": TEMPI,
    "instrument_after": INSTRUMENTS,
}  # fmt: skip
