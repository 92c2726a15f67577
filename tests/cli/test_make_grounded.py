"""`earnest make grounded`: from metadata by models, from the world, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine

from earnest.audio import Clip
from earnest.cli import main
from earnest.conversation import Conversation
from earnest.example import load_manifest


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(("make", "grounded", *map(str, arguments)))
    shown = capsys.readouterr()
    return int(stop.value.code or 0), shown.out, shown.err


def metadata(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        Clip.silence(5.0).save(folder / f"{number}.wav")
    rows = [
        {"audio": f"{k}.wav", "description": f"clip {k}", "events": [{"start": 1, "end": 3, "label": "dog"}]}
        for k in range(count)
    ]
    file = folder / "metadata.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


class Models:
    """Engines by name, and which of them were loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines: dict[str, FakeEngine] = {}
        self.loaded: list[str] = []
        self.bad: set[str] = set()
        monkeypatch.setattr("earnest.engines.load", self.load)
        monkeypatch.setattr("earnest.engines.model_key", lambda name, *_: f"key of {name}")

    def load(self, name: str, **_: Any) -> FakeEngine:
        self.loaded.append(name)
        return self.engines.setdefault(name, FakeEngine(self.reply, name=name))

    def reply(self, conversation: Conversation) -> str | None:
        text = conversation.turns[-1].text
        if conversation.audio:
            return "a horn." if "Describe this" in text else "no music."
        if "Write one" not in text:
            return "Verdict: invalid" if "clip 1" in text and "Judge the reasoning" in text else "Verdict: valid"
        if any(f"clip {name}" in text for name in self.bad):
            return "no"
        cot = "first <seg>1, 3</seg> a dog barks. The answer is a dog."
        draft = {"question": "What barks?", "options": ["a cat", "a dog"], "answer": "a dog", "cot": cot}
        return f"```json\n{json.dumps(draft)}\n```"


def test_from_metadata_with_a_judge_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Models(monkeypatch)
    models.bad = {"2"}
    file, out = metadata(tmp_path), tmp_path / "out"
    command = (out, "--data", file, "--writer", "wug", "--judge", "dax")
    code, shown, _ = run(capsys, *command)
    assert code == 0
    assert models.loaded == ["wug", "dax"]
    assert [len(models.engines[name].asked) for name in ("wug", "dax")] == [3, 4]
    assert shown.splitlines() == [
        "requests: 7 computed, 0 reused", "3 clips: 1 sft, 1 rl, 1 rejected",
        "  rejected for malformed: 1, 33.3 % [6.1, 79.2], n = 3",
        "  reasoning rejected for cot_invalid: 1, 50.0 % [9.5, 90.5], n = 2",
        "reasoning: 9.0 words and 1.0 citations of 2.0 s on average",
        f"lessons: {out / 'sft.jsonl'} and rl.jsonl, rejected.jsonl, card.json",
    ]  # fmt: skip
    card = json.loads((out / "card.json").read_text())
    assert (card["writer"], card["judge"]) == ("wug", "dax")
    assert card["prompts"] == ["grounded-writer-1", "grounded-judge-1"]
    assert [example.id for example in load_manifest(out / "sft.jsonl")] == ["line-1"]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, shown, _ = run(capsys, *command)
    assert (code, shown.splitlines()[0]) == (0, "requests: 0 computed, 7 reused")
    assert models.loaded == ["wug", "dax"], "a run that is finished loads no model"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    code, _, error = run(capsys, out, "--data", file, "--writer", "dax")
    assert code == 2
    assert "holds another run" in error


def test_a_describer_listens_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Models(monkeypatch)
    file, out = metadata(tmp_path), tmp_path / "out"
    code, _, _ = run(capsys, out, "--data", file, "--writer", "wug", "--describer", "blick")
    assert code == 0
    assert models.loaded == ["blick", "wug"]
    # Each has a description: speech and music are asked for; three clips of silence are one.
    assert len(models.engines["blick"].asked) == 2
    card = json.loads((out / "card.json").read_text())
    assert (card["describer"], card["undescribed"]) == ("blick", 0)
    assert card["prompts"] == ["grounded-describer-1", "grounded-writer-1", "grounded-judge-1"]
    code, _, error = run(capsys, tmp_path / "world", "--world", 1, "--describer", "blick")
    assert code == 2 and "--describer: only with --data" in error


def test_the_writer_judges_by_default_and_a_limit_can_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Models(monkeypatch)
    command = (tmp_path / "out", "--data", metadata(tmp_path), "--writer", "wug")
    assert run(capsys, *command, "-n", "1")[0] == 0
    assert models.loaded == ["wug"]
    code, shown, _ = run(capsys, *command)
    assert code == 0
    assert shown.splitlines()[:2] == ["requests: 6 computed, 3 reused", "3 clips: 2 sft, 1 rl, 0 rejected"]


def test_where_nothing_can_be_used_the_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Models(monkeypatch)
    models.bad = {"0", "1"}
    out = tmp_path / "out"
    code, _, error = run(capsys, out, "--data", metadata(tmp_path, 2), "--writer", "wug")
    assert code == 2
    assert "none of 2 clips gave a question that can be used, most often for malformed (no JSON object: " in error
    assert f"see {out / 'rejected.jsonl'}" in error
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 2


def test_bad_metadata_is_told_before_any_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Models(monkeypatch)
    file = metadata(tmp_path)
    (tmp_path / "1.wav").unlink()
    (tmp_path / "2.wav").write_bytes(b"no sound")
    code, _, error = run(capsys, tmp_path / "out", "--data", file, "--writer", "wug")
    assert code == 2
    assert "2 fault(s), nothing was run" in error
    assert "line 2: audio '1.wav' is missing" in error
    assert "line 3: audio '2.wav' cannot be read" in error
    assert not models.loaded
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_told_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, tmp_path / "out", "--data", metadata(tmp_path), "--writer", "no such model")
    assert code == 2
    assert "no model called 'no such model'" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give either --data"),
        (("--data", "m.jsonl", "--world", "3"), "give either --data"),
        (("--data", "m.jsonl"), "--data needs --writer"),
        (("--data", "m.jsonl", "--writer", "wug", "--seed", "1"), "--seed: only with --world"),
        (("--world", "3", "--writer", "wug"), "--writer: only with --data"),
        (("--world", "3", "--split", "tests"), "split 'tests' is unknown"),
        (("--data", "gone.jsonl", "--writer", "wug"), "there is no such file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    code, _, error = run(capsys, tmp_path / "out", *options)
    assert code == 2
    # A box is drawn around it, which breaks lines.
    assert message in " ".join(error.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_from_the_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (tmp_path, "--world", 3, "--split", "validation", "--seed", 5, "--rl-share", 0, "--workers", 1)
    code, shown, _ = run(capsys, *command)
    assert code == 0
    assert shown.splitlines()[0] == "3 scenes, 3 questions: 3 sft, 0 rl"
    assert all("trace" in example.meta for example in load_manifest(tmp_path / "sft.jsonl"))
    assert (tmp_path / "rl.jsonl").read_text() == ""
    assert run(capsys, *command)[1] == shown
    code, _, error = run(capsys, *command[:-2], "--per-scene", 2)
    assert code == 2
    assert "per_scene is 1 there, 2 here" in error
