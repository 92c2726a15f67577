"""`earnest make surrogates`: corpora and a manifest in, rows and a card out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.alignment.clips import clip, text

from earnest.alignment.layouts import LAYOUTS, MANIFEST
from earnest.alignment.rows import Surrogate, load_rows
from earnest.cli import main
from earnest.cli import surrogates as verb


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(("make", "surrogates", *map(str, arguments)))
    shown = capsys.readouterr()
    return int(stop.value.code or 0), shown.out, shown.err


def corpora(folder: Path) -> tuple[Path, Path]:
    chapter = folder / "libri" / "19" / "198"
    text(chapter / "19-198.trans.txt", "19-198-0000 HELLO\n19-198-0001 GONE\n")
    clip(chapter / "19-198-0000.flac", 2.5)
    clip(folder / "rain.wav", 4.0)
    rows = [{"audio": "rain.wav", "tags": ["Rain", "Wind"], "modality": "sound"}]
    return folder / "libri", text(folder / "mine.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def test_corpora_and_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    libri, mine = corpora(tmp_path)
    out = tmp_path / "out"
    command = (out, "--corpus", f"librispeech={libri}", "--data", mine, "--split", f"{mine}=test", "--validation", 0)
    code, shown, _ = run(capsys, *command, "--test", 0, "--seed", 4, "--workers", 2)
    assert code == 0
    assert shown.splitlines() == [
        "3 clips: 2 rows, 6.5 s, 2 different surrogates",
        "  librispeech: 1 rows, 2.5 s, 1 different surrogates",
        "  mine: 1 rows, 4.0 s, 1 different surrogates",
        "  test: 1 rows, 4.0 s, 1 different surrogates",
        "  train: 1 rows, 2.5 s, 1 different surrogates",
        "  rejected for missing_audio: 1, 33.3 % [6.1, 79.2], n = 3",
        f"surrogates: {out / 'surrogates.jsonl'} and rejected.jsonl, card.json",
    ]
    rows = load_rows(out / "surrogates.jsonl", Surrogate)
    assert [(row.id, row.split, row.surrogate) for row in rows] == [
        ("librispeech-19-198-0000", "train", "[00:00-00:03] hello (duration: 3s, language: English)"),
        ("mine-line-1", "test", "[00:00-00:04] |Rain, Wind| (duration: 4s)"),
    ]
    held = (out / "surrogates.jsonl").read_bytes(), (out / "card.json").read_bytes()
    run(capsys, *command, "--test", 0, "--seed", 4, "--workers", 1)
    assert held == ((out / "surrogates.jsonl").read_bytes(), (out / "card.json").read_bytes())
    code, _, _ = run(capsys, out, "--data", mine, "--split", "validation")
    assert code == 0
    assert [row.split for row in load_rows(out / "surrogates.jsonl", Surrogate)] == ["validation"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no source: give at least one folder"),
        (("--corpus", "librispeech"), "--corpus 'librispeech' has no folder: give LAYOUT=FOLDER"),
        (("--corpus", "libri=."), "the layout 'libri' is unknown"),
        (("--corpus", "vctk=nowhere"), "nowhere is no folder"),
        (("--corpus", "vctk=."), "holds no clip of the layout 'vctk'"),
        (("--data", "nowhere.jsonl"), "there is no such file"),
        (("--corpus", "vctk=.", "--split", "there=test"), "--split 'there=test' names no source: sources are ."),
        (("--corpus", "vctk=.", "--split", "dev"), "split 'dev' is unknown"),
        (("--corpus", "vctk=.", "--test", "1"), "give shares of 0 or more, together below 1"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "out", *arguments)
    assert code != 0
    assert says in " ".join(error.split())
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_layout() -> None:
    assert verb.LAYOUTS.split(", ") == [name for name in LAYOUTS if name != MANIFEST]
