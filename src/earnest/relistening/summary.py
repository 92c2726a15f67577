"""What the re-listening audit found: accuracies, paired gains, segments against evidence, costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from earnest.accuracy import hearing_account
from earnest.conversation import Audio
from earnest.example import Example
from earnest.finding import Curve, Finding, Metric, Table
from earnest.grading import Outcome, Record, make_record
from earnest.relistening.loop import Relistened
from earnest.relistening.reward import well_formed
from earnest.relistening.segments import Fault, Segment, overlap
from earnest.statistics import bootstrap, clusters_of, paired_bootstrap, rate

SINGLE, OURS, RANDOM, SILENCE, FILLER = "single", "ours", "random_segment", "silence", "filler"
WHOLE, WHOLE_FINE, ORACLE = "whole_again", "whole_fine", "oracle_segment"
CONTROLS = (RANDOM, SILENCE, FILLER, WHOLE, WHOLE_FINE, ORACLE)
HIT_OVERLAP = 0.5
"""Intersection over union from which a segment has found the evidence."""
TOLERANCE_S = 0.15
"""By which a segment that contains the evidence may miss its ends: a fade, half a frame."""
NEAR_S = 6.0
"""Pieces of evidence that lie within so many seconds are one stretch."""


@dataclass(frozen=True)
class Listened:
    """One reply, graded.

    Attributes:
        record: of the whole reply.
        segments: its citations.
        hit: whether what was heard again holds the evidence; None where there is no evidence.
        best_overlap: with the evidence, of the best segment; None where there is no evidence.
        formed: whether it has exactly one think and one answer block and was ended.
        turns: its generations.
        heard_again_s: seconds that were put behind its citations, whatever they were: all of the clip, silence.
        seconds: wall-clock, of all its generations.
        clip: key of the clip.
    """

    record: Record
    segments: tuple[Segment, ...]
    hit: bool | None
    best_overlap: float | None
    formed: bool
    turns: int
    heard_again_s: float
    seconds: float
    clip: str

    @staticmethod
    def of(example: Example, reply: Relistened) -> Listened:
        """Grades a reply; its clips are not kept."""
        spans = reply.heard_spans
        evidence = spans_of(example)
        record = make_record(example, replace(reply.completion, heard=reply.heard))
        return Listened(
            record,
            reply.segments,
            found_evidence(spans, example) if evidence else None,
            max((overlap(a, b) for a in spans for b in evidence), default=0.0) if evidence else None,
            well_formed(reply.text, reply.stop),
            len(reply.turns),
            sum(part.clip.duration_s for part in reply.parts if isinstance(part, Audio)),
            reply.seconds,
            reply.turns[0].conversation.clips[0].key,
        )

    @property
    def right(self) -> bool:
        """Whether the answer is."""
        return self.record.outcome is Outcome.CORRECT


def spans_of(example: Example) -> list[tuple[float, float]]:
    """The stretches that hold the evidence, in order; pieces near each other are one."""
    spans: list[tuple[float, float]] = []
    for start_s, end_s in sorted(example.evidence or ()):
        if spans and max(end_s, spans[-1][1]) - spans[-1][0] <= NEAR_S:
            spans[-1] = (spans[-1][0], max(end_s, spans[-1][1]))
        else:
            spans.append((start_s, end_s))
    return spans


def found_evidence(heard: Sequence[tuple[float, float]], example: Example) -> bool:
    """Whether each piece of evidence lies in something that was heard again, or its stretch half overlaps with it."""

    def held(a: float, b: float) -> bool:
        return any(start <= a + TOLERANCE_S and end >= b - TOLERANCE_S for start, end in heard)

    return all(
        all(held(*piece) for piece in example.evidence or () if piece[0] >= a and piece[1] <= b)
        or any(overlap(one, (a, b)) >= HIT_OVERLAP for one in heard)
        for a, b in spans_of(example)
    )


Found = Mapping[str, Mapping[str, Sequence[Listened]]]
"""Stage of training, to condition, to one reply for each item."""


def summarise(found: Found, budgets: Mapping[float, Sequence[Listened]], *, words: str, seed: int = 0) -> Finding:
    """The finding "relistening".

    Args:
        found: stages in order; the last one has the controls.
        budgets: seconds that a reply may hear again, to the replies of the items that were asked so.
        words: id of the words that ask for segments.
        seed: of the bootstrap.
    """
    stage = list(found)[-1]
    own = found[stage]
    ours = own[OURS]
    clips = [one.clip for one in ours]
    metrics = {"accuracy": _accuracy(ours, seed)}
    for name, by_condition in found.items():
        for condition, every in by_condition.items():
            key = f"{condition}_{name}" if condition == OURS or name != stage else condition
            if not (replies := [every[k] for k in _asked(condition, every)]):
                continue
            metrics[f"accuracy.{key}"] = _accuracy(replies, seed)
            for modality, places in _modalities(replies).items():
                metrics[f"accuracy.{key}.{modality}"] = _accuracy([replies[k] for k in places], seed)
    metrics |= _gains(own, seed)
    if len(found) > 1:
        before = found[list(found)[-2]][OURS]
        metrics["gain_over_last_stage"] = _gain(before, ours, clips, seed)
    metrics |= _quality(ours, seed)
    notes = [
        hearing_account([one.record for one in ours]),
        f"The headline is the accuracy of {stage} with re-listening ({words}).",
        _faults(ours),
    ]
    tables = [_conditions_table(found, seed), _modality_table(own, seed), _segments_table(found, seed)]
    curves = _budget_curves(budgets, seed)
    return Finding("relistening", metrics, tuple(tables), tuple(curves), tuple(_row(one) for one in ours), tuple(notes))


def _row(one: Listened) -> dict[str, Any]:
    segments = [
        {
            "text": s.text,
            "start_s": s.start_s,
            "end_s": s.end_s,
            "fault": s.fault.value if s.fault else "",
            "cut": s.cut,
        }
        for s in one.segments
    ]
    return {
        **one.record.to_json(),
        "segments": segments,
        "hit": one.hit,
        "well_formed": one.formed,
        "turns": one.turns,
        "heard_again_s": round(one.heard_again_s, 3),
    }


def _modalities(replies: Sequence[Listened]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, one in enumerate(replies):
        if name := one.record.groups.get("modality"):
            found.setdefault(name, []).append(place)
    return dict(sorted(found.items())) if len(found) > 1 else {}


def _asked(condition: str, replies: Sequence[Listened]) -> list[int]:
    """Places of those that the condition can be asked about: without evidence there is no oracle."""
    return [place for place, one in enumerate(replies) if condition != ORACLE or one.hit is not None]


def _accuracy(replies: Sequence[Listened], seed: int) -> Metric:
    return rate([one.right for one in replies], [one.clip for one in replies], seed=seed)


def _gain(before: Sequence[Listened], after: Sequence[Listened], clips: Sequence[str], seed: int) -> Metric:
    return paired_bootstrap(
        [float(one.right) for one in before],
        [float(one.right) for one in after],
        seed=seed,
        clusters=clusters_of(clips),
    )


def _gains(own: Mapping[str, Sequence[Listened]], seed: int) -> dict[str, Metric]:
    """What hearing the cited stretch adds over each other condition; the oracle's lead over it."""
    ours = own[OURS]
    metrics: dict[str, Metric] = {}
    for name, replies in own.items():
        if name == OURS:
            continue
        if name == ORACLE:
            if held := _asked(name, replies):
                clips = [ours[k].clip for k in held]
                metrics["gap_to_oracle_segment"] = _gain(
                    [ours[k] for k in held], [replies[k] for k in held], clips, seed
                )
            continue
        clips = [one.clip for one in ours]
        metrics[f"gain_over_{name}"] = _gain(replies, ours, clips, seed)
        for modality, places in _modalities(ours).items():
            metrics[f"gain_over_{name}.{modality}"] = _gain(
                [replies[k] for k in places], [ours[k] for k in places], [clips[k] for k in places], seed
            )
    return metrics


