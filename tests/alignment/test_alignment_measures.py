"""The table of what rephrasing did, against computations by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import earnest
from earnest.alignment.measures import edit_distance, measure
from earnest.alignment.rephrase import surrogate_conversation
from earnest.alignment.rows import Target


def row_of(name: str, raw: str, target: str | None, **change: Any) -> Target:
    given = {"question": "q", "clip": name, "raw": raw, "target": target, **change}
    return Target(name, Path("a.wav"), f"|{name}|", 1.0, **given)


ROWS = [
    row_of("a", "the text says dog", "i hear a dog", answer="dog"),
    row_of("b", "the text says dog", "the text says dog"),
    row_of("c", "i hear a cat", "i hear a cat", answer="a cat"),
    row_of("d", "the text says cow", None, cut=True),
    row_of("e", "the text you want", "the text you want", instruction=True),
    row_of("f", "", None),
]


class ByWord:
    """Log-probability of a word by its length; remembers what it was given."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.family = SimpleNamespace(continuation_ids=self._ids)
        self.given: list[str] = []

    def _ids(self, text: str) -> list[int]:
        return [self.words.setdefault(word, len(self.words)) for word in text.split()]

    def logprobs(self, conversations: Any, continuations: Any) -> list[torch.Tensor]:
        self.given += [conversation.turns[0].text for conversation in conversations]
        names = list(self.words)
        return [torch.tensor([-float(len(names[token])) for token in tokens]) for tokens in continuations]


def value(metrics: Any, name: str) -> float:
    return metrics[name].value


def test_leaks_lengths_and_cuts_are_counted_by_hand() -> None:
    metrics = measure(ROWS).metrics
    assert value(metrics, "leak.raw") == pytest.approx(2 / 3)
    assert value(metrics, "leak.rephrased") == pytest.approx(1 / 3)
    assert value(metrics, "leak.raw_of_all") == pytest.approx(3 / 4)
    assert value(metrics, "leak_reduction") == pytest.approx(0.5)
    assert value(metrics, "cut") == pytest.approx(1 / 4)
    assert value(metrics, "edit_distance.rephrased") == pytest.approx((3 / 4 + 0 + 0) / 3)
    assert value(metrics, "length_ratio.rephrased") == pytest.approx((12 / 17 + 1 + 1) / 3)
    assert metrics["leak.raw_of_all"].n == 4 and metrics["leak.raw"].n == 3
    assert not [name for name in metrics if name.startswith("nll")]


def test_likelihoods_are_means_over_tokens_and_outside_the_edits_over_those_that_both_have() -> None:
    engine: Any = ByWord()
    finding = measure(ROWS, engine=engine, others={"foreign": {"a": "a dog it is", "z": "elsewhere"}}, batch_size=3)
    metrics = finding.metrics
    # a: the(3) text(4) says(4) dog(3) -> i(1) hear(4) a(1) dog(3); b: equal, 14; c: i hear a cat 9.
    assert value(metrics, "nll.raw") == pytest.approx((14 + 14 + 9) / 12)
    assert value(metrics, "nll.rephrased") == pytest.approx((9 + 14 + 9) / 12)
    assert value(metrics, "nll.ground_truth") == pytest.approx((3 + 1 + 3) / 3)
    assert value(metrics, "nll.foreign") == pytest.approx((1 + 3 + 2 + 2) / 4)
    assert value(metrics, "nll_same.raw") == value(metrics, "nll_same.rephrased") == pytest.approx(3.0)
    assert value(metrics, "nll_same.ratio") == pytest.approx(1.0)
    assert metrics["nll_same.raw"].n == 1, "edited rows alone"
    assert value(metrics, "nll_ratio.foreign") == pytest.approx(9 / 4 / (8 / 4))
    assert value(metrics, "nll_ratio.ground_truth") == pytest.approx(18 / 8 / (7 / 3))
    assert set(engine.given) == {surrogate_conversation(row).turns[0].text for row in ROWS[:3]}
    table = finding.tables[0]
    assert [row[0] for row in table.rows] == ["R0", "R", "ground truth", "foreign"]
    assert {record["id"] for record in finding.records} == {"a", "b", "c"}
    sampled = measure(ROWS, engine=engine, scored_rows=2)
    assert sampled.metrics["nll.raw"].n == 2 and sampled.metrics["leak.raw"].n == 3


def test_intervals_are_over_clips_and_claim_no_certainty_where_all_agree() -> None:
    rows = [row_of(f"{k}", "the text says dog", "i hear a dog", clip=str(k // 2)) for k in range(8)]
    reduction = measure(rows).metrics["leak_reduction"]
    assert (reduction.value, reduction.high, reduction.n) == (1.0, 1.0, 8)
    assert reduction.low < 0.6 and "over 4 clips" in reduction.method
    mixed = [*rows, *(row_of(f"x{k}", "the text says dog", "by the text: dog", clip=f"x{k}") for k in range(4))]
    reduction = measure(mixed).metrics["leak_reduction"]
    assert reduction.value == pytest.approx(8 / 12)
    assert reduction.low < reduction.value < reduction.high
    clean = measure([row_of("a", "i hear", "i hear")]).metrics["leak_reduction"]
    assert math.isnan(clean.value)


def test_nothing_to_measure_is_no_error() -> None:
    metrics = measure([row_of("a", "", None)]).metrics
    assert metrics["leak.raw_of_all"].n == 0 and math.isnan(metrics["leak_reduction"].value)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0.0),
        ("a b c", "a b c", 0.0),
        ("a b c", "", 1.0),
        ("the text says dog", "i hear a dog", 3 / 4),
        ("a b c d", "b c d e", 2 / 4),
        ("a, b", "a b", 1 / 3),
        ("x y", "y x", 1.0),
        ("a b a b", "b a", 2 / 4),
    ],
)
def test_edit_distance(one: str, other: str, distance: float) -> None:
    assert edit_distance(one, other) == pytest.approx(distance)
    assert edit_distance(other, one) == pytest.approx(distance)


def test_edit_distance_is_that_of_the_textbook() -> None:
    import random

    def plain(a: list[str], b: list[str]) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, start=1):
            last, row[0] = row[0], i
            for j, y in enumerate(b, start=1):
                last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
        return row[-1]

    rng = random.Random(0)
    for _ in range(50):
        a, b = ([rng.choice("abc") for _ in range(rng.randint(1, 12))] for _ in range(2))
        assert edit_distance(" ".join(a), " ".join(b)) == pytest.approx(plain(a, b) / max(len(a), len(b)))


def test_pocket_finds_its_own_words_likelier_than_others() -> None:
    engine: Any = earnest.load("pocket", threads=1)
    surrogate = "[00:01-00:03] |dog| (duration: 5s)"
    said = "<think> i hear dog [00:01].</think><answer> dog</answer>"
    row = Target(
        "a", Path("a.wav"), surrogate, 5.0, question="what is the sound?", clip="a", raw=said, target=said,
        answer="<answer> horse drum [00:07].</answer>",
    )  # fmt: skip
    metrics = measure([row], engine=engine).metrics
    own = -engine.logprobs([surrogate_conversation(row)], [said])[0].mean().item()
    assert value(metrics, "nll.rephrased") == pytest.approx(own, rel=1e-4)
    assert value(metrics, "nll_ratio.ground_truth") < 1
