"""`earnest audit` and `earnest check` on a real architecture and on a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.test_audit import write_manifest
from tests.stub_server import running
from tests.tiny_hearing import tiny_qwen2_audio

from earnest.cli import main


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_a_real_architecture_gets_a_scorecard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, manifest = tiny_qwen2_audio(tmp_path / "qwen2_audio"), write_manifest(tmp_path, 6)
    out = tmp_path / "run"
    assert run("audit", folder, "--data", manifest, "--output", out, "--max-new-tokens", "8") == 0
    assert "6 computed" in capsys.readouterr().out
    assert (out / "scorecard.html").stat().st_size > 10_000
    record = json.loads((out / "records.jsonl").read_text().splitlines()[0])
    assert record["heard"]["seconds_heard"] == record["heard"]["seconds_given"] == 0.6
    assert record["heard"]["audio_tokens"] == 15


def test_a_server_gets_a_scorecard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, out = write_manifest(tmp_path, 6), tmp_path / "run"
    with running() as server:
        assert run("audit", f"server:{server.url}#m", "--data", manifest, "--output", out) == 0
        assert len(server.requests) == 6
        assert run("audit", "openai/m", "--base-url", server.url, "--data", manifest, "--output", tmp_path / "b") == 0
    assert "6 computed" in capsys.readouterr().out
    assert (out / "scorecard.html").stat().st_size > 10_000
    metrics = json.loads((out / "metrics.json").read_text())
    assert "accuracy" in json.dumps(metrics)


def test_check_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_qwen2_audio(tmp_path / "qwen2_audio")
    assert run("check", folder, "--threads", "1", "--output", tmp_path / "check") == 0
    shown = capsys.readouterr().out
    assert "noise floor" in shown
    assert "FAIL" not in shown
    written = json.loads((tmp_path / "check" / "check.json").read_text())
    assert (written["flips"], written["model"]) == (0, str(folder))
    assert written["compared"] >= 12
    assert {row["passed"] for row in written["rows"]} <= {True, None}


def test_a_check_that_fails_ends_in_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running() as server:
        folder = tiny_qwen2_audio(tmp_path / "qwen2_audio")
        there = f"server:{server.url}#m"
        assert run("check", folder, "--threads", "1", "--against", there, "--output", tmp_path) == 1
    assert "FAIL" in capsys.readouterr().out
    assert not all(row["passed"] for row in json.loads((tmp_path / "check.json").read_text())["rows"])


def test_an_audit_without_any_reply_ends_in_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(tmp_path, 3)
    assert run("audit", "server:http://127.0.0.1:9/v1#m", "--data", manifest, "--output", tmp_path / "run") == 1
    assert "3 failed, such as q0: no reply from http://127.0.0.1:9/v1" in capsys.readouterr().out