def _quality(replies: Sequence[Listened], seed: int) -> dict[str, Metric]:
    clips = [one.clip for one in replies]
    metrics = {"well_formed": rate([one.formed for one in replies], clips, seed=seed)}
    held = [one for one in replies if one.hit is not None]
    if held:
        own = [one.clip for one in held]
        metrics["hit_rate"] = rate([bool(one.hit) for one in held], own, seed=seed)
        metrics["overlap"] = bootstrap(
            [one.best_overlap or 0.0 for one in held], seed=seed, clusters=clusters_of(own), unit=""
        )
    for name, values in (
        ("segments", [float(len(one.segments)) for one in replies]),
        ("turns", [float(one.turns) for one in replies]),
        ("heard_again_s", [one.heard_again_s for one in replies]),
        ("seconds_per_answer", [one.seconds for one in replies]),
    ):
        unit = "" if name in ("segments", "turns") else "s"
        metrics[name] = bootstrap(values, seed=seed, clusters=clusters_of(clips), unit=unit)
    return metrics


def _conditions_table(found: Found, seed: int) -> Table:
    stage = list(found)[-1]
    ours = found[stage][OURS]
    rows: list[tuple[Any, ...]] = []
    for name, by_condition in found.items():
        for condition, every in by_condition.items():
            label = condition.replace("_", " ")
            shown = f"{label}, {name}" if len(found) > 1 else label
            if not (places := _asked(condition, every)):
                continue
            replies, own = [every[k] for k in places], [ours[k] for k in places]
            lead = None if every is ours else _gain(replies, own, [one.clip for one in own], seed)
            seconds = bootstrap([one.heard_again_s for one in replies], seed=seed, unit="s")
            cost = bootstrap([one.seconds for one in replies], seed=seed, unit="s")
            rows.append((shown, _accuracy(replies, seed), lead, seconds, cost))
    return Table(
        "Going back to the audio",
        ("condition", "accuracy", f"{stage}, ours, ahead by", "heard again", "seconds per answer"),
        tuple(rows),
        "The same questions under every condition, but for the oracle's: those with evidence. Gains are paired. Only "
        "the controls tell whether what is heard again matters. Seconds per answer are a batch's, shared among its "
        "replies; where a batch was begun before, prefixes are reused.",
    )


