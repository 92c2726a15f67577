"""Tiny folders of the audio-text architectures of transformers: real configs, processors, tokenizers and templates."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2AudioProcessor, Qwen2Config, WhisperFeatureExtractor

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'audio' %}MARK{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_MARK = "<|audio_bos|><|AUDIO|><|audio_eos|>"
OMNI_TOKENS = {
    "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
}  # fmt: skip


def byte_tokenizer(specials: Sequence[str], mark: str, named: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """One token for each byte, and special ones; `named` become attributes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *specials, *(named or {}).values()]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=named or {},
        chat_template=TEMPLATE.replace("MARK", mark),
    )


def text_config(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """A small decoder whose weights are large, so that different prompts get different replies."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    } | more  # fmt: skip


def encoder_config(**more: Any) -> dict[str, Any]:
    """A small Whisper-like encoder."""
    sizes = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
    return {"d_model": 32, "num_mel_bins": 128, "max_source_positions": 1500} | sizes | more


def features() -> WhisperFeatureExtractor:
    """128 bands, windows of 30 s."""
    return WhisperFeatureExtractor(feature_size=128)


def save(model: Any, processor: Any, path: Path, tokenizer: Any, gain: float = 6.0) -> Path:
    """Saves a model in evaluation mode, its matrices `gain` times as large."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed_positions" not in name:
                parameter.mul_(gain)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.eval().save_pretrained(path)
    processor.save_pretrained(path)
    return path


def tiny_qwen2_audio(
    path: Path, ear: dict[str, Any] | None = None, text: dict[str, Any] | None = None, gain: float = 6.0
) -> Path:
    """Qwen2-Audio; `ear` and `text` change its sizes."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"], QWEN_MARK)
    processor = Qwen2AudioProcessor(features(), tokenizer, chat_template=tokenizer.chat_template)
    config = Qwen2AudioConfig(
        audio_config=encoder_config(**(ear or {})),
        text_config=text_config(tokenizer, **(text or {})) | {"model_type": "qwen2"},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return save(Qwen2AudioForConditionalGeneration(config), processor, path, tokenizer, gain)


def _omni_ids(tokenizer: Any) -> dict[str, int]:
    number: Callable[[str], int] = tokenizer.convert_tokens_to_ids
    return {
        "vision_start_token_id": number("<|vision_bos|>"), "vision_end_token_id": number("<|vision_eos|>"),
        "audio_start_token_id": number("<|audio_bos|>"), "audio_end_token_id": number("<|audio_eos|>"),
        "pad_token_id": int(tokenizer.pad_token_id),
    }  # fmt: skip


def tiny_qwen25_omni(path: Path) -> Path:
    """The thinker of Qwen2.5-Omni, with the audio half of its processor."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = byte_tokenizer([], QWEN_MARK, OMNI_TOKENS)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    config = Qwen2_5OmniThinkerConfig(
        audio_config=encoder_config(n_window=100, output_dim=64),
        vision_config=vision | {"fullatt_block_indexes": [0]},
        text_config=text_config(tokenizer, rope_parameters=rope),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMAGE|>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<|VIDEO|>"),
        **_omni_ids(tokenizer),
    )
    processor = Qwen2AudioProcessor(features(), tokenizer, chat_template=tokenizer.chat_template)
    return save(Qwen2_5OmniThinkerForConditionalGeneration(config), processor, path, tokenizer)


