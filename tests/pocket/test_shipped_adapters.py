"""The shipped adapters: they are for the shipped weights, and are left out where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tone

from earnest.cli.concerns import idk_adapters_of
from earnest.errors import ModelError
from earnest.example import Example
from earnest.pocket import hardened_adapter, hardened_folder, idk_adapters, idk_folder
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


def test_the_hardened_adapter_and_its_control_are_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("hardened", "clean_only"):
        folder = hardened_adapter(name)
        assert folder is not None
        assert (folder / "adapter_model.safetensors").is_file()
    card = json.loads((hardened_folder() / "hardened.json").read_text())
    monkeypatch.setattr("earnest.pocket.hardened_folder", lambda: tmp_path)
    assert hardened_adapter() is None
    (tmp_path / "hardened.json").write_text(json.dumps({**card, "key": "0" * 32}))
    with pytest.raises(ModelError, match=r"recipes/pocket/faithfulness\.toml"):
        hardened_adapter()


def test_pockets_own_are_taken_where_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert idk_adapters_of("pocket", None, None, [of("sound")], bare=True)
    assert idk_adapters_of("pocket", None, None, None, bare=True)
    assert capsys.readouterr().out == ""
    assert idk_adapters_of("pocket", None, None, [of("")], bare=True) is None
    assert "are left out: 1 of 1 questions have a modality without an adapter (none)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert idk_adapters_of("pocket", None, None, [of("sound")], bare=False) is None
    assert idk_adapters_of("some/folder", None, None, [of("sound")], bare=True) is None


def test_what_is_named_must_fit(tmp_path: Path) -> None:
    folder = idk_adapters()
    assert folder is not None
    with pytest.raises(ModelError, match="have a modality without an adapter"):
        idk_adapters_of("pocket", None, folder, [of("")], bare=True)
    with pytest.raises(ModelError, match="is behind a server"):
        idk_adapters_of("server:http://127.0.0.1:1/v1#m", None, folder, [of("sound")], bare=True)