def _modality_table(own: Mapping[str, Sequence[Listened]], seed: int) -> Table:
    names = list(_modalities(own[OURS]))
    rows = [
        (
            condition.replace("_", " "),
            *(
                _accuracy(kept, seed) if (kept := [replies[k] for k in places if k in asked]) else None
                for places in _modalities(replies).values()
            ),
        )
        for condition, replies in own.items()
        if (asked := set(_asked(condition, replies)))
    ]
    return Table("By modality", ("condition", *names), tuple(rows) if names else ())


def _segments_table(found: Found, seed: int) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, by_condition in found.items():
        quality = _quality(by_condition[OURS], seed)
        faults = Counter(s.fault for one in by_condition[OURS] for s in one.segments if s.fault)
        rows.append(
            (
                name,
                quality["well_formed"],
                quality.get("hit_rate"),
                quality.get("overlap"),
                quality["segments"],
                quality["turns"],
                quality["heard_again_s"],
                sum(faults.values()),
                sum(s.cut for one in by_condition[OURS] for s in one.segments),
            )
        )
    return Table(
        "Segments",
        ("stage", "well-formed", "hit rate", "overlap", "segments a reply", "turns", "heard again", "invalid", "cut"),
        tuple(rows),
        f"A reply hits where each stretch of evidence lies in something that it heard again, or overlaps with it by "
        f"{HIT_OVERLAP} (intersection over union); {TOLERANCE_S:g} s at its ends may be missing. Invalid segments are "
        "not heard, cut ones not to their end.",
    )


def _faults(replies: Sequence[Listened]) -> str:
    every = [segment for one in replies for segment in one.segments]
    counted = Counter(segment.fault for segment in every if segment.fault)
    kinds = ", ".join(f"{fault.value} {counted[fault]}" for fault in Fault if counted[fault])
    without = sum(not one.segments for one in replies)
    return (
        f"{len(every)} segments were cited, {sum(counted.values())} of them invalid{f' ({kinds})' if kinds else ''}; "
        f"{without} of {len(replies)} replies cite none."
    )


def _budget_curves(budgets: Mapping[float, Sequence[Listened]], seed: int) -> list[Curve]:
    if not budgets:
        return []
    accuracies = [_accuracy(replies, seed) for replies in budgets.values()]
    heard = [float(np.mean([one.heard_again_s for one in replies])) for replies in budgets.values()]
    seconds = [float(np.mean([one.seconds for one in replies])) for replies in budgets.values()]
    title = "What a reply may hear again"
    return [
        Curve.of(title, "at most", "seconds allowed", "accuracy", tuple(budgets), accuracies),
        Curve.of("What was heard again", "on average", "seconds heard again", "accuracy", heard, accuracies),
        Curve.of("What it costs", "on average", "wall-clock seconds per answer", "accuracy", seconds, accuracies),
    ]
