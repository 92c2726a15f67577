"""The other verbs: `ask`, `demo`, `make world`, `--version`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes import FakeEngine, constant

import earnest
from earnest.audio import Clip
from earnest.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().out


def use(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    monkeypatch.setattr("earnest.engines.load", lambda name, **_: engine)
    monkeypatch.setattr("earnest.engines.model_key", lambda *_: engine.key)


def test_ask_prints_reasoning_answer_outcome_and_what_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, constant("<think> i hear [it].</think><answer> dog</answer>"))
    clip = Clip.silence(2.0).save(tmp_path / "clip.wav")
    code, out = run(capsys, "ask", "pocket", str(clip), "Which animal?", "--choices", "dog;cat")
    assert code == 0
    assert out.splitlines() == [
        "reasoning  i hear [it].",
        "answer     dog",
        "outcome    answered",
        "heard      2.0 of 2.0 s, 8 audio tokens",
    ]


def test_ask_names_a_failure_and_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, FakeEngine(lambda _: None))
    clip = Clip.silence(2.0).save(tmp_path / "clip.wav")
    code, out = run(capsys, "ask", "pocket", str(clip), "Which animal?")
    assert code == 1
    assert "outcome    failed" in out
    assert "too long for the fake" in out


def test_the_demo_audits_the_held_out_split_and_prints_the_scorecard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, constant("<answer> yes</answer>"))
    code, out = run(capsys, "demo", "--limit", "6", "--output", str(tmp_path), "--threads", "1")
    assert code == 0
    assert "gain_over_question_only" in out
    [page] = tmp_path.glob("*-seed0-n6/scorecard.html")
    assert str(page) in out
    text = page.read_text()
    assert text.count("<audio ") == 6
    assert 'class="bar ' in text, "the timeline is drawn"


def test_the_world_on_disk_and_the_built_in_world_are_asked_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, constant("<answer> yes</answer>"))
    run(capsys, "make", "world", str(tmp_path / "w"), "--n", "4", "--split", "test", "--workers", "1")
    manifest = str(tmp_path / "w" / "manifest.jsonl")
    options = ("--no-report", "--workers", "1", "--output")
    _, disk = run(capsys, "audit", "fake", "--data", manifest, *options, str(tmp_path / "disk"))
    _, built_in = run(capsys, "audit", "fake", "--limit", "4", *options, str(tmp_path / "built-in"))
    assert disk.splitlines()[:-1] == built_in.splitlines()[:-1]
    names = ("disk/metrics.json", "built-in/metrics.json")
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


def test_other_weights_get_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("demo", "--limit", "2", "--output", str(tmp_path), "--threads", "1")
    for key in ("old", "new"):
        engine = constant("<answer> yes</answer>")
        engine.key = key
        use(monkeypatch, engine)
        assert run(capsys, *options)[0] == 0
    assert len(list(tmp_path.glob("*-seed0-n2"))) == 2


def test_a_folder_that_cannot_be_written_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, constant("<answer> yes</answer>"))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SystemExit) as stop:
        main(["audit", "fake", "--limit", "2", "--output", str(tmp_path / "taken")])
    assert stop.value.code == 2
    assert "taken" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"earnest {earnest.__version__}\n")
