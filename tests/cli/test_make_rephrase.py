"""`earnest make questions` and `earnest make rephrase`: pocket through the world, other models, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine

from earnest.alignment.leaks import leak
from earnest.alignment.rows import Surrogate, Target, load_rows, save_rows
from earnest.cli import main
from earnest.conversation import Conversation
from earnest.engines import Capabilities
from earnest.engines.families.family import find_family
from earnest.files import read_json_lines, write_json_lines
from earnest.pocket.clips import adapter_scene
from earnest.run import read_metrics
from earnest.world.surrogates import scene_surrogate


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(("make", *map(str, arguments)))
    shown = capsys.readouterr()
    return int(stop.value.code or 0), shown.out, shown.err


def world(folder: Path, count: int = 8) -> Path:
    scenes = [adapter_scene("train", 5, number) for number in range(count)]
    folder.mkdir(exist_ok=True)
    write_json_lines(folder / "scenes.jsonl", (scene.to_json() for scene in scenes))
    rows = [
        Surrogate(
            scene.id, folder / "audio" / f"{scene.id}.flac", scene_surrogate(scene), scene.duration_s, corpus="world",
            instruction=scene.extra["genre"] == "request",
        )
        for scene in scenes
    ]  # fmt: skip
    save_rows(rows, folder / "surrogates.jsonl")
    return folder / "surrogates.jsonl"


def clips(folder: Path, count: int = 3) -> Path:
    rows = [Surrogate(f"c{k}", folder / f"{k}.wav", f"[00:00-00:03] |dog {k}|", 3.0) for k in range(count)]
    save_rows(rows, folder / "surrogates.jsonl")
    return folder / "surrogates.jsonl"


class Models:
    """Engines by name, and which of them were loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reply: Callable[[str, str], str | None]) -> None:
        self.loaded: list[str] = []
        self.engines: dict[str, FakeEngine] = {}
        self.reply = reply
        monkeypatch.setattr("earnest.engines.load", self.load)
        monkeypatch.setattr("earnest.engines.model_key", lambda name, *_: f"key of {name}")
        monkeypatch.setattr(import_module("earnest.engines.load"), "require_loadable", lambda _: None)

    def load(self, name: str, **_: Any) -> FakeEngine:
        self.loaded.append(name)

        def reply(conversation: Conversation) -> str | None:
            return self.reply(name, conversation.turns[0].text)

        return self.engines.setdefault(name, FakeEngine(reply, name=name))


def replies(name: str, text: str) -> str | None:
    if "things that somebody" in text:
        return "1. What is it?\n2. What does the caption say?"
    if "Judge what is asked" in text:
        return "Verdict: valid"
    if text.startswith("<start_audio>"):
        return "The description says: a dog."
    return "<answer>What I can hear is a dog.</answer>"


def test_pocket_is_asked_about_the_world_and_rephrases_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = world(tmp_path / "world")
    asked, out = tmp_path / "asked", tmp_path / "out"
    code, shown, _ = run(capsys, "questions", asked, "--data", data, "--world", "--per-clip", 4)
    assert code == 0 and "8 clips: 32 questions" in shown
    arguments = ("rephrase", out, "--data", asked / "questions.jsonl", "--model", "pocket", "--only-leaking")
    code, shown, _ = run(capsys, *arguments, "--threads", 1)
    assert code == 0, shown
    rows = load_rows(out / "targets.jsonl", Target)
    assert not any(leak(row.target or "") for row in rows)
    assert all(row.audio.parent.name == "audio" for row in rows)
    card = json.loads((out / "card.json").read_text())
    assert card["rows"] == 32 == card["targets"] + card["rejected"]
    assert set(card["reasons"]) >= {"rephrased", "no leak", "spoken instruction"}
    metrics = read_metrics(out)
    assert metrics["alignment.leak.raw_of_all"].value > 0.2
    assert metrics["alignment.leak_reduction"].value == 1.0
    assert metrics["alignment.leak.rephrased"].value == 0.0
    assert 0.5 < metrics["alignment.nll_same.ratio"].value < 2.0
    assert {"alignment.nll.raw", "alignment.nll.rephrased", "alignment.nll.ground_truth"} <= set(metrics)
    assert "What rephrasing did" in shown and "of these leaks rephrasing removed: 100.0 %" in shown
    before = (out / "targets.jsonl").read_bytes()
    code, shown, _ = run(capsys, *arguments, "--threads", 1, "--score", 0, "--against", f"twin={out}")
    assert code == 0 and "requests: 0 computed" in shown
    assert (out / "targets.jsonl").read_bytes() == before
    assert "alignment.leak.twin" in read_metrics(out) and "alignment.nll.raw" not in read_metrics(out)


