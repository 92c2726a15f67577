"""Probes of the audio: each an intervention with a name, its grid and its effect on an item's conversation.

Question and right answer stay as they are (arXiv 2509.22363 v3, section 3.1). What a probe cannot do to an item it
says, and the audit counts it: nothing is left out without a word.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from earnest.audio import Clip
from earnest.audio.edits import (
    add_noise,
    mask,
    mask_interval,
    mask_intervals,
    measured_snr_db,
    overlay,
    silence,
    splice,
)
from earnest.conversation import Conversation
from earnest.errors import AudioError, EarnestError
from earnest.example import Example
from earnest.faithfulness.cot import Chain
from earnest.faithfulness.language import Language

CLEAN, AGAIN, NO_REASONING, QUESTION_ONLY, SWAPPED = "clean", "again", "no_reasoning", "question_only", "swapped"
SILENCE, NOISE, MASK, GUIDED, OCCLUSION = "silence", "noise", "mask", "guided", "occlusion"
SNRS_DB = (20.0, 10.0, 0.0, -10.0, -20.0)
MASKED = (0.2, 0.4, 0.6, 0.8, 1.0)
SPEECH, BACKGROUND = 0.0, 1.0
"""What guided masking takes away."""
AGAIN_DB = 60.0
"""Noise that nobody hears: how much of a difference is owed to nothing at all?"""
WINDOWS = 8
"""Of an occlusion map."""


class NotApplicable(EarnestError):
    """An intervention that an item does not allow; the text says why."""


@dataclass(frozen=True)
class Item:
    """A question with what probes need of it.

    Attributes:
        example: the question, its one clip loaded.
        other: the same question about another question's clip; None where there is none.
        chain: what it said for a reason on clean audio, without the answer; None before it was asked.
        why_none: why there is no chain.
        paraphrased: [L] each step of the chain in other words; None where the rewriter failed.
        mistaken: [L] each step with an error; None where the rewriter failed.
    """

    example: Example
    other: Example | None = None
    chain: Chain | None = None
    why_none: str = "it gave no reasoning"
    paraphrased: tuple[str | None, ...] = ()
    mistaken: tuple[str | None, ...] = ()

    @property
    def timeline(self) -> Sequence[Mapping[str, Any]] | None:
        """Events {kind, name, start_s, end_s}; None where nobody annotated them."""
        return self.example.meta.get("timeline")

    @property
    def asks_about_speech(self) -> bool:
        """Whether the answer lies in speech, else in what is called the background."""
        return self.example.groups.get("modality") == "speech"

    def reason(self) -> Chain:
        """The chain.

        Raises:
            NotApplicable: there is none.
        """
        if self.chain is None:
            raise NotApplicable(self.why_none)
        return self.chain


@dataclass(frozen=True)
class Edited:
    """An item as a probe left it.

    Attributes:
        conversation: what is asked.
        clip: what is heard; None for the item's own.
        lead: how the reply has begun already.
        told: the choice that an injected voice says.
        measured: what was done, as it came out (an SNR in dB); nan where that is the grid's value.
    """

    conversation: Conversation
    clip: Clip | None = None
    lead: str = ""
    told: str = ""
    measured: float = math.nan


class Probe(Protocol):
    """An intervention."""

    @property
    def name(self) -> str:
        """In tables, records and `--probe`."""
        ...

    @property
    def of_chain(self) -> bool:
        """Whether it edits the reasoning, and so needs the clean reply."""
        ...

    def grid(self, item: Item) -> Sequence[float]:
        """Values of its parameter for an item.

        Raises:
            NotApplicable: it cannot be done to this item at all.
        """
        ...

    def edit(self, item: Item, value: float) -> Edited:
        """The item at one of them.

        Raises:
            NotApplicable: it cannot be done to this item.
        """
        ...


@dataclass(frozen=True)
class Untouched:
    """The question as it is."""

    language: Language
    name: str = CLEAN
    of_chain: bool = False

    def grid(self, item: Item) -> Sequence[float]:
        """One value: nothing is varied."""
        return (0.0,)

    def edit(self, item: Item, value: float) -> Edited:
        """Nothing is done."""
        return Edited(self.language.asked(item.example))


@dataclass(frozen=True)
class Again(Untouched):
    """The question once more, for the share of every difference that is owed to chance alone.

    Greedy replies would be the same, so the clip gets noise 60 dB below it; the audit draws sampled ones by another
    seed besides.
    """

    name: str = AGAIN
    seed: int = 0

    def edit(self, item: Item, value: float) -> Edited:
        """With noise that nobody hears; a silent clip stays as it is."""
        clip = item.example.clip
        return _over(self.language, item, clip if clip.rms == 0 else add_noise(clip, AGAIN_DB, self.seed))


@dataclass(frozen=True)
class NoReasoning(Untouched):
    """The question with the demand to answer at once: reasoning can lower accuracy too."""

    name: str = NO_REASONING

    def edit(self, item: Item, value: float) -> Edited:
        """Asked for the answer alone."""
        return Edited(self.language.asked_directly(item.example))


@dataclass(frozen=True)
class QuestionOnly(Untouched):
    """The question without its audio."""

    name: str = QUESTION_ONLY

    def edit(self, item: Item, value: float) -> Edited:
        """Without the audio."""
        return Edited(self.language.asked(replace(item.example, audio=())))


@dataclass(frozen=True)
class Swapped(Untouched):
    """Another question's clip, of the same modality."""

    name: str = SWAPPED

    def edit(self, item: Item, value: float) -> Edited:
        """Over the other clip."""
        if item.other is None:
            raise NotApplicable("no other clip of its modality")
        return _over(self.language, item, item.other.clip)


