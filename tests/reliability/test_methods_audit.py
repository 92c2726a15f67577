"""The audit end to end over a model whose knowledge is known."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes import FakeEngine
from tests.tiny import tone

from earnest.cli import main
from earnest.conversation import Conversation
from earnest.errors import ManifestError, RecipeError
from earnest.example import Example
from earnest.grading import Outcome
from earnest.reliability.audit import audit
from earnest.reliability.gain import random_refusal
from earnest.reliability.prompting import untouched
from earnest.run import RunDirectory
from earnest.statistics import EndState

MODALITIES = ("sound", "music", "speech")


def example(number: int) -> Example:
    clip = tone(200 + number, 0.1)
    return Example(
        f"q{number}", (clip,), f"question {number}", ("dog", "cat"), "dog", {"modality": MODALITIES[number % 3]}
    )


def answers(conversation: Conversation) -> str:
    """Right on even questions; of the odd ones it doubts every third, and says so where it may."""
    text = conversation.turns[-1].text
    if "question" not in text:
        return "sound."
    number = int(text.split("question ")[1].split("\n")[0])
    may = "I don't know" in text
    if number % 2 == 0:
        return "<answer> i don't know</answer>" if may and number % 20 == 0 else "<answer> dog</answer>"
    return "<answer> i don't know</answer>" if may and number % 3 == 0 else "<answer> cat</answer>"


def test_methods_are_held_against_both_baselines(tmp_path: Path) -> None:
    examples = [example(number) for number in range(120)]
    engine = FakeEngine(answers)
    run = RunDirectory(tmp_path)
    finding = audit(engine, examples, run, batch_size=16, seed=3, control_items=0)
    metrics = finding.metrics
    assert metrics["untouched.accuracy"].value == metrics["forced.accuracy"].value == 0.5
    assert metrics["untouched.rejection"].value == 0
    # 6 of 60 right ones lost, 20 of 60 wrong ones removed.
    assert metrics["idk_prompt.conservativeness"].value == 6 / 120
    assert metrics["idk_prompt.humbleness"].value == 20 / 120
    assert metrics["idk_prompt.rgi_group"].value == pytest.approx(0.5229, abs=1e-4)
    state = EndState(54, 26, 120)
    assert metrics["idk_prompt.reliability"].value == pytest.approx(state.reliability)
    assert metrics["idk_prompt.over_random_refusal_of_forced"].value == pytest.approx(
        state.reliability - random_refusal(0.5, 26 / 120)
    )
    assert metrics["task_agent.rgi_group"] == metrics["idk_prompt.rgi_group"]
    assert {f"idk_prompt.rgi_group.{modality}" for modality in MODALITIES} <= metrics.keys()
    assert metrics["idk_prompt.conservativeness_group"].value == pytest.approx(6 / 60)
    assert metrics["idk_prompt.humbleness_group"].value == pytest.approx(20 / 60)
    known = metrics["idk_prompt.abstention_on_known"]
    assert (known.value, known.n) == (pytest.approx(6 / 60), 60)
    of_all = [metric for name, metric in metrics.items() if name.count(".") == 1 and not name.endswith("on_known")]
    assert all(metric.n == 120 for metric in of_all)
    assert [table.title for table in finding.tables] == [
        "Reliability: all, n = 120",
        *(f"Reliability: {modality}, n = 40" for modality in MODALITIES),
    ]  # fmt: skip
    assert [row[0] for row in finding.tables[0].rows] == [
        "untouched", "forced (forced-2)", "idk_prompt (idk-1)", "mcot (mcot-1)", "task_agent (task-agent-1)",
    ]  # fmt: skip
    assert len(finding.records) == 5 * 120
    assert sum(r["outcome"] is Outcome.ABSTAINED for r in finding.records if r["method"] == "mcot") == 26
    with pytest.raises(ManifestError, match="q0: the modality is 'all', as the total is called"):
        audit(engine, [replace(examples[0], id="q0", groups={"modality": "all"})], tmp_path / "all")
    asked = len(engine.asked)
    again = audit(engine, examples, RunDirectory(tmp_path), batch_size=16, seed=3, control_items=0)
    assert len(engine.asked) == asked, "nothing is computed twice"
    assert again.metrics == metrics


def test_the_command_prints_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tiny import tiny_fused

    for number in range(4):
        tone(300 + 100 * number, 0.5).save(tmp_path / f"{number}.wav")
    manifest = tmp_path / "m.csv"
    rows = "".join(f"{k}.wav,what is heard?,dog;cat,dog,sound\n" for k in range(4))
    manifest.write_text("audio,question,choices,answer,modality\n" + rows)
    model, out = str(tiny_fused(tmp_path / "tiny")), tmp_path / "run"
    asked = ["audit", model, "--data", str(manifest), "--concern", "reliability", "--output", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--max-new-tokens", "8", "--threads", "1"])
    assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "Reliability: all, n = 4" in shown
    assert "task_agent" in shown
    assert (out / "scorecard.html").stat().st_size > 10_000
    assert "reliability.idk_prompt.rgi_group" in (out / "metrics.json").read_text()
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--question-only"])
    assert ended.value.code == 2


def test_options_that_do_not_go_together_are_refused_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tone(300, 0.5).save(tmp_path / "a.wav")
    manifest = tmp_path / "m.csv"
    manifest.write_text("audio,question,choices,answer\na.wav,what is heard?,dog;cat,dog\n")
    asked = ["audit", "no-such-model", "--data", str(manifest)]
    faults = {
        "--samples": ["--samples", "3"],
        "give one": ["--concern", "reliability", "--adapter", "a", "--idk-adapters", "b"],
        "holds no adapter": ["--concern", "reliability", "--idk-adapters", str(tmp_path)],
        "no prompts called": ["--concern", "reliability", "--words", "loud"],
    }
    for text, options in faults.items():
        with pytest.raises(SystemExit) as ended:
            main([*asked, *options])
        assert ended.value.code == 2
        assert text in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_gain_needs_both_baselines(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no method called forced"):
        audit(FakeEngine(answers), [example(1)], tmp_path, chosen=[untouched()])


def test_items_without_answers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="q1: no answer"):
        audit(FakeEngine(answers), [Example("q1", (tone(1, 0.1),), "?", None, None)], tmp_path)
