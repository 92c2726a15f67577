"""The core audit: outcomes, denominators, intervals, the hearing account."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeEngine, constant, oracle

from earnest.accuracy import audit, hearing_account
from earnest.audio import Clip
from earnest.completion import Sampling
from earnest.errors import ManifestError, RecipeError
from earnest.example import Example
from earnest.finding import Metric
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


def test_what_failed_was_given_and_not_heard(tmp_path: Path) -> None:
    finding = audit(FakeEngine(lambda _: None), examples(4), tmp_path)
    assert finding.notes[0].startswith("Heard 0.0 of 1.0 s of audio (0.0 %)")
    assert "NOT ALL WAS HEARD" in finding.notes[0]


def test_the_question_only_pass_hears_nothing_and_the_gain_is_paired(tmp_path: Path) -> None:
    asked = examples()
    finding = audit(oracle(asked), asked, tmp_path, question_only=True)
    gain = finding.metrics["gain_over_question_only.sound"]
    assert (gain.value, gain.high) == (1.0, 1.0)
    assert 0 < gain.low < 1
    assert gain.method.startswith("paired wilson")
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


def test_every_interval_holds_the_questions_about_one_clip_together(tmp_path: Path) -> None:
    asked = examples(24, clips=4)
    # The same sound in another file is the same clip.
    files = [asked[i].clip.save(tmp_path / f"{i}.wav") for i in range(12)]
    asked = [replace(e, audio=(files[i],)) if i < 12 else e for i, e in enumerate(asked)]
    asked = [replace(e, audio=(Clip.load(files[i % 4]),)) if i >= 12 else e for i, e in enumerate(asked)]
    finding = audit(oracle(asked, {f"q{i}": "<answer> cat</answer>" for i in range(0, 24, 2)}), asked, tmp_path / "run")
    methods = {name: metric.method for name, metric in finding.metrics.items() if name != "heard"}
    assert all("clusters" in method for method in methods.values()), methods
    assert {"accuracy.sound", "share.wrong", "official_mmau"} < methods.keys()
    (table,) = [table for table in finding.tables if table.title == "Accuracy by snr db"]
    intervals = [cell for row in table.rows for cell in row if isinstance(cell, Metric)]
    assert {metric.method for metric in intervals} == {"wilson 95% over 1 clusters"}
    assert all(metric.high - metric.low > 0.7 for metric in intervals)
    # No reply failed, but four clips do not show that none ever does.
    failed = finding.metrics["share.failed"]
    assert (failed.value, failed.low, failed.n) == (0.0, 0.0, 24)
    assert failed.high > 0.4


def test_the_official_rule_reads_what_the_model_wrote(tmp_path: Path) -> None:
    asked = examples(4)
    finding = audit(oracle(asked, {"q0": "<answer>A</answer>", "q1": "It is B. cat"}), asked, tmp_path)
    assert finding.metrics["accuracy"].value == 1.0
    # It knows no letters: "A" is not "dog"; "cat" stands in the sentence.
    assert finding.metrics["official_mmau"].value == 0.75


def test_an_audit_from_python_settles_all_that_can_change_a_result(tmp_path: Path) -> None:
    asked = examples(4)
    engine = oracle(asked)
    audit(engine, asked, tmp_path, source={"data": "my.jsonl"})
    resolved = tomllib.loads((tmp_path / "resolved.toml").read_text())
    assert resolved["model"] == "oracle"
    assert resolved["weights"] == engine.key
    assert resolved["question_only"] is False
    assert resolved["engine"] == {"device": "none"}
    assert resolved["sampling"]["max_new_tokens"] == 256
    assert resolved["questions"]["n"] == 4 and resolved["questions"]["data"] == "my.jsonl"
    names = {"completions.jsonl", "environment.json", "findings.json", "metrics.json", "records.jsonl", "resolved.toml"}
    assert {path.name for path in tmp_path.iterdir()} == names
    changed = [replace(asked[0], answer="cat"), *asked[1:]]
    with pytest.raises(RecipeError, match=r"questions\.key"):
        audit(engine, changed, tmp_path, source={"data": "my.jsonl"})
    with pytest.raises(RecipeError, match="question_only is False there, True here"):
        audit(engine, asked, tmp_path, source={"data": "my.jsonl"}, question_only=True)
    with pytest.raises(RecipeError, match=r"sampling\.max_new_tokens is 256 there, 9 here"):
        audit(engine, asked, tmp_path, source={"data": "my.jsonl"}, sampling=Sampling(max_new_tokens=9))
    engine.settings = {"device": "cuda"}
    with pytest.raises(RecipeError, match=r"engine\.device is 'none' there, 'cuda' here"):
        audit(engine, asked, tmp_path, source={"data": "my.jsonl"})


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
    healthy.key, healthy.name = failing.key, failing.name
    assert audit(healthy, asked, tmp_path).metrics["share.failed"].value == 1.0
    assert audit(healthy, asked, tmp_path, retry_failed=True).metrics["share.failed"].value == 0.0


def test_withheld_answers_and_no_examples_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there are none"):
        audit(constant("dog"), [], tmp_path)
    with pytest.raises(ManifestError, match="a: no answer"):
        audit(constant("dog"), [Example("a", (Clip.silence(1.0),), "What?")], tmp_path)


def test_an_audit_of_nothing_heard_has_an_account() -> None:
    assert hearing_account([]) == "Heard 0.0 of 0.0 s of audio in 0 questions, as 0 audio tokens."
