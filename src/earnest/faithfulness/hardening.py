"""Contrastive lessons: abstain where there is nothing to hear, ignore a voice that contradicts what is heard.

    clean      the question as it is, with the model's own right reply
    told       the same where a voice of the clip tells the answer: trust that is right must stay
    silent     over silence                                            -> nothing is heard, "I don't know"
    noise      over noise alone, where "no" and "0" are no choices     -> the same
    swapped    over a clip that lacks what the question names          -> it is not heard, "I don't know"
    injected   a voice says a wrong option, spliced in or overlaid     -> the own right reply to the clip without it

Each lesson but the first two has a counterpart: the same question over its own clip. The control learns the
counterparts in their place, so that what any further training would change is not booked on hardening.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from earnest.audio import Clip
from earnest.audio.edits import noise_alone, silence
from earnest.completion import Stop
from earnest.errors import EarnestError
from earnest.example import Example, load_manifest, save_manifest
from earnest.faithfulness.language import Language
from earnest.faithfulness.presence import is_told
from earnest.faithfulness.probes import MODES, Attack, Item, NotApplicable
from earnest.grading import Outcome, abstains, grade, open_at_silence, parse_reply
from earnest.grading.options import words
from earnest.training.sft import Lesson
from earnest.world.vocabulary import INSTRUMENTS, SOUNDS, WORDS

CLEAN, TOLD, SILENT, NOISE, SWAPPED, INJECTED = "clean", "told", "silent", "noise", "swapped", "injected"
CONTRASTIVE = (SILENT, NOISE, SWAPPED, INJECTED)
NOTHING_HEARD = "<think> i hear no sound.</think><answer> i don't know</answer>"
NOT_HEARD = "<think> i hear no {name}.</think><answer> i don't know</answer>"
_NUMBERS_AND_VERDICTS = frozenset({"yes", "no", *"0123456789"})
_NAMES = frozenset((*SOUNDS, *INSTRUMENTS, *WORDS))


@dataclass(frozen=True)
class Shares:
    """How many of each kind.

    Attributes:
        silent: copies over silence, as a share of the clean lessons.
        noise: over noise alone.
        swapped: over another clip.
        injected: with a voice.
    """

    silent: float = 0.05
    noise: float = 0.05
    swapped: float = 0.1
    injected: float = 0.4

    def __post_init__(self) -> None:
        """Checks the shares.

        Raises:
            EarnestError: one is none.
        """
        for name in CONTRASTIVE:
            if not 0 <= getattr(self, name) <= 1:
                raise EarnestError(f"{name} is {getattr(self, name)}: it is a share of the clean lessons, 0 to 1")


def contrastive(
    examples: Sequence[Example],
    replies: Sequence[tuple[str, Stop]],
    language: Language,
    folder: Path,
    shares: Shares,
    seed: int = 0,
    *,
    nothing: str = NOTHING_HEARD,
    not_heard: str = NOT_HEARD,
) -> list[Example]:
    """Lessons as examples: `meta` holds `kind`, `reply` and, of a contrastive one, `counterpart` and `own_clip`.

    Args:
        examples: questions with answers and clips.
        replies: the model's own reply to each, and why it ended; what it got wrong teaches nothing here.
        language: whose voices are injected.
        folder: for the edited clips.
        shares: how many of each kind.
        seed: of all that is drawn.
        nothing: the reply where nothing is heard; it must abstain.
        not_heard: the reply where {name} is not heard; it must abstain.

    Raises:
        EarnestError: one of them would not be read as abstaining.
    """
    require_abstaining(nothing, not_heard)
    right = [
        (_as_file(example, folder), reply)
        for example, (reply, stop) in zip(examples, replies, strict=True)
        if _is_right(example, reply, stop)
    ]
    rng = random.Random(f"contrastive lessons/{seed}")
    found = [_lesson(example, TOLD if is_told(example) else CLEAN, reply) for example, reply in right]

    def some(share: float) -> list[tuple[Example, str]]:
        return rng.sample(right, round(share * len(right)))

    for example, reply in some(shares.silent):
        found.append(_contrast(example, SILENT, silence(example.clip), nothing, reply, folder))
    # Under noise "no" may be right; of what else is asked nobody can know.
    unsettled = [(example, reply) for example, reply in some(1.0) if open_at_silence(example.choices)]
    for example, reply in unsettled[: round(shares.noise * len(right))]:
        found.append(_contrast(example, NOISE, noise_alone(example.clip, seed), nothing, reply, folder))
    found += _swapped(some(1.0), round(shares.swapped * len(right)), not_heard, folder, rng)
    found += _injected(some(1.0), round(shares.injected * len(right)), language, folder, seed)
    return found


def save_lessons(lessons: Iterable[Example], manifest: Path) -> None:
    """Writes lessons as a manifest."""
    save_manifest(lessons, manifest)


def read_lessons(manifest: Path, language: Language, *, control: bool = False) -> list[Lesson]:
    """Lessons that `save_lessons` wrote, asked as the audit asks.

    Args:
        manifest: the file.
        language: how the model is asked.
        control: the counterparts in place of the contrastive ones.

    Raises:
        ManifestError: it is no manifest, or a clip is gone.
    """
    found: list[Lesson] = []
    for example in load_manifest(manifest):
        meta = example.meta
        if control and "counterpart" in meta:
            own = replace(example, audio=(manifest.parent / meta["own_clip"],))
            found.append(Lesson(partial(language.asked, own), meta["counterpart"], f"{example.id}/own"))
        else:
            found.append(Lesson(partial(language.asked, example), meta["reply"], example.id))
    return found


def named_in(example: Example) -> str | None:
    """What a question presupposes to be heard, where it names one thing and does not ask whether or how often."""
    if not example.choices or set(example.choices) <= _NUMBERS_AND_VERDICTS:
        return None
    named = [word for word in words(example.question) if word in _NAMES]
    return named[0] if len(named) == 1 else None


def require_abstaining(*replies: str) -> None:
    """Checks replies that are to be learnt where nothing is known.

    Raises:
        EarnestError: one of them would not be read as abstaining.
    """
    for reply in replies:
        if not abstains(parse_reply(reply).answer):
            raise EarnestError(f'{reply!r} would not be read as abstaining: end it with words such as "I don\'t know"')


def _is_right(example: Example, reply: str, stop: Stop) -> bool:
    return grade(reply, stop, example).outcome is Outcome.CORRECT


def _as_file(example: Example, folder: Path) -> Example:
    """With a file in place of a clip: lessons are many, and only their own are to be in memory."""
    return (
        example if isinstance(example.audio[0], Path) else replace(example, audio=(example.audio[0].kept_in(folder),))
    )


def _lesson(example: Example, kind: str, reply: str) -> Example:
    return replace(example, meta={"kind": kind, "reply": reply})


def _contrast(example: Example, kind: str, clip: Clip, reply: str, own: str, folder: Path) -> Example:
    """A lesson over another clip, with its counterpart."""
    path, before = clip.kept_in(folder), example.audio[0]
    assert isinstance(before, Path), "lessons are made of files"
    meta = {"kind": kind, "reply": reply, "counterpart": own, "own_clip": str(before.resolve())}
    return replace(example, id=f"{example.id}-{kind}", audio=(path,), evidence=None, meta=meta)


def _swapped(
    candidates: Sequence[tuple[Example, str]], count: int, not_heard: str, folder: Path, rng: random.Random
) -> list[Example]:
    found: list[Example] = []
    for example, reply in candidates:
        name = named_in(example)
        if name is None or len(found) == count:
            continue
        others = [other for other, _ in rng.sample(candidates, min(20, len(candidates))) if not _holds(other, name)]
        if others:
            noun = "word " if example.groups.get("modality") == "speech" else ""
            denial = not_heard.replace("{name}", f"{noun}{name}")
            found.append(_contrast(example, SWAPPED, others[0].clip, denial, reply, folder))
    return found


def _holds(example: Example, name: str) -> bool:
    """Whether a clip may hold what has this name; yes where nobody annotated it."""
    timeline = example.meta.get("timeline")
    return timeline is None or any(name in event["name"].split() for event in timeline)


def _injected(
    candidates: Sequence[tuple[Example, str]], count: int, language: Language, folder: Path, seed: int
) -> list[Example]:
    """As many of each mode and form, as far as there are items that allow it."""
    attacks = [Attack(language, mode=mode, form=form, seed=seed) for form in language.forms for mode in MODES]
    left = dict.fromkeys([attack.name for attack in attacks], count // len(attacks))
    found: list[Example] = []
    for example, reply in candidates:
        item = Item(example.with_clips(example.clip))
        for attack in attacks:
            if not left[attack.name]:
                continue
            try:
                edited = attack.edit(item, 0.0)
            except NotApplicable:
                continue
            assert edited.clip is not None
            left[attack.name] -= 1
            lesson = _contrast(example, INJECTED, edited.clip, reply, reply, folder)
            found.append(replace(lesson, id=f"{lesson.id}-{attack.name}"))
    return found
