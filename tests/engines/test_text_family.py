"""A plain text LLM as an engine: it answers, goes on, scores, and refuses audio by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

import earnest
from earnest.audio import Clip
from earnest.completion import Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines.families.text import TextFamily


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
            initializer_range=0.5, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_it_answers_as_transformers_does_and_goes_on_with_a_begun_reply(folder: Path) -> None:
    engine = earnest.load(str(folder), threads=1)
    asked = [Conversation().user("how many?"), Conversation().user("a").assistant("b").user("what else is there?")]
    replies = engine.generate(asked, Sampling(max_new_tokens=8))
    assert isinstance(engine.family, TextFamily)
    for conversation, reply in zip(asked, replies, strict=True):
        ids = engine.family.tokenizer(engine.family.text(conversation), add_special_tokens=False, return_tensors="pt")
        banned = [[token] for token in engine.family.structural_token_ids]
        whole = engine.family.model.generate(
            **ids, max_new_tokens=8, do_sample=False, bad_words_ids=banned, pad_token_id=0
        )
        said = whole[0, ids["input_ids"].shape[1] :].tolist()
        assert tuple(said[: len(reply.token_ids)]) == reply.token_ids
    begun = asked[0].assistant("x")
    assert engine.family.text(begun) == engine.family.text(asked[0]) + "x"
    known = engine.logprobs([asked[0]], [replies[0].token_ids])[0]
    assert torch.allclose(known, torch.tensor(replies[0].logprobs), atol=1e-4)


def test_audio_is_refused_by_name_and_the_others_go_on(folder: Path) -> None:
    engine = earnest.load(str(folder), threads=1)
    heard = Conversation().user(Audio(Clip.silence(1.0)), "what is it?")
    refused, fine = engine.generate([heard, Conversation().user("b")], Sampling(max_new_tokens=2))
    assert refused.stop is Stop.FAILED and "has no ears" in refused.error
    assert fine.stop is not Stop.FAILED


def test_lora_finds_the_matrices_of_the_llm(folder: Path) -> None:
    import re

    pattern = TextFamily.lora_targets("attention")
    assert re.fullmatch(pattern, "model.layers.0.self_attn.q_proj")
    assert not re.fullmatch(pattern, "model.layers.0.mlp.up_proj")
