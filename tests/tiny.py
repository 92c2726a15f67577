"""Tiny models with random weights in folders, so that the real loading and processing code is what is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from earnest.audio import Clip
from earnest.fused import AdapterConfig, EarConfig, EarEncoder, FusedModel, FusedProcessor, PassConfig
from earnest.pocket.tokenizer import AUDIO, BLANK, TIME, build_tokenizer

SPECIALS = ["<pad>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<start_audio>", "<end_audio>", "<audio>"]
TAGS = ["<think>", "</think>", "<answer>", "</answer>", "<seg>", "</seg>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LAST_MARKED_S = 40


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, time markers, tags and special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    times = [f"{second // 60:02d}:{second % 60:02d}" for second in range(LAST_MARKED_S)]
    pieces = {piece: index for index, piece in enumerate([*alphabet, *times])}
    tokenizer = Tokenizer(models.BPE(pieces, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


def tiny_fused(path: Path, seed: int = 0, time_marker_s: float | None = 1.0, context: int = 2048) -> Path:
    """A folder with a fused model: Qwen3 of width 32, two ears, a first pass and a fine one.

    Args:
        path: where to.
        seed: of the weights, which are large, so that different prompts get different replies.
        time_marker_s: seconds between time markers, None for none.
        context: the LLM's longest sequence in tokens.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    language_model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer) + 6, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=context,
            tie_word_embeddings=True, initializer_range=0.5,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    ).eval()  # fmt: skip
    ears = {name: EarEncoder(EarConfig(width=16, blocks=1)).eval() for name in ("events", "speech")}

    def audio_pass(stride: int) -> PassConfig:
        adapter = AdapterConfig(widths=(16, 16), kernels=(3, 3), strides=(stride, 2))
        return PassConfig(adapters=dict.fromkeys(ears, adapter))

    model = FusedModel.from_parts(
        language_model,
        ears,
        {"first": audio_pass(4), "fine": audio_pass(1)},
        audio_token_id=int(tokenizer.convert_tokens_to_ids("<audio>")),
    )
    processor = FusedProcessor.from_config(model.config, tokenizer, time_marker_s=time_marker_s)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def tiny_pocket(path: Path, seed: int = 0, head: Literal["align", "linear"] = "align") -> Path:
    """A folder with a fused model of pocket's make: its tokenizer and time markers, one ear, one pass.

    Its weights are of half precision, as pocket's are.

    Args:
        path: where to.
        seed: of the weights.
        head: of the pass; pocket's aligns.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    language_model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=2048,
            tie_word_embeddings=True, initializer_range=0.5,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    ).eval()  # fmt: skip
    adapter = AdapterConfig(widths=(16, 16), kernels=(3, 3), strides=(2, 2))
    blank: Any = tokenizer.convert_tokens_to_ids(BLANK)
    audio: Any = tokenizer.convert_tokens_to_ids(AUDIO)
    model = FusedModel.from_parts(
        language_model,
        {"events": EarEncoder(EarConfig(width=16, blocks=1)).eval()},
        {"first": PassConfig(adapters={"events": adapter}, head=head, blank_token_id=blank)},
        audio_token_id=audio,
    )
    processor = FusedProcessor.from_config(model.config, tokenizer, time_marker_s=1.0, time_marker_format=TIME)
    model.half().save_pretrained(path)
    processor.save_pretrained(path)
    return path


def tone(frequency_hz: float, duration_s: float, sample_rate_hz: int = 16_000) -> Clip:
    """A tone with a little noise, both fixed by the arguments."""
    times = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    noise = np.random.default_rng(round(frequency_hz)).normal(0, 0.02, times.size)
    return Clip((0.3 * np.sin(2 * np.pi * frequency_hz * times) + noise).astype(np.float32), sample_rate_hz)
