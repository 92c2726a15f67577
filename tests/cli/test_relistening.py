"""`earnest audit --concern relistening` and `earnest ask --relisten`: what is shown, and what is refused first."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine
from tests.tiny import tiny_fused, tiny_pocket, tone
from tests.tiny_citing import TRACE, engine_of, question, taught
from transformers import AutoModelForCausalLM, AutoProcessor

from earnest.cli import main
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import Capabilities
from earnest.engines.families.added_ears import save_added
from earnest.example import Example, save_manifest
from earnest.files import read_json_lines
from earnest.prompts import Prompt
from earnest.relistening import long_scenes
from earnest.relistening.loop import WORDS
from earnest.relistening.scan import EAR, ScanSettings, with_scan
from earnest.training.lora_trainer import LoraSettings
from earnest.training.sft import Lesson, fine_tune

GENERAL = Prompt.load("relistening", WORDS["general"])


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    # What making a model shows is no part of it.
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    # The box in which a message stands breaks lines.
    return int(stop.value.code or 0), shown.out, " ".join(shown.err.replace("│", " ").split())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and a folder with adapters of two stages that cite."""
    root = tmp_path_factory.mktemp("citing")
    model = tiny_fused(root / "model")
    taught(model, root / "adapters" / "sft", GENERAL)
    (root / "adapters" / "grpo").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (root / "adapters" / "grpo" / name).write_bytes((root / "adapters" / "sft" / name).read_bytes())
    return model, root / "adapters"


def manifest(folder: Path) -> Path:
    """Three questions, one of which is answered wrongly."""
    timeline = [{"kind": "sound", "name": "dog", "start_s": 1.0, "end_s": 2.0}]
    rows = [
        replace(question(0, modality="sound"), meta={"timeline": timeline}), question(1, modality="music"),
        replace(question(1, "cat", modality="music"), id="cat"),
    ]  # fmt: skip
    save_manifest(rows, folder / "mine.jsonl")
    return folder / "mine.jsonl"


def audit_of(model: Path, data: Path, output: Path, *more: object) -> tuple[object, ...]:
    fixed = ("--max-new-tokens", 60, "--threads", 1, "--device", "cpu", "-o", output)
    return ("audit", model, "--concern", "relistening", "--data", data, *fixed, *more)


# ---- audit


