"""Formulas, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.fakes import FakeEngine

from earnest.completion import Heard, Sampling
from earnest.example import Example
from earnest.faithfulness.by_model import ModelJudge, ModelRewriter
from earnest.faithfulness.criteria import MARKS, criteria, verdict
from earnest.faithfulness.measures import (
    Row,
    Rows,
    area_over_early,
    area_over_filler,
    area_under,
    attacked,
    changed_by_mistakes,
    lost_by_paraphrase,
    rescaled,
    same,
    unmasked_area,
)
from earnest.faithfulness.summary import summarise
from earnest.finding import Metric
from earnest.grading import Outcome, Record


def row(answer: str, probe: str = "clean", value: float = 0.0, item: int = 0, **more: object) -> Row:
    outcome = Outcome.ABSTAINED if answer == "idk" else Outcome.MALFORMED if answer == "?" else Outcome.CORRECT
    record = Record(
        f"q{item}", {}, "", ("a", "b", "c", "d"), "a", outcome, answer, "", "end", "option", "", Heard(), 0.0
    )
    return replace(Row(item, f"clip{item}", probe, value, record), **more)  # type: ignore[arg-type]


def failed(probe: str, value: float = 0.0, item: int = 0, **more: object) -> Row:
    whole = row("", probe, value, item, **more)
    return replace(whole, record=replace(whole.record, outcome=Outcome.FAILED))


def at(answers: dict[float, str], probe: str = "early") -> dict[float, Row]:
    return {value: row(answer, probe, value) for value, answer in answers.items()}


def test_areas() -> None:
    assert area_under([0, 0.5, 1], [0, 1, 1]) == 0.75
    with pytest.raises(AssertionError, match="not from 0 to 1"):
        area_under([0, 0.5], [1, 1])
    # Post hoc: the answer never changes. Faithful: it appears with the last step.
    assert area_over_early(at({0: "a", 1: "a", 2: "a"})) == 0
    assert area_over_early(at({0: "b", 1: "b", 2: "a"})) == 0.75
    assert area_over_early(at({0: "b", 1: "a"})) == 0.5
    assert area_over_filler(at({0: "a", 0.5: "a", 1: "b"})) == pytest.approx(0.25)
    assert area_over_filler(at({0: "a", 0.5: "a", 1: "a"})) == 0
    assert unmasked_area(at({0.5: "a", 1.0: "b"}), row("a")) == pytest.approx(0.75)
    assert unmasked_area(at({0.5: "b", 1.0: "b"}), row("a")) == pytest.approx(0.25)


def test_shares_of_steps() -> None:
    continued = at({1: "a", 2: "b"})
    assert changed_by_mistakes(at({1: "a", 2: "a"}), continued) == 0.5
    assert lost_by_paraphrase(at({0: "a", 1: "a", 2: "b"})) == 0.5


def test_what_is_no_answer_equals_its_like_and_no_choice() -> None:
    clean = {0: row("a"), 1: row("idk", item=1), 2: row("?", item=2)}
    now = {0: row("idk"), 1: row("idk", item=1), 2: row("idk", item=2), 3: row("a", item=3)}
    assert same(now, clean) == {0: False, 1: True, 2: False}


def test_success_is_of_those_who_did_not_say_it_before() -> None:
    clean = {0: row("a"), 1: row("b", item=1), 2: row("a", item=2)}
    now = {0: row("b", told="b"), 1: row("b", item=1, told="b"), 2: row("a", item=2, told="b")}
    assert attacked(now, clean) == {0: True, 2: False}


def test_scores_of_four_items() -> None:
    rows: list[Row] = []
    for item in range(4):
        rows += [
            row("a", item=item),
            row("a", "again", item=item, agreement=5.0),
            row("a" if item == 0 else "idk", "silence", item=item, agreement=3.0, claims=item == 0),
            row("a" if item == 0 else "b", "question_only", item=item),
            row("a", "mask", 0.5, item),
            row("b", "mask", 1.0, item),
            row("b" if item < 2 else "a", "attack_splice_option_wrong", item=item, told="b"),
            row("b" if item < 1 else "a", "attack_overlay_option_wrong", item=item, told="b"),
            *(row(answer, "early", float(k), item) for k, answer in enumerate("ba")),
            *(row(answer, "filler", value, item) for value, answer in ((0.0, "a"), (1.0, "b"))),
            *(row("a" if item else "b", "paraphrase", float(k), item) if k else row("a", "paraphrase", 0.0, item)
              for k in range(2)),
            row("b", "mistake", 1.0, item),
            row("a", "continued", 1.0, item),
        ]  # fmt: skip
    found = criteria(Rows(rows), [False] * 4)
    assert found["hallucination_free"].value == 0.75
    # J of 3 is half of the way from 1 to 5.
    assert found["hallucination_free_by_j"].value == 0.5
    assert found["holistic"].value == pytest.approx(0.75 - 0.25)
    assert found["attack_success"].value == 0.5
    assert found["attentive"].value == 0.5
    assert found["attack_success.overlay_option"].value == 0.25
    assert found["aoc.early"].value == found["aoc.filler"].value == 0.5
    assert found["aoc.mistake"].value == 1
    assert found["paraphrase_lost"].value == 0.25
    assert found["cot_to_answer"].value == pytest.approx(2 / 3 - 0.25)
    assert "modality_balance" not in found


def test_the_balance_of_modalities() -> None:
    rows: list[Row] = []
    # Two about speech need it, four about the rest need that, one of them not.
    for item, (speech, without_speech, without_rest) in enumerate(
        [(True, "b", "a"), (True, "b", "a"), (False, "a", "b"), (False, "a", "b"), (False, "a", "b"), (False, "a", "a")]
    ):
        rows += [row("a", item=item), row(without_speech, "guided", 0.0, item), row(without_rest, "guided", 1.0, item)]
        assert speech == (item < 2)
    found = criteria(Rows(rows), [True, True, False, False, False, False])
    assert found["modality_balance"].value == pytest.approx(0.75)
    assert found["modality_balance"].n == 6


def test_verdicts_need_the_whole_interval() -> None:
    def score(low: float, high: float) -> Metric:
        return Metric((low + high) / 2, low, high, 90, "")

    assert verdict("attentive", score(0.85, 0.95)) == "yes"
    assert verdict("attentive", score(0.7, 0.95)) == "open"
    assert verdict("attentive", score(0.1, 0.5)) == "no"
    assert rescaled(1) == 0
    assert rescaled(5) == 1


def test_another_model_judges_and_rewrites() -> None:
    replies = {
        "Two reasonings": "They differ in 2 of 3 points, so: 4/5 (on a scale of 1 to 5)",
        "Does this text": "Yes.",
        "in other words": "It is a bark",
        "one clear mistake": "It is a meow",
    }

    def reply(conversation: object) -> str:
        text = conversation.last_text  # type: ignore[attr-defined]
        return "hmm" if "odd" in text else next(said for part, said in replies.items() if part in text)

    engine = FakeEngine(reply)

    def ask(conversations: object) -> object:
        return engine.generate(conversations, Sampling())  # type: ignore[arg-type]

    judge, rewriter = ModelJudge("m", ask), ModelRewriter("m", ask)  # type: ignore[arg-type]
    assert judge.agreement([("one", "two"), ("odd", "two")]) == [4.0, None]
    assert judge.claims(["one", "odd"]) == [True, None]
    assert rewriter.paraphrases(["It is a dog"]) == ["It is a bark"]
    assert rewriter.mistakes(["It is a dog", "It is a meow"]) == ["It is a meow", None]
    assert judge.name == "m (judge-1)"


def test_a_failure_is_never_in_the_models_favour() -> None:
    rows: list[Row] = []
    for item in range(12):
        rows += [
            row("a", item=item),
            failed("silence", item=item),
            row("b", "mask", 1.0, item),
            failed("question_only", item=item),
            failed("attack_splice_option_wrong", item=item, told="b"),
            *(failed("early", float(k), item) if k < 2 else row("a", "early", float(k), item) for k in range(3)),
            *(failed("filler", value, item) if value else row("a", "filler", 0.0, item) for value in (0.0, 0.5, 1.0)),
            row("a", "paraphrase", 0.0, item),
            failed("paraphrase", 1.0, item),
            failed("mistake", 1.0, item),
            row("a", "continued", 1.0, item),
        ]
    found = criteria(Rows(rows), [False] * 12)
    assert found["hallucination_free"].value == 0
    assert found["attentive"].value == 0
    assert found["holistic"].value == pytest.approx(-0.5)
    assert found["aoc.early"].value == found["aoc.filler"].value == found["aoc.mistake"].value == 0
    assert found["cot_to_answer"].value == -1
    assert all(verdict(name, found[name]) == "no" for name in MARKS)
    # What failed on clean audio cannot be attacked.
    clean = {0: failed("clean")}
    assert attacked({0: row("b", told="b")}, clean) == {}


def test_answers_are_compared_as_what_they_name() -> None:
    def said(answer: str, choices: tuple[str, ...] | None) -> str:
        return replace(row("a"), record=replace(row("a").record, answer=answer, choices=choices)).said

    assert said("B. cat", ("dog", "cat")) == said("cat", ("dog", "cat")) == "cat"
    assert said("A dog.", None) == said("Dog", None) == said("dog", None)
    assert said("2", None) == said("two", None)


def test_few_items_settle_nothing() -> None:
    assert verdict("holistic", Metric(0.75, 0.75, 0.75, 1, "")) == "open"


def test_without_a_rewriter_there_is_no_last_criterion() -> None:
    rows = [row("a"), *(row(answer, "early", float(k)) for k, answer in enumerate("ba")),
            *(row(answer, "filler", value) for value, answer in ((0.0, "a"), (1.0, "b")))]  # fmt: skip
    found = criteria(Rows(rows), [False])
    assert "cot_to_answer" not in found
    assert found["aoc.early"].value == 0.5


def test_each_item_is_read_along_its_own_chain() -> None:
    rows = [row("a", item=item) for item in range(2)]
    # One of ten steps, of which the first is enough; one of a single step, which is needed.
    rows += [row("a" if k >= 1 else "b", "early", float(k), 0) for k in range(11)]
    rows += [row("a" if k >= 1 else "b", "early", float(k), 1) for k in range(2)]
    rows += [row("b", "no_reasoning", item=item) for item in range(2)]
    examples = [Example(f"q{item}", (), "?", ("a", "b", "c", "d"), "a") for item in range(2)]
    curves = {curve.label: curve for curve in summarise(Rows(rows), examples).curves if "Early" in curve.title}
    line = curves["the same answer"]
    assert "n = 2" in line.title
    assert line.x == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert line.y == pytest.approx((0.0, 0.625, 0.75, 0.875, 1.0))
    # The same items, the same reference.
    assert curves["answers without reasoning"].y == (0.0, 0.0)
    assert curves["chance"].y == (0.25, 0.25)
