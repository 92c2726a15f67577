"""Every architecture passes; every planted fault is caught by the right row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import tiny_fused
from tests.tiny_hearing import TINY, tiny_audio_flamingo3, tiny_qwen2_audio

from earnest.audio import Clip
from earnest.check import SECONDS, CheckReport, check, check_clip
from earnest.engines import prefill
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine

PLACED = "placeholders = frames"


def engine_of(folder: Path) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen2_audio(tmp_path_factory.mktemp("tiny") / "qwen2_audio")


def failed(report: CheckReport) -> set[str]:
    return {row.name for row in report.rows if row.passed is False}


def shown(report: CheckReport, name: str) -> str:
    return next(row.shown for row in report.rows if row.name == name)


@pytest.mark.parametrize("kind", sorted(TINY))
def test_sound_architectures_pass(kind: str, tmp_path: Path) -> None:
    report = check(engine_of(TINY[kind](tmp_path / kind)))
    assert report.passed, report.rows
    assert (report.flips, report.compared) == (0, 2 * len(SECONDS))


def test_the_fused_model_passes(tmp_path: Path) -> None:
    report = check(engine_of(tiny_fused(tmp_path)))
    assert report.passed, report.rows


def test_a_processor_that_cuts_in_silence(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(qwen)
    monkeypatch.setattr(engine.family, "max_audio_s", None)
    report = check(engine)
    assert failed(report) == {"a clip beyond the limit is refused, not cut"}
    assert "10.0 s dropped" in shown(report, "a clip beyond the limit is refused, not cut")


def test_a_clip_that_is_cut_early_is_named(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(qwen)
    family: Any = engine.family
    features = family.features
    monkeypatch.setattr(family, "features", lambda samples: features(samples[: 5 * 16_000]))
    report = check(engine)
    assert "seconds given = seconds encoded" in failed(report)
    assert "4.00 s of a clip of 9.00 s" in shown(report, "seconds given = seconds encoded")


@pytest.mark.parametrize("by", [-1, 1])
def test_a_placeholder_off_by_one(qwen: Path, monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    engine = engine_of(qwen)
    family: Any = engine.family
    audio_ids = family.audio_ids

    def off(audio: Any) -> list[int]:
        ids = audio_ids(audio)
        return [*ids, ids[0]] if by > 0 else ids[:-1]

    monkeypatch.setattr(family, "audio_ids", off)
    report = check(engine)
    assert PLACED in failed(report)
    assert not report.passed


def test_a_resampler_that_ignores_the_rate(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clip, "resampled", lambda clip, rate: Clip(clip.samples, rate))
    report = check(engine_of(qwen))
    assert failed(report) == {"another sample rate changes nothing"}


def test_padding_on_the_wrong_side(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def right_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        return ids, mask

    monkeypatch.setattr(prefill, "left_pad", right_pad)
    report = check(engine_of(qwen))
    assert "in a batch = alone" in failed(report)
    assert report.flips > 0


def test_a_model_that_does_not_hear(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(qwen)
    family: Any = engine.family
    encode = family.encode
    monkeypatch.setattr(family, "encode", lambda audio: [torch.zeros_like(soft) for soft in encode(audio)])
    report = check(engine)
    assert "silence changes the answer" in failed(report)


def test_a_cache_that_mistakes_one_clip_for_another(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earnest.engines.sharing.audio_key", lambda audio: ("same", audio.fine))
    report = check(engine_of(qwen))
    assert not report.passed


def test_an_engine_that_fails_is_a_failed_row(tmp_path: Path) -> None:
    engine = engine_of(tiny_audio_flamingo3(tmp_path / "af3"))

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no ear")

    engine.family.encode = refuse  # type: ignore[method-assign]
    report = check(engine)
    assert "every clip gets a reply" in failed(report)
    assert "no ear" in shown(report, "every clip gets a reply")


def test_the_clips_are_the_same_every_time() -> None:
    assert [check_clip(k).key for k in range(6)] == [check_clip(k).key for k in range(6)]
    assert all(np.isfinite(check_clip(k, 44_100).samples).all() for k in range(6))