def test_other_models_write_judge_and_rephrase_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models(monkeypatch, replies)
    data = clips(tmp_path)
    arguments = ("questions", tmp_path / "asked", "--data", data, "--writer", "w", "--judge", "j")
    code, shown, _ = run(capsys, *arguments)
    assert code == 0 and "3 clips: 3 questions, 1 of them different" in shown
    assert models.loaded == ["w", "j"]
    code, shown, _ = run(capsys, *arguments)
    assert code == 0 and "0 computed" in shown and models.loaded == ["w", "j"]
    questions = tmp_path / "asked" / "questions.jsonl"
    out = tmp_path / "out"
    arguments = ("rephrase", out, "--data", questions, "--model", "a", "--rephraser", "b")
    code, shown, _ = run(capsys, *arguments, "--score", 0)
    assert code == 0 and "3 rows: 3 targets" in shown
    assert models.loaded == ["w", "j", "a", "b"]
    assert {row.target for row in load_rows(out / "targets.jsonl", Target)} == {"What I can hear is a dog."}
    code, shown, _ = run(capsys, *arguments)
    assert code == 0 and "no likelihoods" in shown
    code, _, err = run(capsys, *arguments, "--keep-raw")
    assert code != 0 and "keep_raw is False there, True here" in err


def test_a_run_without_any_target_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Models(monkeypatch, lambda name, text: replies(name, text) if "Edit the reply" not in text else "no")
    data = clips(tmp_path)
    run(capsys, "questions", tmp_path / "asked", "--data", data, "--writer", "w")
    questions = tmp_path / "asked" / "questions.jsonl"
    out = tmp_path / "out"
    code, _, err = run(capsys, "rephrase", out, "--data", questions, "--model", "a")
    assert code != 0 and "none of 3 rows has a target, most often for: no answer tag" in " ".join(err.split())
    assert [row["said"] for row in read_json_lines(out / "rejected.jsonl")] == ["no"] * 3


def test_what_cannot_be_done_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clips(tmp_path)
    models = Models(monkeypatch, replies)
    asked = tmp_path / "asked"
    for wrong in ((), ("--world", "--writer", "w")):
        code, _, err = run(capsys, "questions", asked, "--data", data, *wrong)
        assert code != 0 and "either --writer MODEL, or --world" in " ".join(err.replace("│", " ").split())
    code, _, err = run(capsys, "questions", asked, "--data", data, "--world")
    assert code != 0 and "scenes.jsonl" in err
    for way in ("--writer", "pocket"), ("--writer", "w", "--judge", "pocket"):
        code, _, err = run(capsys, "questions", asked, "--data", data, *way)
        assert code != 0 and "pocket writes and judges no questions" in err and not asked.exists()
    code, _, err = run(capsys, "questions", asked, "--data", data, "--writer", "w", "--actors", 3)
    assert code != 0 and "only with --ray" in err
    with monkeypatch.context() as patch:
        patch.setattr(import_module("earnest.engines.load"), "require_loadable", find_family)
        code, _, err = run(capsys, "questions", asked, "--data", data, "--writer", "w")
        # The folder is not taken by a model that cannot answer.
        assert code != 0 and "no family" in err and not asked.exists()
    run(capsys, "questions", asked, "--data", data, "--writer", "w")
    models.loaded.clear()
    served = models.load("openai/x")
    served.capabilities = Capabilities()
    arguments = ("rephrase", tmp_path / "out", "--data", asked / "questions.jsonl", "--model", "openai/x")
    code, _, err = run(capsys, *arguments)
    assert code != 0 and "continues_assistant" in err and "--thinking-tokens 0" in " ".join(err.split())
    assert not served.asked
    code, shown, _ = run(capsys, *arguments, "--thinking-tokens", 0, "--score", 0)
    assert code == 0, shown
    code, _, err = run(capsys, *arguments, "--against", "nothing")
    assert code != 0 and "NAME=FOLDER" in err
