"""What the re-listening audit makes of graded replies: by hand, on a few made-up ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.tiny import tone

from earnest.completion import Completion, Heard, Stop
from earnest.conversation import Audio, Conversation, Text
from earnest.example import Example
from earnest.finding import Finding, Metric
from earnest.grading import Outcome, make_record
from earnest.relistening.loop import Relistened, Turn
from earnest.relistening.segments import Fault, Segment
from earnest.relistening.summary import (
    ORACLE,
    OURS,
    RANDOM,
    SILENCE,
    SINGLE,
    WHOLE,
    Listened,
    found_evidence,
    spans_of,
    summarise,
)

CLIP = tone(440, 12.0)
ASKED = Example("q", (CLIP,), "what?", ("dog", "cat"), "dog")


def example(*evidence: tuple[float, float]) -> Example:
    return replace(ASKED, evidence=evidence or None)


# ---- evidence


@pytest.mark.parametrize(
    ("evidence", "spans"),
    [
        ((), []),
        (((2.0, 4.0),), [(2.0, 4.0)]),
        (((4.0, 5.0), (1.0, 2.0)), [(1.0, 5.0)]),
        (((1.0, 2.0), (6.0, 7.0)), [(1.0, 7.0)]),
        (((1.0, 2.0), (6.0, 7.1)), [(1.0, 2.0), (6.0, 7.1)]),
        (((0.0, 5.0), (1.0, 2.0)), [(0.0, 5.0)]),
        (((0.0, 1.0), (5.0, 6.0), (6.5, 7.0)), [(0.0, 6.0), (6.5, 7.0)]),
        (((0.0, 9.0), (1.0, 2.0)), [(0.0, 9.0), (1.0, 2.0)]),
    ],
)
def test_pieces_of_evidence_near_each_other_are_one_stretch(
    evidence: Sequence[tuple[float, float]], spans: list[tuple[float, float]]
) -> None:
    assert spans_of(example(*evidence)) == spans


@pytest.mark.parametrize(
    ("heard", "found"),
    [
        ([(2.0, 4.0)], True),
        ([(0.0, 12.0)], True),
        ([(2.15, 3.85)], True),
        ([(2.0, 3.0)], True),
        ([(2.0, 2.9)], False),
        ([(3.0, 5.0)], False),
        ([(2.7, 4.0)], True),
        ([(4.0, 9.0)], False),
        ([(5.0, 6.0), (1.0, 5.0)], True),
        # Two halves of it are no whole.
        ([(1.0, 2.9), (2.9, 4.9)], False),
        ([], False),
    ],
)
def test_evidence_is_found_by_what_holds_it_or_overlaps_by_half(heard: list[tuple[float, float]], found: bool) -> None:
    assert found_evidence(heard, example((2.0, 4.0))) is found


def test_every_stretch_of_evidence_must_be_found() -> None:
    apart = example((1.0, 2.0), (9.0, 11.0))
    assert not found_evidence([(1.0, 2.0)], apart)
    assert not found_evidence([(9.0, 11.0)], apart)
    assert found_evidence([(9.0, 11.0), (0.5, 2.5)], apart)


# ---- a reply


def reply(text: str, *segments: Segment, stop: Stop = Stop.END) -> Relistened:
    asked = Conversation().user(Audio(CLIP), "what?")
    turns = tuple(
        Turn(asked, Completion(part, stop, seconds=0.5, heard=Heard(12.0 + k, 12.0 + k, k)))
        for k, part in enumerate(text.split("|"))
    )
    heard = [segment for segment in segments if segment.fault is None]
    crops = [Audio(CLIP.crop(segment.start_s or 0.0, segment.end_s or 0.0)) for segment in heard]
    return Relistened(text.replace("|", ""), stop, segments, turns, (Text("a"), *crops))


GOOD = Segment("2, 5", 2.0, 5.0)
BAD = Segment("9, 1", 9.0, 1.0, Fault.INVERTED)
RIGHT = "<think> a <seg>2, 5</seg>| so.</think><answer>dog</answer>"


def test_a_reply_is_graded_with_what_it_heard() -> None:
    one = Listened.of(example((2.0, 4.0)), reply(RIGHT, BAD, GOOD))
    assert (one.record.outcome, one.right, one.formed) == (Outcome.CORRECT, True, True)
    assert (one.hit, one.best_overlap) == (True, pytest.approx(2 / 3))
    assert (one.turns, one.seconds, one.heard_again_s) == (2, 1.0, 3.0)
    assert one.segments == (BAD, GOOD)
    assert one.record.heard == Heard(13.0, 13.0, 1), "the account of the last generation"
    assert one.record.reply == RIGHT.replace("|", "")
    assert one.clip == CLIP.key


def test_what_is_not_heard_is_no_hit_and_without_evidence_there_is_none() -> None:
    wrong = Listened.of(example((2.0, 4.0)), reply("<think> b <answer>cat</answer>", BAD))
    assert (wrong.right, wrong.formed, wrong.hit, wrong.best_overlap) == (False, False, False, 0.0)
    assert (wrong.turns, wrong.heard_again_s) == (1, 0.0)
    free = Listened.of(ASKED, reply(RIGHT, GOOD))
    assert (free.hit, free.best_overlap) == (None, None)
    cut = Listened.of(ASKED, reply("<think> b", stop=Stop.LENGTH))
    assert (cut.record.outcome, cut.formed) == (Outcome.UNFINISHED, False)


def test_the_whole_clip_again_is_all_of_it() -> None:
    again = replace(reply(RIGHT, GOOD), parts=(Text("a"), Audio(CLIP), Text("b")))
    assert Listened.of(ASKED, again).heard_again_s == 12.0
    filled = replace(reply(RIGHT, GOOD), parts=(Text("a"), Text(" . . ."), Text("b")))
    assert Listened.of(ASKED, filled).heard_again_s == 0.0


# ---- the finding


def listened(
    number: int, right: bool, modality: str = "", *, hit: bool | None = None, clip: str = "", seconds: float = 1.0,
    heard_s: float = 2.0, segments: Sequence[Segment] = (GOOD,),
) -> Listened:  # fmt: skip
    asked = replace(ASKED, id=f"q{number}", groups={"modality": modality} if modality else {})
    text = f"<think>.</think><answer>{'dog' if right else 'cat'}</answer>"
    record = make_record(asked, Completion(text, Stop.END, heard=Heard(10.0, 10.0, 4)))
    overlap = None if hit is None else 0.75 if hit else 0.0
    return Listened(record, tuple(segments), hit, overlap, True, 2, heard_s, seconds, clip or f"clip {number}")


def made(right: str, **more: object) -> list[Listened]:
    """One reply for each of "+" (right) and "-"."""
    return [listened(number, one == "+", **more) for number, one in enumerate(right)]  # type: ignore[arg-type]


def value(finding: Finding, name: str) -> float:
    return finding.metrics[name].value


def test_gains_are_paired() -> None:
    own = {
        SINGLE: made("+---++--"), OURS: made("+++-++--", hit=True), RANDOM: made("+---++--"), SILENCE: made("-++++++-"),
        WHOLE: made("+++-++--"),
    }  # fmt: skip
    finding = summarise({"model": own}, {}, words="w")
    assert value(finding, "accuracy") == value(finding, "accuracy.ours_model") == 5 / 8
    assert value(finding, "accuracy.single") == 3 / 8
    assert value(finding, "gain_over_single") == value(finding, "gain_over_random_segment") == 2 / 8
    found: Metric = finding.metrics["gain_over_silence"]
    assert found.value == -1 / 8
    # One item gets better and two get worse: unpaired, the interval would be that of 8 against 8.
    assert found.method.startswith("paired bootstrap over items")
    assert (found.low, found.high) == (-0.5, 0.25)
    same = finding.metrics["gain_over_whole_again"]
    # Eight items without a change do not show that there is none.
    assert same.value == 0 and same.low == -same.high and same.high == pytest.approx(0.324, abs=1e-3)
    assert "gain_over_ours" not in finding.metrics
    assert "gap_to_oracle_segment" not in finding.metrics
    assert "gain_over_last_stage" not in finding.metrics


def test_the_gap_to_the_oracle_is_its_lead_where_there_is_evidence() -> None:
    ours = [*made("+---", hit=True), listened(4, True), listened(5, True)]
    oracle = [*made("+++-", hit=True), listened(4, False), listened(5, False)]
    finding = summarise({"model": {SINGLE: ours, OURS: ours, ORACLE: oracle}}, {}, words="w")
    gap = finding.metrics["gap_to_oracle_segment"]
    assert (gap.value, gap.n) == (0.5, 4)
    assert "gain_over_oracle_segment" not in finding.metrics
    # Questions without evidence have no oracle, right or wrong.
    accuracy = finding.metrics["accuracy.oracle_segment"]
    assert (accuracy.value, accuracy.n) == (0.75, 4)
    assert any(row[0] == "oracle segment" for row in finding.tables[0].rows)
    without = [listened(number, True) for number in range(3)]
    finding = summarise({"model": {SINGLE: without, OURS: without, ORACLE: without}}, {}, words="w")
    assert not {"gap_to_oracle_segment", "accuracy.oracle_segment"} & finding.metrics.keys()
    assert not any(row[0] == "oracle segment" for table in finding.tables for row in table.rows)
    assert not {"hit_rate", "overlap"} & finding.metrics.keys()


def test_modalities_are_told_apart() -> None:
    kinds = ["sound", "music", "sound", "music", "music"]

    def each(right: str) -> list[Listened]:
        return [listened(k, one == "+", kinds[k]) for k, one in enumerate(right)]

    finding = summarise({"model": {SINGLE: each("--+--"), OURS: each("+++--")}}, {}, words="w")
    assert value(finding, "accuracy.ours_model.sound") == 1.0
    assert finding.metrics["accuracy.ours_model.music"].n == 3
    assert value(finding, "accuracy.single.music") == 0.0
    assert value(finding, "gain_over_single.sound") == 0.5
    assert value(finding, "gain_over_single.music") == pytest.approx(1 / 3)
    (table,) = [table for table in finding.tables if table.title == "By modality"]
    assert table.columns == ("condition", "music", "sound")
    assert [row[0] for row in table.rows] == ["single", "ours"]
    alone = summarise(
        {"model": {SINGLE: made("+", modality="sound"), OURS: made("+", modality="sound")}}, {}, words="w"
    )
    assert not [name for name in alone.metrics if "sound" in name], "one kind alone is no split"


def test_stages_are_told_apart_and_the_last_one_has_the_headline() -> None:
    found = {
        "sft": {SINGLE: made("+---"), OURS: made("++--", hit=False)},
        "grpo": {SINGLE: made("----"), OURS: made("-+++", hit=True), RANDOM: made("----")},
    }
    finding = summarise(found, {}, words="w-1")
    assert value(finding, "accuracy") == value(finding, "accuracy.ours_grpo") == 0.75
    assert value(finding, "accuracy.ours_sft") == 0.5
    assert value(finding, "accuracy.single_sft") == 0.25
    assert value(finding, "accuracy.single") == 0.0
    assert value(finding, "gain_over_last_stage") == 0.25
    assert value(finding, "hit_rate") == 1.0
    assert value(finding, "overlap") == 0.75
    conditions, _, segments = finding.tables
    assert [row[0] for row in conditions.rows] == [
        "single, sft", "ours, sft", "single, grpo", "ours, grpo", "random segment, grpo",
    ]  # fmt: skip
    leads = [row[2] for row in conditions.rows]
    assert leads[3] is None
    assert [lead.value for lead in leads if isinstance(lead, Metric)] == [0.5, 0.25, 0.75, 0.75]
    assert [(row[0], row[2].value) for row in segments.rows if isinstance(row[2], Metric)] == [("sft", 0), ("grpo", 1)]
    assert finding.notes[1] == "The headline is the accuracy of grpo with re-listening (w-1)."
    assert Finding.from_json(finding.to_json()) == finding


def test_questions_about_one_clip_are_one_cluster() -> None:
    alike = {name: made("+-+-", clip="one") for name in (SINGLE, OURS)}
    finding = summarise({"model": alike}, {}, words="w")
    assert "clusters" in finding.metrics["accuracy"].method
    assert "clusters" in finding.metrics["gain_over_single"].method
    apart = summarise({"model": {name: made("+-+-") for name in (SINGLE, OURS)}}, {}, words="w")
    assert apart.metrics["accuracy"].method == "wilson 95%"
    assert finding.metrics["accuracy"].low < apart.metrics["accuracy"].low


def test_segments_are_counted_by_what_came_of_them() -> None:
    cut = replace(GOOD, cut=True)
    ours = [
        listened(0, True, segments=(GOOD, BAD)), listened(1, True, segments=()),
        listened(2, True, segments=(cut, BAD, Segment("x", None, None, Fault.MALFORMED))),
    ]  # fmt: skip
    finding = summarise({"model": {SINGLE: ours, OURS: ours}}, {}, words="w")
    assert value(finding, "segments") == pytest.approx(5 / 3)
    assert finding.notes[2] == (
        "5 segments were cited, 3 of them invalid (malformed 1, inverted 2); 1 of 3 replies cite none."
    )
    assert finding.tables[2].rows[0][-2:] == (3, 1)
    assert finding.tables[2].rows[0][2:4] == (None, None)
    first = finding.records[0]
    assert first["segments"] == [
        {"text": "2, 5", "start_s": 2.0, "end_s": 5.0, "fault": "", "cut": False},
        {"text": "9, 1", "start_s": 9.0, "end_s": 1.0, "fault": "inverted", "cut": False},
    ]
    assert (first["id"], first["hit"], first["well_formed"], first["turns"]) == ("q0", None, True, 2)


def test_the_budget_curves() -> None:
    ours = made("++++")
    budgets = {
        0.0: made("+---", heard_s=0.0, seconds=0.5), 3.0: made("++--", heard_s=2.5, seconds=1.5),
        8.0: made("+++-", heard_s=4.0, seconds=2.0),
    }  # fmt: skip
    finding = summarise({"model": {SINGLE: ours, OURS: ours}}, budgets, words="w")
    allowed, heard, cost = finding.curves
    assert (allowed.x, allowed.y) == ((0.0, 3.0, 8.0), (0.25, 0.5, 0.75))
    assert (heard.x, heard.y) == ((0.0, 2.5, 4.0), allowed.y)
    assert (cost.x, cost.y) == ((0.5, 1.5, 2.0), allowed.y)
    assert all(low <= y <= high for low, y, high in zip(allowed.low, allowed.y, allowed.high, strict=True))
    assert summarise({"model": {SINGLE: ours, OURS: ours}}, {}, words="w").curves == ()
