"""Windows cut to the clip: the same soft tokens as behind the whole window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tone
from tests.tiny_hearing import TINY

from earnest.conversation import Audio
from earnest.engines.families import hearing
from earnest.engines.load import load_local

CUT = ("audioflamingo3", "musicflamingo", "qwen2_audio")


@pytest.fixture(scope="module", params=CUT)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = TINY[request.param](tmp_path_factory.mktemp("tiny") / request.param)
    return load_local(str(folder), device="cpu", threads=1).family


@torch.inference_mode()
def test_a_clip_hears_the_same_without_the_padding_behind_it(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = family.model.model.audio_tower
    windows: list[int] = []
    tower.conv1.register_forward_pre_hook(lambda _module, given: windows.append(given[0].shape[-1]))
    # The last token's convolutions end differently on each of these lengths.
    lengths = (0.06, 0.5, 1.23, 3.0, 3.01, 3.02, 3.03, 29.97, 30.0)
    clips = [Audio(tone(300 + 10 * place, seconds)) for place, seconds in enumerate(lengths)]
    cut = family.encode(clips)
    monkeypatch.setattr(type(family), "window_mask", None)
    whole = family.encode(clips)
    for one, other in zip(cut, whole, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    assert windows[len(clips) :] == [3000] * len(clips)
    assert windows[3] == 304
    assert windows[: len(clips)] == sorted(windows[: len(clips)])
    assert len(tower.embed_positions.weight) == tower.config.max_source_positions == 1500


@torch.inference_mode()
def test_the_window_is_whole_again_after_a_fault(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = family.model.model.audio_tower

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no more")

    with monkeypatch.context() as patched:
        patched.setattr(tower.layers[0], "forward", broken)
        with pytest.raises(RuntimeError, match="no more"):
            family.encode([Audio(tone(500, 1.0))])
    assert len(tower.embed_positions.weight) == tower.config.max_source_positions == 1500


@torch.inference_mode()
def test_features_that_wait_are_bounded_in_bytes(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [Audio(tone(600 + 10 * place, 2.0)) for place in range(6)]
    expected = family.encode(clips)
    size = hearing._bytes(family._hear(clips[0]))
    monkeypatch.setattr(hearing, "FEATURE_BYTES", round(2.5 * size))
    for clip in clips:
        family._hear(clip)
    assert len(family._features) == 2
    assert family._feature_bytes == sum(map(hearing._bytes, family._features.values()))
    for one, other in zip(family.encode(clips), expected, strict=True):
        assert torch.equal(one, other)
    assert not family._features
    assert not family._feature_bytes
