"""Adapters in the audit: each item's own, the cross-modality matrix, and the controls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.completion import Sampling, Stop
from earnest.conversation import Conversation
from earnest.engines.load import load_local
from earnest.errors import ModelError
from earnest.example import Example
from earnest.finding import Finding
from earnest.grading import Outcome
from earnest.reliability.audit import audit
from earnest.reliability.controls import SNRS_DB, conditions, control_findings, spread
from earnest.reliability.fine_tuned import cross_metrics, find_adapters
from earnest.reliability.gain import gain
from earnest.reliability.prompting import instructed, methods, untouched
from earnest.statistics import wilson
from earnest.training.lora_trainer import LoraSettings
from earnest.training.sft import Lesson, fine_tune

MODALITIES = ("sound", "music", "speech")
RIGHT, WRONG, IDK = Outcome.CORRECT, Outcome.WRONG, Outcome.ABSTAINED


def example(number: int) -> Example:
    clip = tone(200 + 40 * number, 0.4)
    return Example(
        f"q{number}", (clip,), f"question {number}", ("dog", "cat"), "dog", {"modality": MODALITIES[number % 3]}
    )


def taught(family: Any, reply: str, to: Path) -> Path:
    """An adapter that always says the same."""
    lessons = [Lesson(example(number).conversation, reply) for number in range(12)]
    settings = LoraSettings(rank=8, learning_rate=1e-2, batch_size=12, epochs=60, parts="all")
    return fine_tune(family, lessons, settings, to, log=lambda _: None)


@pytest.mark.parametrize("make", [tiny_fused, tiny_qwen2_audio, tiny_qwen25_omni])
def test_each_item_is_answered_by_its_own_adapter(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """The same audit and LoRA on the architectures: sound learns to abstain, music the answer, speech another."""
    engine = load_local(str(make(tmp_path / "model")), device="cpu", threads=1)
    for name, reply in zip(MODALITIES, ("i don't know", "dog", "cat"), strict=True):
        taught(engine.family, reply, tmp_path / "adapters" / name)
    examples = [example(number) for number in range(12)]
    finding = audit(
        engine,
        examples,
        tmp_path / "run",
        chosen=methods()[:3],
        adapters=find_adapters(tmp_path / "adapters"),
        control_items=6,
        sampling=Sampling(max_new_tokens=20),
        batch_size=4,
    )
    said = {
        method: [row["outcome"] for row in finding.records if row["method"] == method]
        for method in ("idk_sft", "idk_sft/sound", "idk_sft/music", "idk_sft/speech")
    }
    assert said["idk_sft/sound"] == [IDK] * 12
    assert said["idk_sft/music"] == [RIGHT] * 12
    assert said["idk_sft/speech"] == [WRONG] * 12
    assert said["idk_sft"] == [IDK, RIGHT, WRONG] * 4
    metrics = finding.metrics
    assert metrics["idk_sft.accuracy"].value == pytest.approx(1 / 3)
    assert metrics["idk_sft.rejection.sound"].value == 1
    assert metrics["cross_accuracy.music_to_speech"].value == 1 - metrics["untouched.accuracy.speech"].value
    assert len([name for name in metrics if name.startswith("cross.")]) == 9
    # Two of the six items are of sound: every modality has as many.
    assert metrics["idk_sft.abstention.silent"].value == pytest.approx(2 / 6)
    assert metrics["idk_sft.abstention.silent"].n == 6
    titles = [table.title for table in finding.tables]
    assert titles[-1].startswith("Controls")
    assert sum(title.startswith("Trained on one modality") for title in titles) == 3
    # The untouched model said the same before and after it wore anything.
    alone = audit(engine, examples, tmp_path / "alone", chosen=methods()[:3], control_items=0,
                  sampling=Sampling(max_new_tokens=20), batch_size=4)  # fmt: skip

    def replies(of: Finding) -> list[str]:
        return [row["reply"] for row in of.records if row["method"] == "untouched"]

    assert replies(alone) == replies(finding)
    assert len(set(replies(alone))) > 1
    # One adapter for all needs no modalities.
    plain = [Example(e.id, e.audio, e.question, e.choices, e.answer) for e in examples]
    one = audit(
        engine,
        plain,
        tmp_path / "one",
        chosen=methods()[:2],
        control_items=0,
        adapters=find_adapters(tmp_path / "adapters" / "sound"),
        sampling=Sampling(max_new_tokens=20),
    )
    assert one.metrics["idk_sft.rejection"].value == 1
    assert not [name for name in one.metrics if name.startswith("cross")]
    with pytest.raises(ModelError, match=r"without an adapter \(none\)"):
        audit(engine, plain, tmp_path / "two", adapters=find_adapters(tmp_path / "adapters"))


def test_a_server_wears_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="trainable"):
        audit(FakeEngine(lambda _: "dog"), [example(0)], tmp_path, adapters={"all": tmp_path})
    with pytest.raises(ModelError, match="holds no adapter"):
        find_adapters(tmp_path)
    with pytest.raises(ModelError, match="there is no folder"):
        find_adapters(tmp_path / "nowhere")


def test_the_matrix_is_the_gain_of_each_cell() -> None:
    before = [RIGHT, WRONG, RIGHT, WRONG, RIGHT, WRONG]
    modality = ["sound", "sound", "music", "music", "sound", "music"]
    after = {"sound": [RIGHT, IDK, IDK, WRONG, IDK, IDK], "music": [RIGHT, WRONG, RIGHT, IDK, RIGHT, IDK]}
    metrics, tables = cross_metrics(before, after, modality)
    on_sound = [0, 1, 4]
    expected = gain([before[k] for k in on_sound], [after["sound"][k] for k in on_sound], "group")
    assert metrics["cross.sound_to_sound"].value == pytest.approx(expected.rgi)
    assert metrics["cross_accuracy.sound_to_sound"].value == pytest.approx(-1 / 3)
    assert metrics["cross_accuracy.music_to_sound"].value == 0
    assert [table.columns for table in tables] == [("trained on", "on sound", "on music")] * 3


def test_conditions_change_the_audio_alone() -> None:
    examples = [example(number) for number in range(4)]
    made = {name: change(examples) for name, change in conditions(3).items()}
    assert list(made)[:3] == ["clean", "silent", "swapped"]
    assert len(made) == 3 + len(SNRS_DB)
    whole = [found for name, found in made.items() if name != "swapped"]
    assert all([each.id for each in found] == ["q0", "q1", "q2", "q3"] for found in whole)
    assert all(each.clip.rms == 0 for each in made["silent"])
    # q0 and q3 are of sound, the others alone in their modality.
    assert [(each.id, each.clip.key) for each in made["swapped"]] == [
        ("q0", examples[3].clip.key), ("q3", examples[0].clip.key),
    ]  # fmt: skip
    for one, two in zip(made["noise at -10 dB"], examples, strict=True):
        added = one.clip.samples.astype(float) - two.clip.samples
        assert 10 * math.log10((two.clip.rms**2) / (added**2).mean()) == pytest.approx(-10, abs=0.01)
    silent = made["silent"]
    assert [len(change(silent)) for name, change in conditions().items() if name.startswith("noise")] == [0] * len(
        SNRS_DB
    )
    assert conditions()["swapped"](silent[:1]) == []


def test_controls_are_spread_over_the_modalities() -> None:
    sorted_examples = sorted((example(number) for number in range(30)), key=lambda each: each.groups["modality"])
    chosen = spread(sorted_examples, 9, seed=1)
    assert sorted(each.groups["modality"] for each in chosen) == ["music"] * 3 + ["sound"] * 3 + ["speech"] * 3
    assert chosen == spread(sorted_examples, 9, seed=1) != spread(sorted_examples, 9, seed=2)
    assert len(spread(sorted_examples, 99)) == 30


def test_the_controls_count_what_was_abstained_from() -> None:
    names = ["clean", "silent", "silent, open", "noise at -20 dB", "noise at 20 dB"]
    said = {
        "idk_sft": {
            "clean": {"a": RIGHT, "b": IDK, "c": IDK},
            "silent": {"a": IDK, "b": IDK, "c": IDK},
            "noise at -20 dB": {"a": IDK, "b": IDK, "c": WRONG},
            "noise at 20 dB": {"a": RIGHT, "b": WRONG, "c": WRONG},
        }
    }
    on_known = wilson(1, 4)
    metrics, table, curves = control_findings(said, {"idk_sft.abstention_on_known": on_known}, {"a", "b"})
    assert metrics["idk_sft.abstention.silent_open"].n == 2
    assert metrics["idk_sft.abstention.silent"].value == 1
    assert metrics["idk_sft.abstention.snr_-20_db"].value == pytest.approx(2 / 3)
    assert table.rows[0][1] == on_known
    assert table.columns == ("method", "clean, right before", *names)
    assert curves[0].x == (-20.0, 20.0)
    assert curves[0].y == (pytest.approx(2 / 3), 0.0)


def test_the_controls_in_an_audit_hear_what_was_changed(tmp_path: Path) -> None:
    def answers(conversation: Conversation) -> str:
        return "<answer> i don't know</answer>" if conversation.clips[0].rms == 0 else "<answer> dog</answer>"

    engine = FakeEngine(answers)
    finding = audit(engine, [example(n) for n in range(8)], tmp_path, chosen=methods()[:3], control_items=5)
    assert finding.metrics["untouched.abstention.silent"].value == 1
    assert finding.metrics["untouched.abstention.silent"].n == 5
    assert finding.metrics["untouched.abstention_on_known"].value == 0
    # Of all items, not of those alone that the controls ask.
    assert finding.metrics["untouched.abstention_on_known"].n == finding.metrics["untouched.accuracy"].value * 8 > 5
    assert finding.metrics["idk_prompt.abstention.snr_-20_db"].value == 0
    assert {curve.title for curve in finding.curves} == {"abstention by signal-to-noise ratio"}
    assert untouched().adapter is None
    assert instructed("idk_prompt", methods()[2].prompt).shown == "idk_prompt (idk-1)"  # type: ignore[arg-type]


def with_samples(engine: FakeEngine, folder: Path, samples: int) -> Finding:
    asked = [example(n) for n in range(8)]
    return audit(engine, asked, folder, chosen=methods()[:2], control_items=0, samples=samples)


def test_agreement_of_samples_is_the_confidence_of_a_black_box(tmp_path: Path) -> None:
    """A third of the samples say otherwise on odd questions, all agree on even ones."""

    class Wavering(FakeEngine):
        def generate(self, conversations: Any, sampling: Sampling) -> Any:
            done = super().generate(conversations, sampling)
            return [
                replace(each, text="<answer> cat</answer>")
                if sampling.temperature and sampling.seed % 3 == 0 and int(c.turns[-1].text.split()[1]) % 2
                else each
                for each, c in zip(done, conversations, strict=True)
            ]

    finding = with_samples(Wavering(lambda _: "<answer> dog</answer>"), tmp_path, 6)
    # All are right; half at a confidence of 1, half at 4 / 6.
    assert finding.metrics["untouched.ece"].value == pytest.approx(1 / 6)
    assert finding.metrics["untouched.brier"].value == pytest.approx(0.5 * (1 / 3) ** 2)


def test_a_sample_that_failed_is_no_other_answer(tmp_path: Path) -> None:
    class Failing(FakeEngine):
        def generate(self, conversations: Any, sampling: Sampling) -> Any:
            done = super().generate(conversations, sampling)
            lost = sampling.temperature and sampling.seed > 0
            return [replace(each, stop=Stop.FAILED, error="timeout") if lost else each for each in done]

    finding = with_samples(Failing(lambda _: "<answer> dog</answer>"), tmp_path, 5)
    assert finding.metrics["untouched.ece"].value == 0
    assert "64 samples failed" in finding.notes[-1]
