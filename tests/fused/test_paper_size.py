"""Parameter counts at the size of arXiv 2603.09556, without any memory."""

import pytest
import torch
from torch import nn

from earnest.fused import AdapterConfig, FusionConfig
from earnest.fused.adapters import Adapter
from earnest.fused.fusion import CrossAttentionFusion, PerceiverFusion

LLM_WIDTH = 2560


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize(
    ("config", "width", "expected"),
    [
        (AdapterConfig(input_width=1024, output_width=LLM_WIDTH), 1280, 18.63),  # Whisper-large-v3
        (AdapterConfig(output_width=LLM_WIDTH), 1024, 17.31),  # w2v-BERT 2.0
        (AdapterConfig(input_width=1024, output_width=LLM_WIDTH), 768, 18.10),  # SSLAM
        (AdapterConfig(1024, (1024,), (1,), (1,), (), LLM_WIDTH, "none"), 1024, 4.72),  # MuQ, at 25 Hz already
    ],
)
def test_adapters(config: AdapterConfig, width: int, expected: float) -> None:
    with torch.device("meta"):
        assert round(millions(Adapter(config, width)), 2) == expected


@pytest.mark.parametrize(("layers", "expected"), [(1, 63.5), (2, 113.9)])
def test_cross_attention(layers: int, expected: float) -> None:
    with torch.device("meta"):
        fusion = CrossAttentionFusion(FusionConfig("ca", layers=layers), [LLM_WIDTH] * 4, LLM_WIDTH)
    assert round(millions(fusion), 1) == expected


def test_perceiver() -> None:
    with torch.device("meta"):
        fusion = PerceiverFusion(FusionConfig("perceiver", layers=2), [LLM_WIDTH] * 4)
    assert millions(fusion) == pytest.approx(81.2, rel=0.005)  # the paper's own layout is not public
