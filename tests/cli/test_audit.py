"""`earnest audit`: errors before any model, a report, and a run that survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from earnest.audio import Clip

DRIVER = Path(__file__).with_name("driver.py")


def clip(seed: int, duration_s: float = 0.6) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip(rng.normal(0, 0.1, int(16000 * duration_s)).astype(np.float32), 16000)


def write_manifest(folder: Path, n: int) -> Path:
    rows: list[str] = []
    for index in range(n):
        clip(index).save(folder / f"{index}.wav")
        row = {
            "id": f"q{index}",
            "audio": f"{index}.wav",
            "question": f"What is heard in number {index}?",
            "choices": ["dog", "cat", "bell"],
            "answer": ["dog", "cat", "bell"][index % 3],
            "modality": ["sound", "music"][index % 2],
        }
        rows.append(json.dumps(row))
    manifest = folder / "my.jsonl"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def command(log: Path, seconds: float, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(DRIVER), str(log), str(seconds), "audit", "fake", *(str(a) for a in arguments)]


def test_faults_are_one_message_and_load_no_model(tmp_path: Path) -> None:
    clip(0).save(tmp_path / "good.wav")
    Clip.silence(1.0).save(tmp_path / "other.wav")
    empty = (tmp_path / "good.wav").read_bytes()[:40] + b"\0\0\0\0"
    (tmp_path / "empty.wav").write_bytes(empty)
    base = {"question": "What?", "answer": "dog", "choices": ["dog", "cat"]}
    rows = [
        {**base, "audio": "missing.wav"},
        {**base, "audio": "good.wav", "colour": "red"},
        {**base, "audio": "other.wav", "answer": "horse"},
        {**base, "audio": "empty.wav"},
    ]
    manifest = tmp_path / "bad.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    # An audit that had imported torch would say so on standard output.
    script = (
        "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules));"
        "from earnest.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "audit", "pocket", "--data", str(manifest)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr.count("error:") == 1
    for line, word in ((1, "missing.wav"), (2, "colour"), (3, "horse"), (4, "empty")):
        assert any(f"line {line}:" in text and word in text for text in done.stderr.splitlines()), done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["audit", "no-such-model", "--limit", "2"], "no model called"),
        (["audit", "pocket", "--split", "tset"], "tset"),
        (["audit", "pocket", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["audit", "pocket", "--bank", "nowhere"], "nowhere"),
        (["ask", "pocket", "nowhere.wav", "What?"], "nowhere.wav"),
        (["train", "nowhere.toml"], "nowhere.toml"),
        (["make", "world", "out", "--split", "tset"], "tset"),
    ],
)
def test_user_errors_end_with_2_and_one_message(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from earnest.cli import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in message
    assert message.count("error:") == 1


def test_a_killed_audit_resumes_and_repeats_nothing(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, 24)
    log = tmp_path / "asked.log"
    options = ("--data", manifest, "--batch-size", "4", "--question-only", "--no-report")
    killed = subprocess.Popen(command(log, 0.05, *options, "--output", tmp_path / "run"), cwd=tmp_path)
    completions = tmp_path / "run" / "completions.jsonl"
    deadline = time.monotonic() + 60
    while not (completions.exists() and completions.read_text().count("\n") >= 8):
        assert time.monotonic() < deadline, "no completion was saved"
        assert killed.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    saved = {json.loads(line)["key"] for line in completions.read_text().splitlines() if line.endswith("}")}
    asked_before = log.read_text().splitlines()
    assert len(saved) < 48

    done = subprocess.run(
        command(log, 0.0, *options, "--output", tmp_path / "run"), capture_output=True, text=True, check=True
    )
    assert f"{len(saved)} reused" in done.stdout
    keys = [json.loads(line)["key"] for line in completions.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 48
    # Asked again is at most the batch that was being computed when the kill came, never a saved completion.
    asked_after = log.read_text().splitlines()[len(asked_before) :]
    assert len(asked_after) == 48 - len(saved)
    assert len(asked_before) - len(saved) <= 4

    subprocess.run(
        command(tmp_path / "other.log", 0.0, *options, "--output", tmp_path / "undisturbed"),
        capture_output=True,
        check=True,
    )
    metrics = [(tmp_path / name / "metrics.json").read_bytes() for name in ("run", "undisturbed")]
    assert metrics[0] == metrics[1]


def test_an_audit_prints_its_result_and_writes_a_scorecard(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, 6)
    done = subprocess.run(
        command(tmp_path / "log", 0.0, "--data", manifest, "--output", tmp_path / "run"),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Heard 3.6 of 3.6 s of audio (100.0 %) in 6 questions")
    assert lines[1].startswith("accuracy") and "100.0 %" in lines[1] and "n = 6" in lines[1]
    assert done.stderr == ""
    page = (tmp_path / "run" / "scorecard.html").read_text()
    assert page.count("<audio ") == 6
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "completions.jsonl",
        "environment.json",
        "metrics.json",
        "records.jsonl",
        "resolved.toml",
        "scorecard.html",
    }


def test_a_run_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, 3)
    first = command(tmp_path / "log", 0.0, "--data", manifest, "--output", tmp_path / "run", "--no-report")
    subprocess.run(first, capture_output=True, check=True)
    faster = subprocess.run([*first, "--batch-size", "1", "--threads", "1"], capture_output=True, text=True, check=True)
    assert "0 computed, 3 reused" in faster.stdout
    again = subprocess.run([*first, "--seed", "4", "--question-only"], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "seed is 0 there, 4 here" in again.stderr
    assert "question_only is False there, True here" in again.stderr
    manifest.write_text(manifest.read_text().replace("number 2?", "number two?"))
    changed = subprocess.run(first, capture_output=True, text=True, check=False)
    assert changed.returncode == 2
    assert "questions.sha256 is" in changed.stderr


def test_a_threshold_sets_the_exit_code(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, 3)
    options = ("--data", manifest, "--output", tmp_path / "run", "--no-report", "--fail-under")
    # The oracle is right thrice; a reply that was saved is graded again against what the manifest says now.
    base = command(tmp_path / "log", 0.0, *options, "0.9")
    assert subprocess.run(base, capture_output=True, check=False).returncode == 0
    completions = tmp_path / "run" / "completions.jsonl"
    completions.write_text(completions.read_text().replace("> dog<", "> cat<"))
    assert subprocess.run(base, capture_output=True, check=False).returncode == 1
