from typing import Any

import numpy as np
import pytest
import torch
from tiny_fused import every_encoder, large_config
from transformers import AutoConfig, AutoModel

from earnest.errors import ModelError
from earnest.fused import EarConfig, EarEncoder, EncoderSpec, MelConfig, log_mel
from earnest.fused.encoders import KINDS, encode_features, extract_features, windows


def test_no_mel_band_is_deaf() -> None:
    config = MelConfig()
    seconds = torch.arange(16_000) / 16_000
    quiet = log_mel(torch.zeros(16_000), config)
    assert quiet.shape == (1, 63, 64)
    heard = torch.stack(
        [log_mel(0.1 * torch.sin(2 * torch.pi * hz * seconds), config)[0, 30] for hz in np.geomspace(45, 7700, 400)]
    )
    assert (heard.amax(0) > quiet[0, 30] + 1).all()
    assert heard[0].argmax() < 3
    assert heard[-1].argmax() > 60


def test_zeros_after_a_clip_change_none_of_its_frames() -> None:
    clip = torch.randn(5_000)
    alone = log_mel(clip, MelConfig())
    padded = log_mel(torch.cat([clip, torch.zeros(9_000)]), MelConfig())
    torch.testing.assert_close(padded[:, : alone.shape[1]], alone)


def test_ear_size_rate_and_heads() -> None:
    ear = EarEncoder(EarConfig(heads={"sound": 33, "word": 60}))
    assert 0.3e6 < sum(p.numel() for p in ear.parameters()) < 0.6e6
    out = ear(log_mel(torch.randn(2, 160_000), ear.config.mel_config))
    assert out.last_hidden_state.shape == (2, 157, 128)  # 15.6 a second
    assert len(out.hidden_states) == 5
    assert {name: tuple(v.shape) for name, v in out.logits.items()} == {"sound": (2, 157, 33), "word": (2, 157, 60)}


def test_ear_alone_and_in_a_batch() -> None:
    ear = EarEncoder(EarConfig(width=16)).eval()
    mel = torch.randn(1, 41, 64)
    alone = ear(mel).last_hidden_state
    batch = torch.cat([torch.nn.functional.pad(mel, (0, 0, 0, 59), value=7.0), torch.randn(1, 100, 64)])
    together = ear(batch, torch.tensor([41, 100])).last_hidden_state
    assert alone.shape[1] == 11
    torch.testing.assert_close(together[:1, :11], alone)
    assert not together[0, 11:].any()


def test_ear_round_trip_through_auto(tmp_path: Any) -> None:
    ear = EarEncoder(EarConfig(width=16, mel={"n_mels": 32}, heads={"sound": 3})).eval()
    ear.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), EarConfig)
    again = AutoModel.from_pretrained(tmp_path)
    mel = torch.randn(1, 20, 32)
    assert torch.equal(again(mel).last_hidden_state, ear(mel).last_hidden_state)


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("seconds", [0.0001, 0.02, 0.33, 1.0, 2.37])
def test_every_encoder_keeps_the_frame_rule(index: int, seconds: float) -> None:
    spec = every_encoder()[index]
    module = KINDS[spec.model_type].build(spec).eval()
    rng = np.random.default_rng(0)
    clip, other = (rng.standard_normal(max(1, round(16_000 * s))).astype(np.float32) for s in (seconds, 2.6))
    frames = -(-clip.size // spec.geometry.samples_per_frame)
    with torch.no_grad():
        alone = encode_features(module, spec, extract_features(spec, [clip]), torch.tensor([clip.size]))
        both = encode_features(
            module, spec, extract_features(spec, [clip, other]), torch.tensor([clip.size, other.size])
        )
    assert alone.shape == (1, frames, 16 * len(spec.layers))
    torch.testing.assert_close(both[:1, :frames], alone, atol=1e-5, rtol=1e-4)
    assert not both[0, frames:].any()


def test_windowed_encoder_hears_each_chunk_by_itself() -> None:
    spec = large_config({"kind": "ca"}).encoder_specs[0]
    module = KINDS["whisper"].build(spec).eval()
    clip = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    parts = [clip[:16_000], clip[16_000:32_000], clip[32_000:]]

    def encode(clips: list[np.ndarray]) -> torch.Tensor:
        with torch.no_grad():
            lengths = torch.tensor([c.size for c in clips])
            return encode_features(module, spec, extract_features(spec, clips), lengths)

    whole = encode([clip])[0]
    assert whole.shape[0] == 125
    torch.testing.assert_close(whole, torch.cat([encode([part])[0] for part in parts]), atol=1e-5, rtol=1e-4)
    assert windows(40_000, 16_000) == [16_000, 16_000, 8_000]


def test_bad_specs_are_named() -> None:
    with pytest.raises(ModelError, match="known types: earnest_ear, whisper, wav2vec2-bert, data2vec-audio"):
        _ = EncoderSpec("x", {"model_type": "hubert"}).encoder_config
    with pytest.raises(ModelError, match="must be an identifier"):
        EncoderSpec("a.b", {})
    with pytest.raises(ModelError, match=r"window_s 0\.01 must hold a frame"):
        _ = EncoderSpec("x", {"model_type": "earnest_ear"}, window_s=0.01).geometry
    with pytest.raises(ModelError, match="MelConfig has no mels; it has n_fft"):
        _ = EarConfig(mel={"mels": 3}).mel_config


@pytest.mark.parametrize("index", range(5))
def test_a_frame_stands_for_its_moment(index: int) -> None:
    spec = every_encoder()[index]
    module = KINDS[spec.model_type].build(spec).eval()
    rng = np.random.default_rng(1)
    clip = (0.01 * rng.standard_normal(16_000)).astype(np.float32)
    changed = clip.copy()
    changed[11_200:12_000] += rng.standard_normal(800).astype(np.float32)  # 0.70 to 0.75 s
    with torch.no_grad():
        before, after = (
            encode_features(module, spec, extract_features(spec, [c]), torch.tensor([c.size])) for c in (clip, changed)
        )
    middle_s = (float((after - before).norm(dim=-1)[0].argmax()) + 0.5) * spec.geometry.samples_per_frame / 16_000
    assert middle_s == pytest.approx(0.725, abs=0.12)