def test_the_audit_and_its_page(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, adapters = folders
    command = audit_of(model, manifest(tmp_path), tmp_path / "run", "--relistening-adapters", adapters)
    code, shown, error = run(capsys, *command)
    assert (code, error) == (0, "")
    assert "Going back to the audio" in shown
    for condition in (
        "single, sft",
        "ours, sft",
        "single, grpo",
        "ours, grpo",
        "silence, grpo",
        "oracle segment, grpo",
    ):
        assert condition in shown
    assert "3 segments were cited, 0 of them invalid; 0 of 3 replies cite none." in shown
    assert "correct 2, wrong 1" in shown
    metrics: dict[str, Any] = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["relistening.accuracy.ours_grpo"]["n"] == 3
    assert metrics["relistening.hit_rate"]["value"] == 1.0
    assert metrics["relistening.accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert "relistening.accuracy.whole_fine" in metrics
    records = read_json_lines(tmp_path / "run" / "records.jsonl")
    assert [record["reply"] for record in records] == [TRACE.text] * 3

    page = (tmp_path / "run" / "scorecard.html").read_text()
    # Of each example the clip, and the stretch that its reply cites.
    assert page.count("<audio") == 6
    assert page.count("heard again, 1.0-2.0 s") == 6, "beside the player, and over the bar"
    assert page.count("<code>&lt;seg&gt;1, 2&lt;/seg&gt;</code>") == 3
    assert page.count('class="reheard"') == 3
    assert re.search(r'class="reheard" style="left:33\.33\d*%;width:33\.33\d*%"', page)
    assert "Solid bars below mark what was heard again." in page

    code, shown, _ = run(capsys, *command)
    assert code == 0
    assert "\n0 computed, " in shown


def test_what_was_not_heard_is_said_on_the_page(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, adapters = folders
    data = manifest(tmp_path)
    more = ("--adapter", adapters / "sft", "--total-s", 0, "-n", 1)
    code, shown, _ = run(capsys, *audit_of(model, data, tmp_path / "run", *more))
    assert code == 0
    assert "1 of them invalid (spent 1)" in shown
    page = (tmp_path / "run" / "scorecard.html").read_text()
    assert "not heard: spent" in page
    assert "heard again, 1.0-2.0 s" not in page
    assert page.count("<audio") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["relistening.heard_again_s"]["value"] == 0.0
    assert "relistening.accuracy.ours_model" in metrics
    code, _, error = run(capsys, *audit_of(model, data, tmp_path / "run", "--adapter", adapters / "sft", "-n", 1))
    assert code == 2
    assert "holds another run: bounds is" in error, "another bound is another run"


def test_adapters_that_come_with_ears_are_heard_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_pocket(tmp_path / "model")
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    both, _ = with_scan(
        base, AutoProcessor.from_pretrained(model), ScanSettings(width=16, blocks=1, adapter_width=16, stride=4)
    )
    save_added(both, tmp_path / "ears", (EAR,), ("first",), {"fine": "first"})
    lessons = [Lesson(lambda: Conversation().user("hello"), "dog")]
    settings = LoraSettings(rank=2, learning_rate=1e-2)
    for name in ("zeal", "sft", "grpo"):
        family = engine_of(model).family
        fine_tune(family, lessons, settings, tmp_path / "ears" / name, log=lambda _: None)
    data = manifest(tmp_path)
    command = audit_of(model, data, tmp_path / "run", "--no-report", "--words", "pocket", "--max-new-tokens", 4)
    code, shown, error = run(capsys, *command, "--relistening-adapters", tmp_path / "ears")
    assert (code, error) == (0, "")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # sft first, the rest by name; the finer pass is there because the ears are worn.
    assert {f"relistening.accuracy.{name}" for name in ("ours_sft", "ours_grpo", "ours_zeal", "whole_fine")} <= set(
        metrics
    )
    assert "relistening.accuracy.single_grpo" in metrics and "relistening.accuracy.single_zeal" not in metrics
    assert "as 9 audio tokens" in shown, "three clips of 3 s, a token a second"
    (tmp_path / "mixed").mkdir()
    for name, source in (("one", tmp_path / "ears" / "sft"), ("two", tmp_path / "ears" / "grpo")):
        (tmp_path / "mixed" / name).mkdir()
        for file in source.iterdir():
            if file.is_file():
                (tmp_path / "mixed" / name / file.name).write_bytes(file.read_bytes())
    for file in (tmp_path / "ears").iterdir():
        if file.is_file():
            (tmp_path / "mixed" / "one" / file.name).write_bytes(file.read_bytes())
    code, _, error = run(capsys, *command, "--relistening-adapters", tmp_path / "mixed")
    assert code == 2
    assert "come with different ears: audit them one by one" in error


def test_the_worlds_long_scenes_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(long_scenes, "render", lambda scene: tone(200 + len(scene.events), scene.duration_s))
    monkeypatch.chdir(tmp_path)
    model = tiny_pocket(tmp_path / "model")
    small = ("-n", 2, "--workers", 1, "--threads", 1, "--device", "cpu", "--max-new-tokens", 4)
    command = ("audit", "model", "--concern", "relistening", *small)
    code, _, error = run(capsys, *command)
    assert (code, error) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"model-[0-9a-f]{8}-world-test-seed0-n2-relistening", folder.name)
    assert [row["id"] for row in read_json_lines(folder / "records.jsonl")] == [
        "long-test-0-000000-0", "long-test-0-000001-0",
    ]  # fmt: skip
    page = (folder / "scorecard.html").read_text()
    assert 'class="bar sound"' in page, "the timeline is shown"
    code, shown, _ = run(capsys, *command)
    assert "\n0 computed, " in shown
    # Other scenes get a folder of their own: old runs are not in the way.
    monkeypatch.setattr(long_scenes, "long_version", lambda: "another")
    code, _, error = run(capsys, *command)
    assert (code, error) == (0, "")
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert model.is_dir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--relistening-adapters", "x"], "--relistening-adapters: goes with --concern relistening"),
        (["--concern", "safety", "--total-s", "3"], "--total-s: goes with --concern relistening"),
        (["--concern", "relistening", "--samples", "3"], "--samples: goes with --concern reliability"),
        (["--concern", "relistening", "--probe", "x.toml"], "--probe: goes with --concern faithfulness"),
        (["--concern", "relistening", "--safety-adapters", "x"], "--safety-adapters: goes with --concern safety"),
        (["--concern", "relistening", "--judge", "pocket"], "--judge goes with --concern faithfulness or safety"),
        (["--concern", "relistening", "--bank", "."], "long scenes are rendered by the world itself"),
        (["--concern", "relistening", "--question-only"], "--question-only goes with --concern answers"),
        (
            ["--concern", "relistening", "--adapter", "x", "--relistening-adapters", "y"],
            "are held against it: give one",
        ),
        (["--concern", "relistening", "--relistening-adapters", "nowhere"], "nowhere holds no adapter"),
        (["--concern", "relistening", "--words", "mine"], "no words called 'mine': known are general, pocket"),
        (["--concern", "relistening", "--total-s", "-1"], "should be greater than or equal to 0"),
        (["--concern", "relistening", "--split", "tset"], "split 'tset' is unknown"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "audit", "pocket", *arguments)
    assert code == 2
    assert says in error
    assert not (tmp_path / "runs").exists()


def test_a_server_takes_no_adapter_and_segments_are_of_one_clip(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = (
        "audit",
        "server:http://127.0.0.1:1/v1#m",
        "--concern",
        "relistening",
        "--relistening-adapters",
        folders[1],
    )
    code, _, error = run(capsys, *served)
    assert code == 2
    assert "is behind a server, which takes no adapter from here: leave out --relistening-adapters" in error
    two = Example("two", (tone(300, 1.0), tone(400, 1.0)), "what?", ("dog", "cat"), "dog")
    save_manifest([two], tmp_path / "two.jsonl")
    code, _, error = run(capsys, *audit_of(folders[0], tmp_path / "two.jsonl", tmp_path / "run"))
    assert code == 2
    assert "2 clips in a row: 1 is asked about" in error
    assert not (tmp_path / "run").exists()


# ---- ask


def test_ask_prints_the_reasoning_and_what_is_heard_again(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, adapters = folders
    clip = question(0).clip.save(tmp_path / "dog.wav")
    asked = ("ask", model, clip, "what 0?", "--choices", "dog;cat", "--adapter", adapters / "sft", "--threads", 1)
    code, shown, error = run(capsys, *asked, "--device", "cpu", "--relisten")
    assert (code, error) == (0, "")
    lines = shown.splitlines()
    assert lines[:3] == [TRACE.texts[0], "  [hears 1 to 2 s again]", TRACE.texts[1].strip()]
    assert [line for line in lines[3:] if line.startswith(("answer", "out"))] == [
        "answer     dog",
        "outcome    answered",
    ]
    assert any("4.0 of 4.0 s" in line for line in lines), "the clip, and a second of it again"
    assert not any(line.startswith("reasoning") for line in lines), "it stands above"
    code, shown, _ = run(capsys, *asked, "--device", "cpu")
    assert "hears" not in shown
    assert "3.0 of 3.0 s" in shown


class Slow(FakeEngine):
    """Cites what is no segment, then one; notes what is on the screen before each generation."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(lambda _: "")
        self.capabilities = Capabilities(continues_assistant=True, audio_in_assistant=True)
        self.capsys = capsys
        self.shown: list[str] = []

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling | Sequence[Sampling]
    ) -> list[Completion]:
        self.shown.append(self.capsys.readouterr().out)
        (conversation,) = conversations
        texts = ["<think> first <seg>2, 1</seg>", " no, <seg>0.5, 1.25</seg>", " so.</think><answer>dog</answer>"]
        text = texts[len(self.shown) - 1]
        assert len([part for part in conversation.audio if isinstance(part, Audio)]) == (
            2 if len(self.shown) == 3 else 1
        )
        stop = Stop.STOP_STRING if text.endswith("</seg>") else Stop.END
        return [replace(self._complete(conversation), text=text, stop=stop)]


def test_segments_are_shown_as_they_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Slow(capsys)
    monkeypatch.setattr("earnest.engines.load", lambda *_, **__: engine)
    clip = tone(300, 2.0).save(tmp_path / "a.wav")
    code, shown, _ = run(capsys, "ask", "any/model", clip, "what?", "--choices", "dog;cat", "--relisten")
    assert code == 0
    assert engine.shown == [
        "", "<think> first <seg>2, 1</seg>\n  [not heard: inverted]\n",
        "no, <seg>0.5, 1.25</seg>\n  [hears 0.5 to 1.25 s again]\n",
    ]  # fmt: skip
    assert shown.startswith("so.</think><answer>dog</answer>\n")
    assert "outcome    answered" in shown


def test_a_reply_that_failed_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("earnest.engines.load", lambda *_, **__: FakeEngine(lambda _: None))
    clip = tone(300, 2.0).save(tmp_path / "a.wav")
    code, shown, _ = run(capsys, "ask", "any/model", clip, "what?", "--relisten")
    assert code == 1
    assert "failed" in shown


def test_pocket_without_its_adapter_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("earnest.pocket.relistening_adapters", lambda: None)
    clip = tone(300, 2.0).save(tmp_path / "a.wav")
    code, _, error = run(capsys, "ask", "pocket", clip, "what?", "--relisten")
    assert code == 2
    assert "pocket has no adapter of re-listening: earnest train recipes/pocket/relisten-rl.toml" in error