@dataclass(frozen=True)
class Silence(Untouched):
    """Digital silence of the clip's length."""

    name: str = SILENCE

    def edit(self, item: Item, value: float) -> Edited:
        """Over silence."""
        return _over(self.language, item, silence(item.example.clip))


@dataclass(frozen=True)
class Noise(Untouched):
    """White noise over the clip, down to 20 dB above it."""

    name: str = NOISE
    snrs_db: tuple[float, ...] = SNRS_DB
    seed: int = 0

    def grid(self, item: Item) -> Sequence[float]:
        """Ratios in dB, from hardly audible on."""
        if item.example.clip.rms == 0:
            raise NotApplicable("the clip is silent: no noise can be measured against it")
        return self.snrs_db

    def edit(self, item: Item, value: float) -> Edited:
        """Over noise."""
        clip = item.example.clip
        noisy = add_noise(clip, value, self.seed)
        return replace(_over(self.language, item, noisy), measured=measured_snr_db(clip, noisy))


@dataclass(frozen=True)
class Mask(Untouched):
    """Zeros in chunks of a second, spread over the clip."""

    name: str = MASK
    ratios: tuple[float, ...] = MASKED
    seed: int = 0

    def grid(self, item: Item) -> Sequence[float]:
        """Shares of the clip."""
        return self.ratios

    def edit(self, item: Item, value: float) -> Edited:
        """With that share gone."""
        return _over(self.language, item, mask(item.example.clip, value, self.seed))


@dataclass(frozen=True)
class Guided(Untouched):
    """All speech zeroed, or all but the speech; for annotated clips that hold both."""

    name: str = GUIDED

    def grid(self, item: Item) -> Sequence[float]:
        """Without speech, without the rest."""
        if item.timeline is None:
            raise NotApplicable("nobody annotated when speech is heard (meta.timeline)")
        spoken = [event["kind"] == "speech" for event in item.timeline]
        if not any(spoken) or all(spoken):
            raise NotApplicable("the clip does not hold both speech and something else")
        return (SPEECH, BACKGROUND)

    def edit(self, item: Item, value: float) -> Edited:
        """With one of the two gone."""
        clip = item.example.clip
        ends = [
            (max(0.0, float(event["start_s"])), min(float(event["end_s"]), clip.duration_s))
            for event in item.timeline or ()
            if event["kind"] == "speech"
        ]
        spans = [(start_s, end_s) for start_s, end_s in ends if start_s < end_s]
        if not spans:
            raise NotApplicable("its speech lies outside of the clip, by the annotation")
        return _over(self.language, item, mask_intervals(clip, spans, keep=value == BACKGROUND))


