"""Questions with reasoning that is grounded in segments, for SFT and RL (data pipeline of Echo, arXiv 2602.11909).

From metadata: a model that listens may put in words what is not described there. A writer who hears nothing is given a
clip in words and times, and writes question, options, answer and reasoning. What can be checked exactly is checked; a
judge says whether the question is valid, and whether the reasoning is. Both: SFT. The question alone: RL, without the
reasoning. Else it is rejected, with the reason; a judgement that is missing is no verdict, and rejects too.

From the world: all is exact and nobody is asked.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Any

from earnest.audio import Clip
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.errors import EarnestError
from earnest.example import Example, save_manifest
from earnest.files import read_json_lines, write_json, write_json_lines
from earnest.grading import parse_reply, read_verdict
from earnest.prompts import Prompt, filled
from earnest.relistening import long_scenes
from earnest.relistening.drafts import Draft, Reason, Rejection, example_of, read_draft, trace_of, with_sound_options
from earnest.relistening.metadata import Described
from earnest.relistening.reward import broken_sentences
from earnest.relistening.traces import Trace
from earnest.run import Generator, RunDirectory
from earnest.statistics import wilson
from earnest.world.synthesis import SPLITS

DESCRIBER, WRITER, JUDGE = "describer-1", "writer-1", "judge-1"
"""Names of the words."""
Progress = Callable[[int, int], None]
_DRAWN_AT_ONCE = 4
_CITATION = re.compile(r"<seg>.*?</seg>", re.DOTALL)

JUDGED: dict[str, tuple[Reason, Reason]] = {
    "question": (Reason.QUESTION_INVALID, Reason.QUESTION_UNJUDGED),
    "cot": (Reason.COT_INVALID, Reason.COT_UNJUDGED),
}
"""What a judge is asked about, and the reasons that come of it: found invalid, and no verdict."""
_UNKNOWN = frozenset({Reason.COT_UNJUDGED, Reason.JUDGE_FAILED})
_FAILED = frozenset({Reason.WRITER_FAILED, Reason.JUDGE_FAILED})


class Place(StrEnum):
    """Where an item goes."""

    SFT = "sft"
    RL = "rl"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Grounded:
    """A clip, what was written about it, and what is wrong with that as far as it was looked at.

    Attributes:
        clip: in words and times.
        said: the writer's reply.
        draft: None where it cannot be read.
        trace: None where the reasoning is none that can be heard again.
        question: why the question is not taken; then nothing is.
        cot: why the reasoning is not taken.
    """

    clip: Described
    said: str
    draft: Draft | None = None
    trace: Trace | None = None
    question: Rejection | None = None
    cot: Rejection | None = None

    @property
    def place(self) -> Place:
        """The question alone is for RL where the reasoning is known to be no good, not where nobody knows."""
        if self.rejection:
            return Place.REJECTED
        return Place.RL if self.cot else Place.SFT

    @property
    def rejection(self) -> Rejection | None:
        """Why the whole item is not taken."""
        return self.question or (self.cot if self.cot and self.cot.reason in _UNKNOWN else None)

    @property
    def example(self) -> Example:
        """For SFT with the trace and what it cites; for RL with nothing of the reasoning but why it was not taken."""
        assert self.draft, "what cannot be read is no example"
        example = example_of(self.clip, self.draft)
        if self.cot:
            return replace(example, meta={**example.meta, "cot_rejected": self.cot.reason.value})
        assert self.trace, "reasoning without a trace is rejected"
        evidence = tuple(sorted(dict.fromkeys(self.trace.segments)))
        return replace(example, evidence=evidence, meta={**example.meta, "trace": self.trace.to_json()})


# ---- from metadata


def describe(
    engine: Generator,
    clips: Sequence[Described],
    run: RunDirectory,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 512,
    progress: Progress | None = None,
) -> list[Described]:
    """Has a model that listens put each clip in words: description, speech and music, those that the clip has not.

    Args:
        engine: who listens.
        clips: with their events.
        run: as in `write`.
        batch_size: as in `write`.
        max_new_tokens: longest answer.
        progress: as in `write`.

    Returns:
        The clips in order; what was not answered to its end stays undescribed.
    """
    texts = Prompt.load("relistening", DESCRIBER).texts
    missing = [(place, name) for place, clip in enumerate(clips) for name in texts if not getattr(clip, name)]
    found = list(clips)
    sampling = Sampling(max_new_tokens=max_new_tokens)
    for start in range(0, len(missing), batch_size):
        part = missing[start : start + batch_size]
        # Clips are in memory batch by batch.
        loaded = {place: Clip.load(clips[place].audio) for place, _ in part}
        asked = [Conversation().user(Audio(loaded[place]), f"\n\n{texts[name]}") for place, name in part]
        said = run.run_batched(engine, asked, sampling, batch_size, retry_failed=True)
        for (place, name), done in zip(part, said, strict=True):
            if done.stop is Stop.END:
                found[place] = replace(found[place], **{name: " ".join(done.text.split())})
        if progress:
            progress(start + len(part), len(missing))
    return found


def write(
    engine: Generator,
    clips: Sequence[Described],
    run: RunDirectory,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 2048,
    progress: Progress | None = None,
) -> list[Grounded]:
    """Asks a writer once about each clip and checks what can be checked exactly; what the run holds is not asked again.

    Args:
        engine: the writer.
        clips: in words and times.
        run: where completions go; those that failed earlier are asked again.
        batch_size: clips at once.
        max_new_tokens: longest reply, its own reasoning included.
        progress: called with (replies that are there, replies in all).
    """
    text = Prompt.load("relistening", WRITER).texts["write"]
    asked = [_filled(text, clip=clip.simulation) for clip in clips]
    sampling = Sampling(max_new_tokens=max_new_tokens)
    said = run.run_batched(engine, asked, sampling, batch_size, progress, retry_failed=True)
    return [_checked(clip, done) for clip, done in zip(clips, said, strict=True)]


def judge(
    engine: Generator,
    items: Sequence[Grounded],
    run: RunDirectory,
    what: str,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 2048,
    progress: Progress | None = None,
) -> list[Grounded]:
    """Asks a judge about each question, or about each reasoning; what is rejected already is not asked about.

    Args:
        engine: the judge.
        items: what `write` gave, or the judgement of the questions.
        run: as in `write`.
        what: one of `JUDGED`, which are asked about in this order.
        batch_size: as in `write`.
        max_new_tokens: as in `write`.
        progress: as in `write`.
    """

    def wanting(item: Grounded) -> bool:
        return not item.question and not (what == "cot" and item.cot)

    invalid, unjudged = JUDGED[what]
    text = Prompt.load("relistening", JUDGE).texts[what]
    asked = [_shown(text, item) for item in filter(wanting, items)]
    sampling = Sampling(max_new_tokens=max_new_tokens)
    said = iter(run.run_batched(engine, asked, sampling, batch_size, progress, retry_failed=True))
    return [
        replace(item, **{what: _verdict(next(said), invalid, unjudged)}) if wanting(item) else item for item in items
    ]


def save(items: Sequence[Grounded], out: Path, made_of: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes `sft.jsonl` and `rl.jsonl` (manifests), `rejected.jsonl` and `card.json`.

    Args:
        items: judged.
        out: the folder.
        made_of: data, writer, judge and the like, for the card.

    Returns:
        The card.
    """
    of = {place: [item for item in items if item.place is place] for place in Place}
    for place in (Place.SFT, Place.RL):
        save_manifest((item.example for item in of[place]), out / f"{place}.jsonl")
    write_json_lines(out / "rejected.jsonl", map(_rejected_row, of[Place.REJECTED]))
    valid = [item for item in items if not item.question]
    card = {
        **(made_of or {}),
        "clips": len(items),
        **{place.value: len(held) for place, held in of.items()},
        "rates": {place.value: wilson(len(held), len(items)).to_json() for place, held in of.items()},
        "rejected_for": _rates((item.rejection for item in items), len(items)),
        "cot_rejected_for": _rates((item.cot for item in valid), len(valid)),
        "failed_requests": sum(item.rejection is not None and item.rejection.reason in _FAILED for item in items),
        "answer_places": _answer_places(item.draft for item in of[Place.SFT] + of[Place.RL]),
        "cot": cot_numbers([item.trace for item in of[Place.SFT] if item.trace]),
    }
    write_json(out / "card.json", card)
    return card


