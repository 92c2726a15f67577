"""Every command of the README parses, and the cheap ones run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tests.fakes import oracle
from typer.main import get_command

from earnest.audio import Clip
from earnest.cli import app, main
from earnest.example import load_manifest

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"^(?:    )?(earnest .*)$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    group = get_command(app)
    context = group.make_context("earnest", words, resilient_parsing=False)
    with context:
        name, verb, rest = group.resolve_command(context, [*context._protected_args, *context.args])  # pyright: ignore
        assert name and verb
        verb.make_context(name, rest, parent=context)


def test_there_are_commands_and_every_make_target_exists() -> None:
    assert len(COMMANDS) >= 5
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_world_command_makes_a_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = next(command for command in COMMANDS if command.startswith("earnest make world"))
    words = shlex.split(command, comments=True)[1:]
    words[words.index("--n") + 1] = "2"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*words, "--workers", "1"])
    assert stop.value.code == 0
    assert len(load_manifest(tmp_path / "clips" / "manifest.jsonl")) == 2


def test_the_row_of_the_readme_is_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = re.findall(r"```json\n(.*?)\n```", README, re.DOTALL)
    Clip.silence(1.0).save(tmp_path / json.loads(row)["audio"])
    (tmp_path / "my.jsonl").write_text(row)
    command = next(command for command in COMMANDS if "--data my.jsonl" in command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("earnest.engines.load", lambda name, **_: oracle(load_manifest("my.jsonl")))
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(command, comments=True)[1:])
    assert stop.value.code == 0
    assert (tmp_path / "runs" / "mine" / "scorecard.html").is_file()
