"""Audio-interleaved reasoning (Echo, arXiv 2602.11909, section 3.2), in batches and on any engine.

A reply is generated up to `</seg>`; the cited stretch of the clip is appended in the middle of the assistant's turn, at
the finer rate where the model has one; the reply goes on. An engine that takes no audio there gets the stretch in a
further user turn. A citation that cannot be heard stays as it is, is counted by its kind, and the reply goes on.
A reply that runs out of turns has no answer: it is unfinished, never one of the options.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from earnest.audio import Clip
from earnest.completion import Completion, Heard, Sampling, Stop
from earnest.conversation import Audio, Conversation, Part, Text
from earnest.engines.engine import Capabilities
from earnest.errors import ModelError
from earnest.example import Example
from earnest.prompts import Prompt
from earnest.relistening.segments import CLOSING, Bounds, Fault, Segment, last_segment

WORDS: dict[str, str] = {"general": "relisten-1", "pocket": "relisten-pocket-1"}
"""For models that follow instructions, and in the closed language of pocket."""
Ask = Callable[[Sequence[Conversation], Sequence[Sampling]], list[Completion]]
"""One completion for each conversation, in order."""
FILLER = " ."
"""As many of these as fill the tokens of the segment, in place of it: time to think, and nothing to hear."""
FILLER_PER_S = 25.0
"""Where an engine does not tell its soft tokens."""


class Inserted(Protocol):
    """What is heard in place of a cited stretch."""

    def __call__(self, example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
        """The segment, its times changed if others are to stand in the tag, and what is appended behind it.

        Args:
            example: the question.
            clip: of it.
            segment: what the reply cites.
            number: of those before it that were heard.
        """
        ...


@dataclass(frozen=True)
class Turn:
    """One generation.

    Attributes:
        conversation: what the engine was given.
        completion: what it said.
        rewritten: its text where other times were put into its tag; empty if it stands as it was said.
    """

    conversation: Conversation
    completion: Completion
    rewritten: str = ""

    @property
    def text(self) -> str:
        """As it stands in the reply."""
        return self.rewritten or self.completion.text


@dataclass(frozen=True)
class Relistened:
    """A reply that went back to the audio.

    Attributes:
        text: the whole reply, tags included, without what was heard again.
        stop: why it ended; `LENGTH` also where the turns ran out.
        segments: its citations, in order.
        turns: its generations.
        parts: the assistant's turn as it stands: texts, and what was heard between them.
    """

    text: str
    stop: Stop
    segments: tuple[Segment, ...]
    turns: tuple[Turn, ...]
    parts: tuple[Part, ...]

    @property
    def heard_spans(self) -> list[tuple[float, float]]:
        """What was heard again, as (start, end) in seconds of the clip."""
        valid = [(s.start_s, s.end_s) for s in self.segments if s.fault is None]
        return [(start_s, end_s) for start_s, end_s in valid if start_s is not None and end_s is not None]

    @property
    def heard_again_s(self) -> float:
        """Seconds that were heard again."""
        return sum(segment.heard_s for segment in self.segments)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all its generations."""
        return sum(turn.completion.seconds for turn in self.turns)

    @property
    def completion(self) -> Completion:
        """As one completion, for grading: the last one, with the whole text; its tokens are those of all turns."""
        last = self.turns[-1].completion
        ids = tuple(token for turn in self.turns for token in turn.completion.token_ids)
        given = [turn.completion.logprobs for turn in self.turns]
        logprobs = None if any(own is None for own in given) else tuple(p for own in given for p in own or ())
        return replace(
            last,
            text=self.text,
            stop=self.stop,
            token_ids=ids,
            logprobs=logprobs,
            seconds=self.seconds,
            token_ends=_ends(self.turns),
        )

    @property
    def heard(self) -> Heard:
        """The hearing account of the last generation: the clip and all that was heard again."""
        return self.turns[-1].completion.heard


def _ends(turns: Sequence[Turn]) -> tuple[int, ...]:
    if any(not turn.completion.token_ends and turn.completion.text for turn in turns):
        return ()
    ends: list[int] = []
    before = 0
    for turn in turns:
        own = [min(end, len(turn.text)) for end in turn.completion.token_ends]
        # Where other times are in the tag, its last token ends where the tag does.
        ends += [before + end for end in (*own[:-1], *([len(turn.text)] if own else []))]
        before += len(turn.text)
    return tuple(ends)


@dataclass
class _Reply:
    example: Example
    clip: Clip
    conversation: Conversation
    sampling: Sampling
    text: str = ""
    stop: Stop = Stop.LENGTH
    segments: list[Segment] = field(default_factory=list[Segment])
    turns: list[Turn] = field(default_factory=list[Turn])
    parts: list[Part] = field(default_factory=list[Part])

    @property
    def spent_s(self) -> float:
        return sum(segment.heard_s for segment in self.segments)

    def done(self) -> Relistened:
        return Relistened(self.text, self.stop, tuple(self.segments), tuple(self.turns), tuple(self.parts))


