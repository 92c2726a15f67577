"""The core audit: outcomes, denominators, intervals, the hearing account."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeEngine, constant, oracle

from earnest.accuracy import audit, hearing_account
from earnest.audio import Clip
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import ManifestError
from earnest.example import Example
from earnest.run import read_findings, read_metrics

CHOICES = ("dog", "cat", "bell")


def examples(n: int = 12, *, clips: int | None = None) -> list[Example]:
    made = [Clip(np.full(1600 * (i + 1), 0.01 * (i + 1), np.float32), 16000) for i in range(clips or n)]
    return [
        Example(
            f"q{i}",
            (made[i % len(made)],),
            f"What is heard in number {i}?",
            CHOICES,
            CHOICES[i % 3],
            {"modality": ("sound", "music")[i % 2], "template": "what", "snr_db": ("clean", "10", "0", "-10")[i % 4]},
        )
        for i in range(n)
    ]


def test_every_outcome_is_counted_and_stays_in_the_denominator(tmp_path: Path) -> None:
    asked = examples()
    replies: dict[str, str | None] = {
        "q0": "<answer> cat</answer>",
        "q1": "<answer> i don't know</answer>",
        "q2": "I'm sorry, but I can't help with that.",
        "q3": "",
        "q4": None,
    }
    finding = audit(oracle(asked, replies), asked, tmp_path)
    got = {name: round(finding.metrics[f"share.{name}"].value * 12) for name in ("correct", "wrong", "abstained")}
    assert got == {"correct": 7, "wrong": 1, "abstained": 1}
    assert [finding.metrics[f"share.{name}"].value for name in ("refused", "malformed", "failed")] == [1 / 12] * 3
    assert finding.metrics["accuracy"].value == 7 / 12
    assert finding.metrics["accuracy"].n == 12
    # The official rule skips the two empty replies; ours counts them.
    assert finding.metrics["official_mmau"].n == 10
    assert any("too long for the fake (1)" in note for note in finding.notes)


def test_audio_that_was_not_heard_is_the_first_note(tmp_path: Path) -> None:
    asked = examples(4)
    finding = audit(oracle(asked, heard_share=0.5), asked, tmp_path)
    assert finding.notes[0].startswith("Heard 0.5 of 1.0 s of audio (50.0 %) in 4 questions")
    assert "NOT ALL WAS HEARD: 0.5 s of 3 clip(s)" in finding.notes[0]
    assert finding.metrics["heard"].value == 0.5


def test_an_engine_that_fails_without_an_account_is_still_held_to_the_seconds_given(tmp_path: Path) -> None:
    class Silent(FakeEngine):
        def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
            return [Completion("", Stop.FAILED, error="no") for _ in conversations]

    finding = audit(Silent(lambda _: None), examples(4), tmp_path)
    assert finding.notes[0].startswith("Heard 0.0 of 1.0 s of audio (0.0 %)")
    assert "NOT ALL WAS HEARD" in finding.notes[0]


def test_the_question_only_pass_hears_nothing_and_the_gain_is_paired(tmp_path: Path) -> None:
    asked = examples()
    finding = audit(oracle(asked), asked, tmp_path, question_only=True)
    gain = finding.metrics["gain_over_question_only.sound"]
    assert (gain.value, gain.low, gain.high) == (1.0, 1.0, 1.0)
    assert gain.method.startswith("paired bootstrap")
    metrics = read_metrics(tmp_path)
    assert metrics["answers.accuracy.sound"].value == 1.0
    assert metrics["question_only.share.abstained"].value == 1.0
    answers, deaf = read_findings(tmp_path)
    assert {record["heard"]["seconds_given"] for record in deaf.records} == {0.0}
    assert answers.metrics == finding.metrics


def test_questions_about_one_clip_are_drawn_together(tmp_path: Path) -> None:
    alone = audit(constant("dog"), examples(12), tmp_path / "alone").metrics["accuracy"]
    together = audit(constant("dog"), examples(12, clips=3), tmp_path / "together").metrics["accuracy"]
    assert alone.value == together.value == 4 / 12
    assert alone.method.startswith("wilson")
    assert "clusters" in together.method
    assert together.high - together.low > alone.high - alone.low


def test_tables_are_sorted_from_easy_to_hard(tmp_path: Path) -> None:
    finding = audit(constant("dog"), examples(), tmp_path)
    tables = {table.title: table for table in finding.tables}
    assert [row[0] for row in tables["Accuracy by snr db"].rows] == ["clean", "10", "0", "-10"]
    assert "Accuracy by template" not in tables  # one value splits nothing
    confusion = tables["What was confused with what"]
    assert {row[0]: row[1:] for row in confusion.rows}["cat"][confusion.columns.index("dog") - 1] == 4
    (curve,) = finding.curves
    assert curve.x == (-10.0, 0.0, 10.0)


def test_a_second_audit_asks_nothing(tmp_path: Path) -> None:
    asked = examples()
    engine = oracle(asked)
    first = audit(engine, asked, tmp_path, batch_size=5)
    assert audit(engine, asked, tmp_path, batch_size=3) == first
    assert len(engine.asked) == 12


def test_failures_are_asked_again_only_on_request(tmp_path: Path) -> None:
    asked = examples(4)
    failing = FakeEngine(lambda _: None, name="flaky")
    audit(failing, asked, tmp_path)
    healthy = constant("dog")
    healthy.key = failing.key
    assert audit(healthy, asked, tmp_path).metrics["share.failed"].value == 1.0
    assert audit(healthy, asked, tmp_path, retry_failed=True).metrics["share.failed"].value == 0.0


def test_withheld_answers_and_no_examples_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there are none"):
        audit(constant("dog"), [], tmp_path)
    with pytest.raises(ManifestError, match="a: no answer"):
        audit(constant("dog"), [Example("a", (Clip.silence(1.0),), "What?")], tmp_path)


def test_an_audit_of_nothing_heard_has_an_account() -> None:
    assert hearing_account([]) == "Heard 0.0 of 0.0 s of audio in 0 questions, as 0 audio tokens."