def tiny_qwen3_omni(path: Path) -> Path:
    """The thinker of Qwen3-Omni; its folder names the processor that needs torchvision, as the published one does."""
    from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = byte_tokenizer([], QWEN_MARK, OMNI_TOKENS)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    experts = {"head_dim": 16, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    config = Qwen3OmniMoeThinkerConfig(
        audio_config=encoder_config(output_dim=64, downsample_hidden_size=16),
        vision_config=vision | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        text_config=text_config(tokenizer, rope_parameters=rope, **experts),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        image_token_id=tokenizer.convert_tokens_to_ids("<|IMAGE|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|VIDEO|>"),
        **_omni_ids(tokenizer),
    )
    save(Qwen3OmniMoeThinkerForConditionalGeneration(config), tokenizer, path, tokenizer)
    extractor = features().to_dict() | {"processor_class": "Qwen3OmniMoeProcessor"}
    (path / "preprocessor_config.json").write_text(json.dumps(extractor))
    return path


def _flamingo(path: Path, names: tuple[str, str, str], marks: Sequence[str], width: int, ids: dict[str, str]) -> Path:
    import transformers

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(["<sound>", *marks], "<sound>")
    processor = getattr(transformers, names[1])(features(), tokenizer, chat_template=tokenizer.chat_template)
    encoder = transformers.AudioFlamingo3EncoderConfig(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_mel_bins=128
    )
    config = getattr(transformers, names[0])(
        audio_config=encoder,
        text_config=Qwen2Config(**text_config(tokenizer)),
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
        **{name: tokenizer.convert_tokens_to_ids(mark) for name, mark in ids.items()},
    )
    return save(getattr(transformers, names[2])(config), processor, path, tokenizer)


def tiny_audio_flamingo3(path: Path) -> Path:
    """Audio Flamingo 3."""
    names = ("AudioFlamingo3Config", "AudioFlamingo3Processor", "AudioFlamingo3ForConditionalGeneration")
    return _flamingo(path, names, [], 32, {})


def tiny_music_flamingo(path: Path) -> Path:
    """Music Flamingo."""
    names = ("MusicFlamingoConfig", "MusicFlamingoProcessor", "MusicFlamingoForConditionalGeneration")
    marks = {"audio_bos_token_id": "<|sound_bos|>", "audio_eos_token_id": "<|sound_eos|>"}
    return _flamingo(path, names, list(marks.values()), 40, marks)


def tiny_glm_asr(path: Path) -> Path:
    """GLM-ASR."""
    from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration, GlmAsrProcessor

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(["<|pad|>"], "<|pad|>")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = GlmAsrConfig(
        audio_config=sizes,
        text_config=text_config(tokenizer) | {"model_type": "llama"},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    processor = GlmAsrProcessor(features(), tokenizer, chat_template=tokenizer.chat_template)
    return save(GlmAsrForConditionalGeneration(config), processor, path, tokenizer)


def _write_tekken(path: Path, special: int = 40) -> None:
    """A vocabulary of bytes in mistral-common's form."""
    named = {
        0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 5: "[AVAILABLE_TOOLS]", 6: "[/AVAILABLE_TOOLS]",
        7: "[TOOL_RESULTS]", 8: "[/TOOL_RESULTS]", 9: "[TOOL_CALLS]", 10: "[IMG]", 11: "<pad>", 12: "[IMG_BREAK]",
        13: "[IMG_END]", 14: "[PREFIX]", 15: "[MIDDLE]", 16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]",
        18: "[/SYSTEM_PROMPT]", 19: "[TOOL_CONTENT]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]",
    }  # fmt: skip
    control = [{"rank": k, "token_str": named.get(k, f"<SPECIAL_{k}>"), "is_control": True} for k in range(special)]
    pieces = [
        {"rank": k, "token_bytes": base64.b64encode(bytes([k])).decode(), "token_str": chr(k) if k < 128 else None}
        for k in range(256)
    ]
    config = {
        "pattern": r"\s+|\w+|[^\w\s]+", "num_vocab_tokens": 256, "default_vocab_size": 256 + special,
        "default_num_special_tokens": special, "version": "v7",
    }  # fmt: skip
    mel = {"num_mel_bins": 128, "hop_length": 160, "window_size": 400}
    audio = {"sampling_rate": 16000, "frame_rate": 12.5, "audio_encoding_config": mel, "chunk_length_s": 30.0}
    whole = {"config": config, "vocab": pieces, "special_tokens": control, "version": 1, "type": "Tekken"}
    path.write_text(json.dumps(whole | {"audio": audio}))


def tiny_voxtral(path: Path) -> Path:
    """Voxtral, with mistral-common's tokenizer."""
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, VoxtralProcessor
    from transformers.tokenization_mistral_common import MistralCommonBackend

    torch.manual_seed(0)
    path.mkdir(parents=True, exist_ok=True)
    _write_tekken(path / "tekken.json")
    tokenizer = MistralCommonBackend(tokenizer_path=str(path / "tekken.json"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11, "head_dim": 16}
    config = VoxtralConfig(
        audio_config=sizes | {"num_mel_bins": 128},
        text_config=text_config(tokenizer, vocab_size=tokenizer.vocab_size) | special,
        audio_token_id=24,
    )
    processor = VoxtralProcessor(feature_extractor=features(), tokenizer=tokenizer)
    return save(VoxtralForConditionalGeneration(config), processor, path, tokenizer)


TINY: dict[str, Callable[[Path], Path]] = {
    "audioflamingo3": tiny_audio_flamingo3,
    "glmasr": tiny_glm_asr,
    "musicflamingo": tiny_music_flamingo,
    "qwen2_5_omni_thinker": tiny_qwen25_omni,
    "qwen2_audio": tiny_qwen2_audio,
    "qwen3_omni_moe_thinker": tiny_qwen3_omni,
    "voxtral": tiny_voxtral,
}
"""`model_type` -> what builds a tiny folder of it."""
