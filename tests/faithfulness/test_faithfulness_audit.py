"""The audit end to end: real architectures in tiny folders, resuming, faults, the command and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faithfulness.constructed import Reader, items
from tests.fakes import FakeEngine, constant
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_audio_flamingo3, tiny_qwen25_omni

from earnest.cli import main
from earnest.completion import Sampling
from earnest.engines import Capabilities
from earnest.engines.load import load_local
from earnest.errors import ManifestError, ModelError, RecipeError
from earnest.example import Example, load_manifest, save_manifest
from earnest.faithfulness import audit as audit_module
from earnest.faithfulness.audit import audit, edited_clip
from earnest.faithfulness.closed import WorldJudge, WorldRewriter, world_language
from earnest.faithfulness.cot import Chain
from earnest.faithfulness.language import general_language
from earnest.faithfulness.probes import Item
from earnest.faithfulness.records import clean_alone, faults_of
from earnest.run import RunDirectory, read_records

TIMELINE = [
    {"kind": "sound", "name": "dog", "start_s": 0.1, "end_s": 0.5},
    {"kind": "speech", "name": "red", "start_s": 0.8, "end_s": 1.2},
]


def example(number: int) -> Example:
    return Example(
        f"q{number}", (tone(200 + 50 * number, 1.5),), f"question {number}", ("dog", "cat"), "dog",
        {"modality": "sound"}, meta={"timeline": TIMELINE},
    )  # fmt: skip


@pytest.mark.parametrize("make", [tiny_audio_flamingo3, tiny_qwen25_omni, tiny_fused])
def test_real_architectures_are_asked_everything(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights give no reasoning: it is put into their mouths, and all of its edits begin their turn.
    chain = Chain("<think>", "I hear dog [00:00]. Then cat [00:01].", "</think><answer>")

    def with_chains(found: Sequence[Item], *_: object) -> list[Item]:
        texts = ("A dog is heard.", "Then a cat.")
        return [replace(item, chain=chain, paraphrased=texts, mistaken=texts) for item in found]

    monkeypatch.setattr(audit_module, "_with_chains", with_chains)
    engine = load_local(str(make(tmp_path / "model")), threads=1)
    language = replace(general_language(), rewriter=WorldRewriter(), judge=WorldJudge())
    run = RunDirectory(tmp_path / "run")
    finding = audit(
        engine, [example(0), example(1)], run, language=language, sampling=Sampling(max_new_tokens=4), batch_size=16
    )
    asked = {row["probe"] for row in finding.records}
    assert asked >= {"clean", "again", "silence", "noise", "mask", "guided", "occlusion", "attack_splice_option_wrong"}
    assert asked >= {"attack_overlay_statement_wrong", "early", "filler", "paraphrase", "mistake", "continued"}
    assert {row["outcome"] for row in finding.records} <= {"correct", "wrong", "malformed", "unfinished", "abstained"}
    assert all(row["heard"]["seconds_heard"] for row in finding.records if row["probe"] not in ("question_only",))
    assert finding.metrics["holistic"].n == finding.metrics["cot_to_answer"].n == 2
    # Everything is there: nothing is computed again.
    again = RunDirectory(tmp_path / "run")
    assert audit(
        engine, [example(0), example(1)], again, language=language, sampling=Sampling(max_new_tokens=4), batch_size=16
    ).metrics == finding.metrics  # fmt: skip
    assert again.computed == 0


def test_sampled_replies_are_drawn_again_by_another_seed(tmp_path: Path) -> None:
    seeds: list[int] = []

    class Sampled(FakeEngine):
        def generate(self, conversations: Sequence[object], sampling: Sampling) -> list[object]:  # type: ignore[override]
            seeds.append(sampling.seed)
            return super().generate(conversations, sampling)  # type: ignore[arg-type,return-value]

    engine = Sampled(lambda _: "<answer>dog</answer>")
    audit(engine, [example(0)], tmp_path, probes=["again"], sampling=Sampling(temperature=1.0, seed=7))
    assert seeds == [7, 8]


def test_what_was_not_asked_is_counted_with_its_reason(tmp_path: Path) -> None:
    examples = [example(0), replace(example(1), meta={}), replace(example(2), groups={"modality": "speech"})]
    finding = audit(constant("<answer>dog</answer>"), examples, tmp_path, language=world_language())
    rows = {(row[0], row[2]): row[1] for row in finding.tables[-1].rows}
    assert rows["guided", "nobody annotated when speech is heard (meta.timeline)"] == 1
    assert rows["early", "it gave no reasoning"] == 3
    why = "it asks about speech: the injected words would be part of what is asked about"
    assert rows["attack_splice_option_wrong", why] == rows["attack_overlay_statement_wrong", why] == 1


def test_failures_are_no_answers_and_no_claims(tmp_path: Path) -> None:
    examples = [example(0), example(1)]
    finding = audit(FakeEngine(lambda _: None), examples, tmp_path, language=world_language())
    assert finding.metrics["accuracy"].value == 0
    assert finding.metrics["abstention.silence"].value == 0
    assert finding.metrics["hallucination_free"].value == 0
    assert "attentive" not in finding.metrics
    assert any("requests failed" in note and "2 of clean" in note for note in finding.notes)


def test_only_the_named_probes_are_asked(tmp_path: Path) -> None:
    finding = audit(constant("<answer>dog</answer>"), [example(0)], tmp_path, probes=["attack", "silence"])
    assert {row["probe"] for row in finding.records} == {
        "clean", "silence",
        *(f"attack_{mode}_{told}" for mode in ("splice", "overlay")
          for told in ("option_wrong", "option_right", "statement_wrong")),
    }  # fmt: skip
    with pytest.raises(RecipeError, match="mistake needs a model that rewrites: give --rewriter"):
        audit(constant("x"), [example(0)], tmp_path / "other", probes=["mistake"])
    rewriting = replace(general_language(), rewriter=WorldRewriter())
    said = constant("<think>I hear a dog. Then a cat. So it is a dog.</think><answer>dog</answer>")
    finding = audit(said, [example(0)], tmp_path / "third", language=rewriting, probes=["mistake"])
    assert {row["probe"] for row in finding.records} == {"clean", "mistake", "continued"}


def test_faults_are_named_before_anything_is_asked(tmp_path: Path) -> None:
    engine = constant("x")
    with pytest.raises(RecipeError, match="no probe called 'nosie': did you mean 'noise'"):
        audit(engine, [example(0)], tmp_path, probes=["nosie"])
    torn = replace(example(1), meta={"timeline": [{"kind": "speech", "start_s": 0}]})
    with pytest.raises(ManifestError, match=r"q1: an event of meta\.timeline has no name"):
        audit(engine, [torn], tmp_path)
    event = TIMELINE[0]
    for timeline, said in (
        ("oops", "is a str: give a list"),
        ([5], "is a int: give kind"),
        ([{**event, "kind": "noise"}], "kind is 'noise': it is one of sound, music, speech"),
        ([{**event, "start_s": 3, "end_s": 1}], "lasts from 3 to 1"),
        ([{**event, "end_s": float("nan")}], "lasts from 0.1 to nan"),
        ([{**event, "start_s": "x"}], "lasts from 'x'"),
    ):
        with pytest.raises(ManifestError, match=said):
            audit(engine, [replace(example(1), meta={"timeline": timeline})], tmp_path)
    with pytest.raises(RecipeError, match="mistake lets the model go on"):
        audit(engine, [example(0)], tmp_path, language=world_language(), probes=["mistake"], in_user_turn=True)
    two = replace(example(0), audio=(tone(200, 1), tone(300, 1)))
    with pytest.raises(ManifestError, match="q0: 2 clips, 1 is asked about"):
        audit(engine, [two], tmp_path)
    engine.capabilities = Capabilities()
    with pytest.raises(ModelError, match=r"--user-turn.*continues_assistant"):
        audit(engine, [example(0)], tmp_path)
    assert engine.asked == []
    audit(engine, [example(0)], tmp_path, in_user_turn=True)
    audit(engine, [example(0)], tmp_path / "audio", probes=["noise"])


def test_worst_examples_are_both_to_be_heard(tmp_path: Path) -> None:
    examples = items(12)
    language = world_language()
    finding = audit(Reader(examples, obeys=True).engine("obeys"), examples, tmp_path, language=language)
    shown = clean_alone(finding)
    assert [row["id"] for row in shown.records] == [each.id for each in examples]
    assert all(len(row["occlusion"]) == 8 for row in shown.records)
    moved = {row["id"]: [window["moved"] for window in row["occlusion"]] for row in shown.records}
    assert any(any(own) and not all(own) for own in moved.values())
    pairs = faults_of(finding)
    assert pairs
    for before, after, fault in pairs:
        assert before["id"] == after["id"]
        assert fault.startswith("obeys an injected voice")
        own = next(each for each in examples if each.id == before["id"])
        assert edited_clip(own, examples, language, after["probe"], after["value"]) != own.clip


def test_faults_are_on_the_commands_page_with_both_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "mine.jsonl"
    save_manifest(items(4), manifest)
    examples = load_manifest(manifest)
    # As files their clips have the files' names.
    engine = Reader([example.with_clips(example.clip) for example in examples], obeys=True, timelines=items(4)).engine(
        "obeys"
    )
    monkeypatch.setattr("earnest.engines.load", lambda *_, **__: engine)
    monkeypatch.setattr("earnest.engines.model_key", lambda *_: "obeys")
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as done:
        main(["audit", "m", "--data", str(manifest), "--concern", "faithfulness", "--words", "pocket", "-o", str(out)])
    assert done.value.code == 0
    page = (out / "scorecard.html").read_text()
    shown = int(page.partition(" faults to listen to")[0].rpartition(">")[2])
    assert shown >= 1
    assert page.count("<audio") == len(examples) + 2 * shown
    assert "obeys an injected voice" in page
    assert page.count('id="test-') == len(examples)


def test_the_command_writes_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "mine.jsonl"
    save_manifest([example(number) for number in range(3)], manifest)
    folder = tiny_fused(tmp_path / "model")
    out = tmp_path / "run"
    command = ["audit", str(folder), "--data", str(manifest), "--concern", "faithfulness", "--max-new-tokens", "3"]
    with pytest.raises(SystemExit) as done:
        main([*command, "-o", str(out), "--words", "pocket", "--probe", "noise", "--probe", "occlusion"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert "Controls, n = 3" in said
    metrics: Mapping[str, object] = json.loads((out / "metrics.json").read_text())
    assert {"faithfulness.accuracy", "faithfulness.accuracy.noise_-20", "faithfulness.consistency.noise_20"} <= set(
        metrics
    )
    assert "Noise and masks" in said
    assert "holistic (needs mask and question_only)" in said
    assert {row["probe"] for row in read_records(out)} == {"clean", "noise", "occlusion"}
    page = (out / "scorecard.html").read_text()
    assert 'class="occlusion"' in page
    assert "White noise" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--concern", "faithfulness", "--probe", "nosie"], "no probe called 'nosie'"),
        (["--concern", "faithfulness", "--words", "klingon"], "no words called 'klingon'"),
        (["--concern", "faithfulness", "--question-only"], "--question-only goes with --concern answers"),
        (["--concern", "faithfulness", "--idk-adapters", "x"], "goes with --concern reliability"),
        (["--judge", "pocket"], "--judge goes with --concern faithfulness"),
        (["--concern", "faithfulness", "--judge", "no such model"], "no model called 'no such model'"),
        (["--concern", "faithfulness", "--probe", "mistake", "--user-turn"], "leave out --user-turn"),
    ],
)
def test_options_are_checked_before_a_model_is_loaded(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match=r"[12]"):
        main(["audit", "pocket", *options])
    assert said in capsys.readouterr().err


def test_a_judge_that_does_not_answer_is_said_before_the_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "mine.jsonl"
    save_manifest([example(0)], manifest)
    asked = constant("<answer>dog</answer>", log=tmp_path / "asked")
    dead = FakeEngine(lambda _: None, name="judge")
    monkeypatch.setattr("earnest.engines.load", lambda name, **_: dead if name == "judge" else asked)
    monkeypatch.setattr("earnest.engines.model_key", lambda *_: "m")
    command = ["audit", "m", "--data", str(manifest), "--concern", "faithfulness", "--judge", "judge"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "-o", str(tmp_path / "run")])
    assert "the judge judge does not answer (too long for the fake)" in capsys.readouterr().err
    assert not (tmp_path / "asked").exists()