def prompt_ids(*, described: bool = False) -> list[str]:
    """Ids of the words with which writer and judge are asked, and a describer before them."""
    names = (*([DESCRIBER] if described else []), WRITER, JUDGE)
    return [Prompt.load("relistening", name).id for name in names]


def cot_numbers(traces: Sequence[Trace]) -> dict[str, Any]:
    """Means over reasonings: words without the citations, citations, seconds of each; and broken sentences.

    Held against the paper's 87.5 words; what breaks off behind a segment costs reward in RL (see `reward`).
    """
    if not traces:
        return {"n": 0}
    lengths_s = [end_s - start_s for trace in traces for start_s, end_s in trace.segments]
    texts = [_CITATION.sub(" ", parse_reply(trace.text).reasoning or "") for trace in traces]
    return {
        "n": len(traces),
        "mean_words": fmean(len(text.split()) for text in texts),
        "mean_citations": fmean(len(trace.segments) for trace in traces),
        "mean_cited_s": fmean(lengths_s) if lengths_s else 0.0,
        "with_broken_sentences": sum(broken_sentences(trace.text) > 0 for trace in traces),
    }


def _filled(text: str, **values: str) -> Conversation:
    return Conversation().user(filled(text, **values))


def _shown(text: str, item: Grounded) -> Conversation:
    draft = item.draft
    assert draft, "what cannot be read is not judged"
    return _filled(
        text,
        clip=item.clip.simulation,
        question=draft.question,
        options="\n".join(f"- {option}" for option in draft.options),
        answer=draft.answer,
        cot=draft.cot,
    )


