"""What is asked about a clip: candidates written from its surrogate, of which a sound one is drawn.

A writer who hears nothing writes candidates (ALARM, arXiv 2603.09556, section 3). One that betrays a text is found by
the list of leaks; of the others a judge says whether they can be answered. Candidates are looked at in an order that is
drawn, until enough of them are sound: this draws among all sound ones with equal chances, and asks the judge far less.

Where the audio itself is the request, a neutral instruction is drawn, or none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from earnest.alignment.asking import SLICE_ROWS, THINKING_TOKENS, Asking, slices, thought_out
from earnest.alignment.cards import questions_tally
from earnest.alignment.leaks import leak
from earnest.alignment.rows import Asked, Surrogate, as_json, as_kind
from earnest.alignment.writing import CARD, REJECTED, reason_rates
from earnest.completion import Completion, Stop
from earnest.conversation import Conversation
from earnest.files import growing_json_lines, write_json
from earnest.grading import parse_reply, read_verdict
from earnest.grading.phrases import plainly, read_lines
from earnest.prompts import Prompt, filled
from earnest.run import Generator
from earnest.statistics import rate

WRITER, JUDGE = "questions-2", "question-judge-2"
"""Names of the words."""
QUESTIONS = "questions.jsonl"
CANDIDATES = 20
_NUMBERED = re.compile(r"\s*\d+\s*[.):]\s*(\S.*?)\s*")


class Reason(StrEnum):
    """Why a candidate is not taken."""

    WRITER_FAILED = "writer failed"
    NOTHING_WRITTEN = "nothing written"
    LEAKS = "leaks"
    UNANSWERABLE = "unanswerable"
    REVEALS = "reveals"
    UNJUDGED = "unjudged"
    JUDGE_FAILED = "judge failed"


VALID = "valid"
VERDICTS = (VALID, Reason.UNANSWERABLE.value, Reason.REVEALS.value)
FAILED = frozenset({Reason.WRITER_FAILED, Reason.JUDGE_FAILED})


@dataclass(frozen=True)
class Candidate:
    """Something that was looked at.

    Attributes:
        clip: what it is about.
        number: its place among what was written, from 1; 0 where nothing was.
        text: the question.
        reason: why it is not taken; None where it is.
        detail: what was said about that.
    """

    clip: Surrogate
    number: int
    text: str
    reason: Reason | None = None
    detail: str = ""

    @property
    def row(self) -> Asked:
        """As a row of questions."""
        own = as_kind(self.clip, Asked, question=self.text, clip=self.clip.id)
        return replace(own, id=f"{self.clip.id}-q{self.number}")


@dataclass
class _Clip:
    """A clip whose candidates are being looked at."""

    row: Surrogate
    waiting: list[tuple[int, str]]
    seen: list[Candidate] = field(default_factory=list[Candidate])

    @property
    def taken(self) -> int:
        return sum(each.reason is None for each in self.seen)


@dataclass(frozen=True)
class Writing:
    """How long writer and judge may take.

    Attributes:
        max_new_tokens: longest reply of either.
        thinking_tokens: that either may think before that, until it is made to write; 0 for no bound, which alone
            works with engines that do not go on with a reply: then a reply's thinking is part of it.
    """

    max_new_tokens: int = 2048
    thinking_tokens: int = THINKING_TOKENS

    @property
    def needs(self) -> tuple[str, ...]:
        """Capabilities that both must have."""
        return ("continues_assistant",) if self.thinking_tokens else ()


def candidates(
    writer: Generator, rows: Sequence[Surrogate], asking: Asking, *, count: int, how: Writing
) -> list[Completion]:
    """What the writer says about each clip that is no request."""
    words = Prompt.load("alignment", WRITER).texts
    asked = [filled(words["write"], surrogate=row.surrogate, count=str(count)) for row in rows if not row.instruction]
    return thought_out(
        asking,
        writer,
        [Conversation().user(each) for each in asked],
        how.max_new_tokens,
        thinking_tokens=how.thinking_tokens,
        closing=words["closing"],
        writes=lambda text: _NUMBERED.match(text) is not None,
    )


def write_questions(
    writer: Generator,
    judge: Generator,
    rows: Sequence[Surrogate],
    asking: Asking,
    *,
    count: int = CANDIDATES,
    per_clip: int = 1,
    seed: int = 0,
    how: Writing | None = None,
    slice_rows: int = SLICE_ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[list[Candidate]]:
    """Everything that was looked at, slice by slice.

    Args:
        writer: who writes.
        judge: who says what can be answered.
        rows: clips.
        asking: the run.
        count: candidates for each clip.
        per_clip: questions that are wanted of each; fewer where fewer are sound.
        seed: of the draws, together with the clip's id: other clips change nothing.
        how: how long writer and judge may take.
        slice_rows: clips of a slice.
        progress: called with (clips that are done, clips in all).
    """
    how = how or Writing()
    done = 0
    for part in slices(rows, slice_rows):
        written = iter(candidates(writer, part, asking, count=count, how=how))
        clips = [
            _instructed(row, per_clip, seed) if row.instruction else _opened(row, next(written), count, seed)
            for row in part
        ]
        while wanting := [clip for clip in clips if clip.waiting and clip.taken < per_clip]:
            _look(judge, wanting, asking, how)
        yield [each for clip in clips for each in clip.seen]
        done += len(part)
        if progress:
            progress(done, len(rows))


def save_questions(
    parts: Iterable[Sequence[Candidate]], out: Path, made_of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes `questions.jsonl`, `rejected.jsonl` and `card.json`.

    Args:
        parts: what `write_questions` gives.
        out: the folder.
        made_of: data, models and the like, for the card.

    Returns:
        The card.
    """
    folder = out.resolve()
    reasons: list[str] = []
    clips: list[str] = []
    asked: dict[str, bool] = {}
    tally = questions_tally()
    with growing_json_lines(out / QUESTIONS) as keep, growing_json_lines(out / REJECTED) as reject:
        for each in (each for part in parts for each in part):
            reasons.append(each.reason.value if each.reason else "")
            clips.append(each.clip.id)
            asked[each.clip.id] = asked.get(each.clip.id, False) or each.reason is None
            if each.reason is None:
                keep(as_json(each.row, folder))
                tally.add(each.row)
            else:
                row = {"clip": each.clip.id, "number": each.number, "question": each.text}
                reject({**row, "reason": each.reason.value, "detail": each.detail})
    card = {
        **(made_of or {}),
        "clips": len(asked),
        "clips_without": len(asked) - sum(asked.values()),
        **tally.counts(),
        **tally.mixes(),
        "candidates_seen": len(reasons),
        "rates": {
            "clips_asked": rate(list(asked.values()), list(asked)).to_json(),
            "candidates_taken": rate([not reason for reason in reasons], clips).to_json(),
        },
        "rejected_for": reason_rates(reasons, clips),
        "failed_requests": sum(reason in FAILED for reason in reasons),
    }
    write_json(out / CARD, card)
    return card


