"""Configs of tiny fused models with random weights."""

from typing import Any

import torch
from transformers import ASTConfig, Data2VecAudioConfig, Qwen3Config, Wav2Vec2BertConfig, WhisperConfig

from earnest.fused import EarConfig, EncoderSpec, FusedConfig, FusedModel


def text_config() -> dict[str, Any]:
    return Qwen3Config(
        vocab_size=160,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=48,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
    ).to_dict()


def small(*strides: int) -> dict[str, Any]:
    return {
        "widths": [24] * len(strides),
        "kernels": [5] * len(strides),
        "strides": list(strides),
        "residual_kernels": [3],
    }


def pocket_config(**first: Any) -> FusedConfig:
    """Two ears, as in pocket: 3.9 tokens a second, 7.8 in the fine pass."""
    ear = EarConfig(width=16, blocks=2, heads={"sound": 5}).to_dict()
    return FusedConfig(
        text_config=text_config(),
        encoders=[{"name": "events", "config": ear, "layers": [-1, -2]}, {"name": "speech", "config": ear}],
        passes={
            "first": {
                "adapters": {"events": small(2, 2), "speech": small(2, 2)},
                "fusion": "concat",
                "head": "align",
                "blank_token_id": 0,
                **first,
            },
            "fine": {"adapters": {"speech": small(2)}, "fusion": "concat", "head": "linear"},
        },
        audio_token_id=3,
    )


def large_config(fusion: dict[str, Any], **first: Any) -> FusedConfig:
    """Stand-ins of the paper's encoders: a Whisper with a window of 1 s, a w2v-BERT, an ear."""
    whisper = WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        num_mel_bins=16, max_source_positions=50, decoder_layers=1,
    )  # fmt: skip
    bert = Wav2Vec2BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        feature_projection_input_dim=160, conv_depthwise_kernel_size=7,
    )  # fmt: skip
    paper = {"input_width": 20, "widths": [24, 20], "kernels": [3, 4], "strides": [1, 2], "output_width": 32}
    return FusedConfig(
        text_config=text_config(),
        encoders=[
            {"name": "whisper", "config": whisper.to_dict(), "layers": [0, 1, 2]},
            {"name": "bert", "config": bert.to_dict(), "layers": [1, 2]},
            {"name": "ear", "config": EarConfig(width=16, blocks=1).to_dict()},
        ],
        passes={
            "first": {
                "adapters": {"whisper": paper, "bert": paper, "ear": {**small(1), "output_width": 32}},
                "fusion": {"width": 16, "heads": 2, "ffn": 32, "latents": 3, **fusion},
                "head": "none",
                **first,
            }
        },
        audio_token_id=3,
    )


def every_encoder() -> list[EncoderSpec]:
    """A tiny one of each architecture."""
    music = Data2VecAudioConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=[8] * 7,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    events = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=116,
        num_mel_bins=36,
    )  # fmt: skip
    return [
        *large_config({"kind": "ca"}).encoder_specs,
        EncoderSpec("music", music.to_dict(), (1, 2)),
        EncoderSpec("audioset", events.to_dict(), (-1, 1)),
    ]


def scattered(config: FusedConfig) -> FusedModel:
    """A model whose trained weights are far from their start, so that a lost one shows."""
    model = FusedModel(config).eval()
    with torch.no_grad():
        for parameter in model.passes.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model