def _checked(clip: Described, done: Completion) -> Grounded:
    said = done.text
    if done.stop is Stop.FAILED:
        return Grounded(clip, said, question=Rejection(Reason.WRITER_FAILED, done.error))
    if done.stop is Stop.LENGTH:
        return Grounded(clip, said, question=Rejection(Reason.CUT, "the reply does not end"))
    draft = read_draft(said)
    if isinstance(draft, Rejection):
        return Grounded(clip, said, question=draft)
    sound = with_sound_options(draft)
    if isinstance(sound, Rejection):
        return Grounded(clip, said, draft, question=sound)
    draft = sound
    trace = trace_of(clip, draft)
    if isinstance(trace, Rejection):
        return Grounded(clip, said, draft, cot=trace)
    return Grounded(clip, said, draft, trace)


def _verdict(done: Completion, invalid: Reason, unjudged: Reason) -> Rejection | None:
    """None if it is valid."""
    if done.stop is Stop.FAILED:
        return Rejection(Reason.JUDGE_FAILED, done.error)
    if done.stop is Stop.LENGTH:
        return Rejection(unjudged, "the reply does not end")
    verdict, lines = read_verdict(done.text, ("valid", "invalid"))
    if verdict is None:
        return Rejection(unjudged, f"no verdict in the last line: {' '.join(lines)[-200:]!r}")
    return None if verdict == "valid" else Rejection(invalid, " ".join(lines[:-1]))