def prompt_ids() -> list[str]:
    """Ids of the words with which writer and judge are asked."""
    return [Prompt.load("alignment", name).id for name in (WRITER, JUDGE)]


@cache
def instructions() -> tuple[str, ...]:
    """Neutral instructions beside a spoken request."""
    return tuple(read_lines(Path(__file__).parent / "data" / "instructions.txt"))


def _instructed(row: Surrogate, per_clip: int, seed: int) -> _Clip:
    rng = _rng(row, seed)
    drawn = rng.sample(["", *instructions()], min(per_clip, len(instructions()) + 1))
    return _Clip(row, [], [Candidate(row, number, text) for number, text in enumerate(drawn, start=1)])


def _opened(row: Surrogate, said: Completion, count: int, seed: int) -> _Clip:
    """A clip with its candidates in the order in which they are looked at."""
    if said.stop is Stop.FAILED:
        return _Clip(row, [], [Candidate(row, 0, "", Reason.WRITER_FAILED, said.error)])
    written = _read(said)[:count]
    if not written:
        return _Clip(row, [], [Candidate(row, 0, "", Reason.NOTHING_WRITTEN, said.text)])
    waiting = list(enumerate(written, start=1))
    _rng(row, seed).shuffle(waiting)
    return _Clip(row, waiting)


def _read(said: Completion) -> list[str]:
    """The numbered lines of a reply, each question once; a line that was cut is none."""
    reply = parse_reply(said.text)
    if reply.thinking:
        return []
    lines = reply.answer.splitlines()
    lines = lines[:-1] if said.stop is Stop.LENGTH else lines
    found = [match[1] for line in lines if (match := _NUMBERED.fullmatch(line))]
    return list({plainly(text): text for text in reversed(found)}.values())[::-1]


def _look(judge: Generator, clips: Sequence[_Clip], asking: Asking, how: Writing) -> None:
    """Looks at the next candidate of each clip."""
    words = Prompt.load("alignment", JUDGE).texts
    asked: list[tuple[_Clip, Candidate]] = []
    for clip in clips:
        number, question = clip.waiting.pop(0)
        if found := leak(question):
            clip.seen.append(Candidate(clip.row, number, question, Reason.LEAKS, ", ".join(found)))
        else:
            asked.append((clip, Candidate(clip.row, number, question)))
    given = [
        Conversation().user(filled(words["judge"], surrogate=clip.row.surrogate, question=each.text))
        for clip, each in asked
    ]
    judged = thought_out(
        asking,
        judge,
        given,
        how.max_new_tokens,
        thinking_tokens=how.thinking_tokens,
        closing=words["closing"],
        writes=lambda _: False,
    )
    for (clip, each), said in zip(asked, judged, strict=True):
        clip.seen.append(Candidate(each.clip, each.number, each.text, *_verdict(said)))


def _verdict(said: Completion) -> tuple[Reason | None, str]:
    """None if it is valid."""
    if said.stop is Stop.FAILED:
        return Reason.JUDGE_FAILED, said.error
    verdict, lines = read_verdict(said.text, VERDICTS)
    if said.stop is Stop.LENGTH or verdict is None:
        return Reason.UNJUDGED, " ".join(lines)[-200:]
    return (None if verdict == VALID else Reason(verdict)), " ".join(lines[:-1])


def _rng(row: Surrogate, seed: int) -> random.Random:
    return random.Random(f"questions/{seed}/{row.id}")
