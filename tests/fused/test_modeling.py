import time
from typing import Any

import numpy as np
import pytest
import torch
from tiny_fused import large_config, pocket_config, scattered, small
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from earnest.errors import AudioError, ModelError
from earnest.fused import EarEncoder, FusedConfig, FusedModel, PassConfig
from earnest.fused.fusion import AlignHead, AudioPass, LinearHead

SECONDS = (0.0001, 0.05, 0.7, 1.31, 3.02)
FUSIONS: list[tuple[str, FusedConfig]] = [
    ("concat", pocket_config()),
    ("concat chunked", pocket_config(chunk_s=1.0)),
    ("boundary", pocket_config(boundary=True)),
    ("linear", pocket_config(head="linear")),
    ("ca", large_config({"kind": "ca", "layers": 2})),
    ("ca chunked", large_config({"kind": "ca"}, chunk_s=1.1)),
    ("perceiver", large_config({"kind": "perceiver"})),
    ("perceiver chunked", large_config({"kind": "perceiver"}, chunk_s=1.1, boundary=True)),
]


@pytest.mark.parametrize("config", [c for _, c in FUSIONS], ids=[name for name, _ in FUSIONS])
@torch.no_grad()
def test_soft_tokens_alone_and_in_a_batch(config: FusedConfig, noise: Any) -> None:
    model = scattered(config)
    clips = noise(*SECONDS)
    together = model.encode_audio(clips)
    assert [t.shape for t in together] == [(config.budget("first").tokens(c.size), 32) for c in clips]
    for clip, tokens in zip(clips, together, strict=True):
        torch.testing.assert_close(model.encode_audio([clip])[0], tokens, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_chunks_are_adapted_by_themselves(noise: Any) -> None:
    config = large_config({"kind": "ca"}, chunk_s=1.1)
    model = scattered(config)
    chunk = config.budget("first").chunk_samples
    assert chunk == 15_360  # a common multiple of 1024 and 640 samples a token, at most 1.1 s
    (clip,) = noise(2.0)
    features, lengths = model.features([clip])
    hidden = model.encode(features, lengths)
    (whole,) = model.adapt(hidden, lengths, "first")
    frames = [chunk // s.geometry.samples_per_frame for s in model.encoder_specs]
    first = [h[:, :n] if h is not None else None for h, n in zip(hidden, frames, strict=True)]
    (part,) = model.adapt(first, torch.tensor([chunk]), "first")
    torch.testing.assert_close(whole[: part.shape[0]], part, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_fine_pass_and_order(pocket: FusedModel, noise: Any) -> None:
    clips = noise(1.0, 2.0, 1.5)
    mixed = pocket.encode_audio(clips, [True, False, True])
    assert [t.shape[0] for t in mixed] == [8, 8, 12]  # 7.8, 3.9, 7.8 a second
    torch.testing.assert_close(mixed[1], pocket.encode_audio(clips[1:2])[0])
    features, _ = pocket.features(clips, "fine")
    assert [f is None for f in features] == [True, False]
    assert all(p.shape[0] == 3 for p in features if p is not None)


def test_faults_are_named(pocket: FusedModel, noise: Any) -> None:
    clips = noise(0.5)
    with pytest.raises(AudioError, match=r"clip 1 has shape \(0,\)"):
        pocket.encode_audio([*clips, np.zeros(0, np.float32)])
    with pytest.raises(AudioError, match="0 samples has nothing to hear"):
        pocket.config.budget("first").tokens(0)
    with pytest.raises(ModelError, match="no pass 'third'; it has first, fine"):
        pocket.config.budget("third")
    features, lengths = pocket.features(clips, "fine")
    with pytest.raises(ModelError, match="needs hidden frames of events"):
        pocket.adapt(pocket.encode(features, lengths), lengths, "first")
    with pytest.raises(ModelError, match="2 audio placeholders for 1 soft tokens of 1 clips"):
        pocket.embed(torch.tensor([[3, 3, 9]]), [torch.zeros(1, 32)])
    with pytest.raises(ModelError, match="no audio was given"):
        pocket(torch.tensor([[3, 3, 9]]))


def test_bad_configs_are_named() -> None:
    with pytest.raises(ModelError, match="PassConfig has no heads"):
        pocket_config(heads=3)
    with pytest.raises(ModelError, match="adapts ears; the encoders are events, speech"):
        pocket_config(adapters={"ears": small(2)})
    with pytest.raises(ModelError, match=r"concat needs one rate, got \[2048, 4096\]"):
        pocket_config(adapters={"events": small(2, 2), "speech": small(2)})
    with pytest.raises(ModelError, match=r"chunk_s 0\.1 is shorter than a token"):
        pocket_config(chunk_s=0.1).budget("first")
    with pytest.raises(ModelError, match="needs a fused stream of width 32, got 48"):
        FusedModel(pocket_config(head="none"))
    with pytest.raises(ModelError, match="as many widths as kernels"):
        pocket_config(adapters={"events": {"widths": [3], "kernels": [], "strides": []}})


@torch.no_grad()
def test_text_is_the_language_models_own(pocket: FusedModel) -> None:
    ids = torch.randint(4, 160, (2, 9))
    assert torch.equal(pocket(ids).logits, pocket.language_model(ids).logits)
    assert torch.equal(
        pocket.generate(ids, max_new_tokens=8, do_sample=False),
        pocket.language_model.generate(ids, max_new_tokens=8, do_sample=False),
    )


@torch.no_grad()
def test_generation_hears_and_its_steps_equal_a_full_forward(pocket: FusedModel, noise: Any) -> None:
    audio = pocket.encode_audio(noise(1.0, 1.0))  # 4 tokens each
    ids = torch.tensor([[0, 0, 9, 3, 3, 3, 3, 10], [11, 12, 13, 3, 3, 3, 3, 14]])
    mask = (ids != 0).long()
    out = pocket.generate(ids, audio=audio, attention_mask=mask, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert torch.equal(out[:, :8], ids)
    assert torch.equal(
        out,
        pocket.generate(
            input_ids=ids, audio=noise(1.0, 1.0), attention_mask=mask, max_new_tokens=5, do_sample=False,
            eos_token_id=None,
        ),
    )  # fmt: skip
    row = ids[:1, 2:]
    for _ in range(5):
        row = torch.cat([row, pocket(row, audio=audio[:1]).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(row[0], out[0, 2:])
    silent = pocket(row, audio=[torch.zeros_like(audio[0])]).logits
    assert not torch.allclose(silent, pocket(row, audio=audio[:1]).logits)
    several = pocket.generate(
        ids[1:], audio=audio[1:], max_new_tokens=5, num_return_sequences=3, do_sample=True, top_k=1, eos_token_id=None
    )
    assert torch.equal(several, out[1:].expand(3, -1))


@torch.no_grad()
def test_audio_is_appended_to_a_cache(pocket: FusedModel, noise: Any) -> None:
    audio = pocket.encode_audio(noise(1.0, 1.0))
    before, after = torch.tensor([[9, 3, 3, 3, 3, 10]]), torch.tensor([[3, 3, 3, 3, 11]])
    whole = pocket(torch.cat([before, after], 1), audio=audio).logits
    cache = pocket(before, audio=audio[:1], use_cache=True).past_key_values
    rest = pocket(after, audio=audio[1:], past_key_values=cache).logits
    torch.testing.assert_close(rest, whole[:, 6:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCausalLM])
@torch.no_grad()
def test_round_trip_through_auto(auto: Any, tmp_path: Any, noise: Any) -> None:
    for config in (pocket_config(), large_config({"kind": "perceiver"}, boundary=True)):
        model = scattered(config)
        model.save_pretrained(tmp_path)
        again = auto.from_pretrained(tmp_path)
        assert isinstance(again, FusedModel)
        assert isinstance(AutoConfig.from_pretrained(tmp_path), FusedConfig)
        assert not again.training
        assert _same(model, again)
        clips = noise(0.4, 1.4)
        for one, other in zip(model.encode_audio(clips), again.encode_audio(clips), strict=True):
            torch.testing.assert_close(one, other)  # memory is aligned differently: sums may differ in the last bit


@torch.no_grad()
def test_stored_in_float16_loaded_in_float32(pocket: FusedModel, tmp_path: Any, noise: Any) -> None:
    pocket.half().save_pretrained(tmp_path)
    pocket.float()
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert _same(pocket, again)
    torch.testing.assert_close(again.encode_audio(noise(1.0))[0], pocket.encode_audio(noise(1.0))[0])
    head = again.language_model
    assert head.lm_head.weight is head.model.embed_tokens.weight
    start = time.process_time()
    AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert time.process_time() - start < 2.0


def _same(one: FusedModel, other: FusedModel) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


@pytest.mark.parametrize("loaded", [False, True])
def test_only_a_pass_is_trained(pocket: FusedModel, noise: Any, tmp_path: Any, loaded: bool) -> None:
    if loaded:
        pocket.save_pretrained(tmp_path)
        pocket = AutoModel.from_pretrained(tmp_path)
    pocket.train()
    assert not any(encoder.training for encoder in pocket.encoders.values())
    trained = {id(p) for p in pocket.trainable_parameters("first")}
    assert {id(p) for p in pocket.parameters() if p.requires_grad} == trained | {
        id(p) for p in pocket.trainable_parameters("fine")
    }
    features, lengths = pocket.features(noise(1.0, 0.6))
    hidden = pocket.encode(features, lengths)
    assert not any(h.requires_grad for h in hidden if h is not None)
    audio = pocket.adapt(hidden, lengths, "first")
    ids = torch.tensor([[9, 3, 3, 3, 3, 10, 11], [9, 3, 3, 3, 12, 13, 14]])
    loss = pocket(ids, audio=audio, labels=ids.masked_fill(ids == 3, -100)).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pocket.trainable_parameters("first"))
    assert all(p.grad is None for p in pocket.language_model.parameters())


def test_from_parts_starts_at_the_embeddings_scale() -> None:
    config = pocket_config()
    parts = FusedModel(config)
    with torch.no_grad():
        parts.get_input_embeddings().weight.mul_(30)
    ears = {name: module for name, module in parts.encoders.items() if isinstance(module, EarEncoder)}
    model = FusedModel.from_parts(
        parts.language_model,
        ears,
        passes={"first": PassConfig.from_dict({"adapters": {"speech": small(2, 2)}, "head": "linear"})},
        audio_token_id=3,
        layers={"speech": (0, 1)},
    )
    assert model.language_model is parts.language_model
    assert not any(p.is_meta for p in model.parameters())
    assert model.config.encoder_spec("speech").layers == (0, 1)
    tokens = model.encode_audio([np.ones(16_000, np.float32)])[0]
    std = float(parts.get_input_embeddings().weight.std())
    assert tokens.std().item() == pytest.approx(std, rel=0.2)
    head = model.passes["first"].head
    assert isinstance(head, LinearHead)
    assert head.norm.weight[0].item() == pytest.approx(std)


def test_heads_start_where_they_should() -> None:
    audio_pass = FusedModel(pocket_config(blank_token_id=5)).passes["first"]
    assert isinstance(audio_pass, AudioPass)
    assert isinstance(audio_pass.head, AlignHead)
    bias = audio_pass.head.linear.bias.detach()
    assert bias[5] == 2.0
    assert bias.count_nonzero() == 1
    embeddings = torch.randn(160, 32)
    tokens = audio_pass.head(torch.randn(1, 4, 48), embeddings)
    weights = torch.linalg.lstsq(embeddings.T, tokens[0].T).solution
    assert torch.allclose(embeddings.T @ weights, tokens[0].T, atol=1e-3)
    assert torch.allclose(audio_pass.mixes["events"].weights.softmax(0), torch.full((2,), 0.5))


def test_what_a_checkpoint_lacks_starts_fresh(pocket: FusedModel, tmp_path: Any) -> None:
    pocket.save_pretrained(tmp_path)
    again = FusedModel.from_pretrained(tmp_path, config=pocket_config(boundary=True))
    first = again.passes["first"]
    assert isinstance(first, AudioPass)
    assert first.boundary is not None
    assert 0.005 < float(first.boundary.detach().std()) < 0.05
    assert torch.equal(first.head.linear.bias, pocket.passes["first"].head.linear.bias)