def _rejected_row(item: Grounded) -> dict[str, Any]:
    assert item.rejection, "only what is rejected"
    row: dict[str, Any] = {
        "id": item.clip.id,
        "audio": str(item.clip.audio.resolve()),
        "reason": item.rejection.reason.value,
        "detail": item.rejection.detail,
    }
    if item.draft is None:
        return {**row, "said": item.said}
    draft = item.draft
    return {**row, "question": draft.question, "options": draft.options, "answer": draft.answer, "cot": draft.cot}


def _rates(rejections: Iterable[Rejection | None], n: int) -> dict[str, Any]:
    counts = Counter(found.reason.value for found in rejections if found)
    return {reason: {"count": count, "rate": wilson(count, n).to_json()} for reason, count in counts.most_common()}


def _answer_places(drafts: Iterable[Draft | None]) -> dict[str, int]:
    """How often the right option is the first, the second, ...: writers have a favourite."""
    counts = Counter(draft.options.index(draft.answer) + 1 for draft in drafts if draft)
    return {str(place): counts[place] for place in sorted(counts)}


# ---- from the world


def make_grounded_world(
    out: Path,
    scenes: int,
    *,
    split: str = "train",
    seed: int = 0,
    rl_share: float = 0.25,
    per_scene: int = 1,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes long scenes, `sft.jsonl` with the exact trace of each question, `rl.jsonl` without, and `card.json`.

    Which scenes go to RL is drawn by split and seed: more scenes later move none.

    Args:
        out: the folder; what is there is not rendered again.
        scenes: number of scenes.
        split: train, validation or test.
        seed: another seed gives other scenes and another draw.
        rl_share: of the scenes, 0 to 1, that go to RL.
        per_scene: questions about each.
        workers: processes that render.
        progress: called with (clips that are there, clips in all).

    Returns:
        The card.

    Raises:
        EarnestError: an unknown split, a number out of its range, or a folder that holds something else.
    """
    if split not in SPLITS:
        raise EarnestError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    if min(scenes, per_scene, workers) < 1 or seed < 0:
        raise EarnestError(
            f"scenes is {scenes}, per_scene {per_scene}, workers {workers}, seed {seed}: give 1 or more, for the seed 0"
        )
    if not 0 <= rl_share <= 1:
        raise EarnestError(f"the share of scenes for RL is {rl_share}: give 0 to 1")
    made_of = {
        "makes": "grounded questions of the world", "split": split, "seed": seed, "rl_share": rl_share,
        "per_scene": per_scene, "version": long_scenes.long_version(),
    }  # fmt: skip
    RunDirectory(out).settle(made_of)
    manifest = long_scenes.make_long(
        out, scenes, split=split, seed=seed, per_scene=per_scene, workers=workers, progress=progress
    )
    # Row by row: as examples all clips would be decoded again.
    rows = read_json_lines(manifest)
    chosen = _scenes_for_rl(scenes, rl_share, f"{split}/{seed}")
    for_rl = {row["id"] for row in rows if int(Path(row["audio"]).stem.rpartition("-")[2]) in chosen}
    taught = [row for row in rows if row["id"] not in for_rl]
    write_json_lines(out / "sft.jsonl", taught)
    write_json_lines(
        out / "rl.jsonl",
        ({name: cell for name, cell in row.items() if name != "meta"} for row in rows if row["id"] in for_rl),
    )
    card = {
        **made_of,
        "scenes": scenes,
        "questions": len(rows),
        "sft": len(taught),
        "rl": len(for_rl),
        "cot": cot_numbers([Trace.from_json(row["meta"]["trace"]) for row in taught]),
    }
    write_json(out / "card.json", card)
    return card


def _scenes_for_rl(scenes: int, share: float, seed: str) -> set[int]:
    """Numbers of the scenes: drawn a few at a time, so that the share holds for any number and more move none."""
    found: set[int] = set()
    for start in range(0, scenes, _DRAWN_AT_ONCE):
        end = start + _DRAWN_AT_ONCE
        wanted = round(end * share) - round(start * share)
        found.update(random.Random(f"for RL/{seed}/{start}").sample(range(start, end), wanted))
    return found