@dataclass(frozen=True)
class Occlusion(Untouched):
    """One equal window after the other zeroed: which seconds move the answer?"""

    name: str = OCCLUSION
    windows: int = WINDOWS

    def grid(self, item: Item) -> Sequence[float]:
        """Starts of the windows, as shares of the clip."""
        return tuple(number / self.windows for number in range(self.windows))

    def edit(self, item: Item, value: float) -> Edited:
        """With one window gone."""
        clip = item.example.clip
        start_s, end_s = self.window(clip.duration_s, value)
        return _over(self.language, item, mask_interval(clip, start_s, min(end_s, clip.duration_s)))

    def window(self, duration_s: float, value: float) -> tuple[float, float]:
        """Where a window lies, in seconds."""
        return value * duration_s, (value + 1 / self.windows) * duration_s


Mode = Literal["splice", "overlay"]
MODES: tuple[Mode, ...] = ("splice", "overlay")


@dataclass(frozen=True)
class Attack(Untouched):
    """A synthetic voice says the right or a wrong option, spliced in or overlaid at the clip's level.

    Attributes:
        mode: spliced in at a random interior point (the clip gets longer), or overlaid.
        form: of the words, one of `language.forms`.
        right: whether it says the right answer.
        seed: of the option and of the place.
    """

    mode: Mode = "splice"
    form: str = "option"
    right: bool = False
    seed: int = 0
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Names itself."""
        told = "right" if self.right else "wrong"
        object.__setattr__(self, "name", f"attack_{self.mode}_{self.form}_{told}")

    def edit(self, item: Item, value: float) -> Edited:
        """With the voice."""
        example = item.example
        if not example.choices:
            raise NotApplicable("an open question has no wrong option to say")
        if item.asks_about_speech:
            raise NotApplicable("it asks about speech: the injected words would be part of what is asked about")
        options = [choice for choice in example.choices if (choice == example.answer) == self.right]
        rng = random.Random(f"{self.form}/{self.seed}/{example.id}")
        rng.shuffle(options)
        said = ((option, self.language.uttered(example, option, self.form)) for option in options)
        found = next(((option, voice) for option, voice in said if voice is not None), None)
        if found is None:
            raise NotApplicable(f"no {'right' if self.right else 'wrong'} option that can be said as {self.form}")
        option, voice = found
        clip = example.clip
        try:
            changed = (splice if self.mode == "splice" else overlay)(clip, voice, seed=self.seed)
        except AudioError as error:
            raise NotApplicable("the words do not fit over the clip, or it is silent") from error
        return replace(_over(self.language, item, changed), told=option)


def audio_probes(language: Language, seed: int = 0) -> tuple[Probe, ...]:
    """All of them, the controls first.

    Args:
        language: how it is asked, and what an injected voice says.
        seed: of noise, masks, options and places.
    """
    attacks = [
        Attack(language, mode=mode, form=form, right=right, seed=seed)
        for mode in MODES
        for form in language.forms
        for right in ((False, True) if form == "option" else (False,))
    ]
    return (
        Untouched(language),
        Again(language, seed=seed),
        NoReasoning(language),
        QuestionOnly(language),
        Swapped(language),
        Silence(language),
        Noise(language, seed=seed),
        Mask(language, seed=seed),
        Guided(language),
        *attacks,
        Occlusion(language),
    )


def _over(language: Language, item: Item, clip: Clip) -> Edited:
    return Edited(language.asked(item.example.with_clips(clip)), clip)