def as_cited(example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
    """What was asked for: the stretch itself."""
    return segment, (Audio(_crop(clip, segment), fine=True),)


def hears_finer(engine: Any) -> bool:
    """Whether an engine's model has a finer pass for what is heard again; others hear it as they heard the clip."""
    return "fine" in getattr(getattr(getattr(engine, "family", None), "processor", None), "budgets", {})


def question_of(example: Example, words: Prompt, *, listen: bool = True) -> Conversation:
    """The question, with the words that ask for segments or with those of a single pass."""
    return example.conversation(words.texts["listen" if listen else "once"] or None)


def relisten(
    ask: Ask,
    capabilities: Capabilities,
    examples: Sequence[Example],
    sampling: Sampling | Sequence[Sampling],
    *,
    words: Prompt,
    bounds: Bounds | None = None,
    inserted: Inserted = as_cited,
    fine: bool = True,
    on_said: Callable[[Example, str, Segment | None], None] | None = None,
) -> list[Relistened]:
    """Answers questions, each reply going back to its clip as often as it cites a segment.

    Args:
        ask: who answers.
        capabilities: of it.
        examples: questions about one clip each.
        sampling: of every generation, one for all or one for each question; its limit is that of one generation.
        words: one of `WORDS`.
        bounds: how often and how much.
        inserted: what is heard in place of a cited stretch.
        fine: whether the model has a finer rate for it; False for those that have one rate.
        on_said: called with each question, what was just said about it, and the segment that it cites (None at the
            reply's end).

    Raises:
        AudioError: a clip cannot be read, or there is not exactly one.
        ModelError: another number of samplings than of questions.
    """
    bounds = bounds or Bounds()
    samplings = [sampling] * len(examples) if isinstance(sampling, Sampling) else list(sampling)
    if len(samplings) != len(examples):
        raise ModelError(f"{len(samplings)} samplings for {len(examples)} questions: give one, or one for each")
    # Read once: the question and what is heard again are of the same clip in memory.
    clips = [example.clip for example in examples]
    replies = [
        _Reply(example, clip, question_of(example.with_clips(clip), words), replace(own, stop=(*own.stop, CLOSING)))
        for example, clip, own in zip(examples, clips, samplings, strict=True)
    ]
    open_replies = list(replies)
    for turn in range(bounds.turns):
        completions = ask([reply.conversation for reply in open_replies], [reply.sampling for reply in open_replies])
        last = turn == bounds.turns - 1
        open_replies = [
            reply
            for reply, completion in zip(open_replies, completions, strict=True)
            if _goes_on(reply, completion, capabilities, words, bounds, inserted, on_said, fine=fine, last=last)
        ]
        if not open_replies:
            break
    return [reply.done() for reply in replies]


def _goes_on(
    reply: _Reply,
    completion: Completion,
    capabilities: Capabilities,
    words: Prompt,
    bounds: Bounds,
    inserted: Inserted,
    on_said: Callable[[Example, str, Segment | None], None] | None,
    *,
    fine: bool,
    last: bool,
) -> bool:
    """Takes a generation in; whether the reply goes on."""
    said = completion.text
    if completion.stop is not Stop.STOP_STRING or not said.endswith(CLOSING):
        reply.text, reply.stop = reply.text + said, completion.stop
        reply.turns.append(Turn(reply.conversation, completion))
        reply.parts.append(Text(said))
        if on_said:
            on_said(reply.example, said, None)
        return False
    segment = last_segment(said, reply.clip.duration_s, bounds, reply.spent_s)
    heard: tuple[Part, ...] = ()
    if last and segment.fault is None:
        segment = replace(segment, fault=Fault.SPENT, cut=False)
    if segment.fault is None:
        asked_for = segment
        number = sum(other.fault is None for other in reply.segments)
        segment, heard = inserted(reply.example, reply.clip, segment, number)
        heard = tuple(replace(part, fine=part.fine and fine) if isinstance(part, Audio) else part for part in heard)
        if (segment.start_s, segment.end_s) != (asked_for.start_s, asked_for.end_s):
            said = said[: len(said) - len(f"<seg>{asked_for.text}{CLOSING}")] + _tag(segment)
    reply.segments.append(segment)
    reply.text += said
    reply.turns.append(Turn(reply.conversation, completion, said if said != completion.text else ""))
    reply.parts += [Text(said), *heard]
    reply.conversation = _continued(reply.conversation, said, heard, segment, capabilities, words)
    if on_said:
        on_said(reply.example, said, segment)
    return not last


def _continued(
    conversation: Conversation,
    said: str,
    heard: tuple[Part, ...],
    segment: Segment,
    capabilities: Capabilities,
    words: Prompt,
) -> Conversation:
    go = conversation.append if conversation.continues_assistant else conversation.assistant
    has_audio = any(isinstance(part, Audio) for part in heard)
    if capabilities.continues_assistant and (capabilities.audio_in_assistant or not has_audio):
        return go(Text(said), *heard)
    text = words.texts["go_on" if has_audio else "unheard"].format(
        start=f"{segment.start_s or 0:g}", end=f"{segment.end_s or 0:g}"
    )
    return go(Text(said)).user(*heard, f"\n\n{text}" if has_audio else text)


def _tag(segment: Segment) -> str:
    return f"<seg>{_seconds(segment.start_s)}, {_seconds(segment.end_s)}</seg>"


def _seconds(value: float | None) -> str:
    return f"{value or 0.0:g}"


def _crop(clip: Clip, segment: Segment) -> Clip:
    assert segment.start_s is not None and segment.end_s is not None, "a segment without a fault has times"
    return clip.crop(segment.start_s, segment.end_s)


# What else may be heard in its place: the controls.


def random_segment(seed: int) -> Inserted:
    """A stretch of the same length elsewhere in the clip, apart from the cited one where there is room."""

    def inserted(example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
        length_s = segment.heard_s
        rng = random.Random(f"random segment/{seed}/{example.id}/{number}")
        latest = max(0.0, clip.duration_s - length_s)
        every = _whole_seconds(latest)
        apart = [s for s in every if _apart(s, s + length_s, segment)]
        start_s = rng.choice(apart or [s for s in every if s != segment.start_s] or every)
        other = replace(segment, start_s=start_s, end_s=min(start_s + length_s, clip.duration_s))
        return other, (Audio(_crop(clip, other), fine=True),)

    return inserted


def oracle_segment(spans_of: Callable[[Example], Sequence[tuple[float, float]]]) -> Inserted:
    """The evidence: the k-th citation is replaced by the k-th stretch that holds it.

    It is as long as what was cited, with the evidence in the middle: only the place is then better, not the form.
    """

    def inserted(example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
        spans = spans_of(example)
        if number < len(spans):
            start_s, end_s = spans[number]
            length_s = min(clip.duration_s, max(segment.heard_s, end_s - start_s))
            begin_s = max(0.0, min((start_s + end_s - length_s) / 2, clip.duration_s - length_s))
            # Citations are of whole seconds, where they can be.
            start_s = float(int(begin_s)) if int(begin_s) + length_s >= end_s else begin_s
            segment = replace(segment, start_s=start_s, end_s=min(clip.duration_s, start_s + length_s))
        return segment, (Audio(_crop(clip, segment), fine=True),)

    return inserted


def silence(example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
    """Digital silence of the same length, at the same place."""
    crop = _crop(clip, segment)
    quiet = Clip(np.zeros_like(crop.samples), crop.sample_rate_hz, crop.source, crop.offset_s)
    return segment, (Audio(quiet, fine=True),)


def fillers_of(engine: Any, *, fine: bool) -> Callable[[Audio], int] | None:
    """How many times `FILLER` has the tokens of what is heard again, marks and all; None where an engine tells none."""
    family = getattr(engine, "family", None)
    if family is None:
        return None
    several = 16
    each = len(family.continuation_ids(FILLER * several)) / several
    return lambda audio: round(len(family.audio_ids(replace(audio, fine=fine))) / each)


def filler(repeats_of: Callable[[Audio], int] | None = None) -> Inserted:
    """Meaningless text of the same length in tokens.

    Args:
        repeats_of: how many times `FILLER` is as long as an audio part; None: 25 a second.
    """

    def inserted(example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
        audio = Audio(_crop(clip, segment), fine=True)
        count = repeats_of(audio) if repeats_of else round(FILLER_PER_S * segment.heard_s)
        return segment, (Text(FILLER * max(1, count)),)

    return inserted


def whole_clip(*, fine: bool) -> Inserted:
    """The whole clip once more, at the first pass's rate or at the finer one."""

    def inserted(example: Example, clip: Clip, segment: Segment, number: int) -> tuple[Segment, tuple[Part, ...]]:
        return segment, (Audio(clip, fine=fine),)

    return inserted


def _whole_seconds(latest_s: float) -> list[float]:
    return [float(second) for second in range(int(latest_s) + 1)]


def _apart(start_s: float, end_s: float, segment: Segment) -> bool:
    assert segment.start_s is not None and segment.end_s is not None, "a segment without a fault has times"
    return end_s <= segment.start_s or start_s >= segment.end_s
