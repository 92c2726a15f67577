"""The stretching of frequencies that the speech ear is trained with."""

from __future__ import annotations

import math

import pytest
import torch

from earnest.fused.mel import MelConfig, log_mel
from earnest.pocket.ears import warped


def tone(hz: float) -> torch.Tensor:
    times = torch.arange(8000) / 16_000
    return log_mel(torch.sin(2 * math.pi * hz * times), MelConfig())


@pytest.mark.parametrize(("hz", "factor"), [(500.0, 1.2), (2000.0, 0.88), (1200.0, 1.12)])
def test_a_tone_moves_to_where_the_higher_tone_is(hz: float, factor: float) -> None:
    moved, there = warped(tone(hz), torch.tensor([factor])), tone(hz * factor)
    assert abs(int(moved[0, 10].argmax()) - int(there[0, 10].argmax())) <= 1
    assert int(tone(hz)[0, 10].argmax()) != int(there[0, 10].argmax())


def test_each_row_has_its_own_factor_and_one_changes_nothing() -> None:
    mel = torch.cat([tone(700.0), tone(700.0)])
    out = warped(mel, torch.tensor([1.0, 0.9]))
    assert out.shape == mel.shape
    assert torch.allclose(out[0], mel[0], atol=1e-4)
    assert not torch.allclose(out[1], mel[1], atol=0.1)
    assert torch.isfinite(out).all()
