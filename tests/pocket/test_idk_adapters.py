"""The shipped adapters of IDK fine-tuning: they are for the shipped weights, and are left out where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tone

from earnest.cli.audit import _idk_adapters  # pyright: ignore[reportPrivateUsage]
from earnest.errors import ModelError
from earnest.example import Example
from earnest.pocket import idk_adapters, idk_folder
from earnest.reliability.fine_tuned import find_adapters

CLIP = tone(300, 0.2)


def of(modality: str) -> Example:
    return Example("q", (CLIP,), "?", ("a", "b"), "a", {"modality": modality} if modality else {})


def test_both_ks_are_shipped_for_the_shipped_weights() -> None:
    for k in ("chosen", "k5"):
        folder = idk_adapters(k)
        assert folder is not None
        assert find_adapters(folder).keys() == {"sound", "music", "speech"}


def test_those_of_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("earnest.pocket.idk_folder", lambda: tmp_path)
    assert idk_adapters() is None
    card = json.loads((idk_folder() / "idk.json").read_text())
    (tmp_path / "idk.json").write_text(json.dumps({**card, "key": "0" * 32}))
    with pytest.raises(ModelError, match="are for other weights"):
        idk_adapters()


def test_pockets_own_are_taken_where_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert _idk_adapters("pocket", None, None, [of("sound")], bare=True)
    assert _idk_adapters("pocket", None, None, None, bare=True)
    assert capsys.readouterr().out == ""
    assert _idk_adapters("pocket", None, None, [of("")], bare=True) is None
    assert "are left out: 1 of 1 questions have a modality without an adapter (none)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert _idk_adapters("pocket", None, None, [of("sound")], bare=False) is None
    assert _idk_adapters("some/folder", None, None, [of("sound")], bare=True) is None


def test_what_is_named_must_fit(tmp_path: Path) -> None:
    folder = idk_adapters()
    assert folder is not None
    with pytest.raises(ModelError, match="have a modality without an adapter"):
        _idk_adapters("pocket", None, folder, [of("")], bare=True)
    with pytest.raises(ModelError, match="is behind a server"):
        _idk_adapters("server:http://127.0.0.1:1/v1#m", None, folder, [of("sound")], bare=True)
