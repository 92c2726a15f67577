"""Every command of the README and of the pages in docs parses, and the cheap ones run."""

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

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands_of(page: str) -> list[str]:
    """Commands in blocks of code, fenced or indented, without the environment's path."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?earnest ", line)]


COMMANDS = commands_of(README)
PAGES = {page.name: page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))}
PAGE_COMMANDS = [(name, command) for name, page in PAGES.items() for command in commands_of(page)]


@pytest.mark.parametrize("command", [*COMMANDS, *(command for _, command in PAGE_COMMANDS)])
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
    assert {name for name, _ in PAGE_COMMANDS} >= {"audit.md", "pocket.md", "world.md"}
    makefile = (ROOT / "Makefile").read_text()
    for page in (README, *PAGES.values()):
        for target in re.findall(r"^(?:    )?make (\w+)", page, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", ["../README.md", *PAGES])
def test_links_to_pages_lead_somewhere(name: str) -> None:
    page = ROOT / "docs" / name
    for link in re.findall(r"\]\(([^):#]+\.md)", page.read_text()):
        assert (page.parent / link).is_file(), link


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
