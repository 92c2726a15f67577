from typing import Any

import pytest
import torch
from tiny_fused import pocket_config, scattered

from earnest.errors import ModelError
from earnest.fused import FusedModel, FusedProcessor, PassConfig
from earnest.fused.ensemble import ensemble


def other_ears(model: FusedModel) -> FusedModel:
    """The same LLM and encoders behind another pass, at half the rate."""
    spec = model.config.pass_specs["first"].to_dict()
    spec["adapters"] = {"speech": {**spec["adapters"]["speech"], "strides": (2, 4)}}
    return FusedModel.from_parts(
        model.language_model, dict(model.encoders.items()), {"first": PassConfig.from_dict(spec)}, audio_token_id=3,
        layers={s.name: s.layers for s in model.config.encoder_specs},
    )  # fmt: skip


@torch.no_grad()
def test_both_are_heard_one_after_the_other(pocket: FusedModel, tokenizer: Any, noise: Any, tmp_path: Any) -> None:
    first = FusedProcessor.from_config(pocket.config, tokenizer, time_marker_s=1)
    second_model = other_ears(pocket)
    second = FusedProcessor.from_config(second_model.config, tokenizer, time_marker_s=1)
    model, processor = ensemble(pocket, first, second_model, second)
    clips = noise(2.0, 0.7)
    apart = zip(pocket.encode_audio(clips), second_model.encode_audio(clips), strict=True)
    for whole, parts in zip(model.encode_audio(clips), apart, strict=True):
        assert torch.equal(whole, torch.cat(parts))
    assert processor.audio_ids(32_000) == [*first.audio_ids(32_000), *second.audio_ids(32_000)]
    assert processor.audio_tokens(32_000) == first.audio_tokens(32_000) + second.audio_tokens(32_000)
    assert processor.covered_samples(processor.audio_tokens(32_000), 32_000) == 32_000
    assert processor.covered_samples(1, 32_000) < 32_000
    ids = processor("<user> <audio> what <assistant>", audio=clips[:1])
    found = model.generate(**ids, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path)
    again = FusedModel.from_pretrained(tmp_path)
    assert torch.equal(again.generate(**ids, max_new_tokens=3, do_sample=False), found)


def test_only_ears_of_one_llm(pocket: FusedModel, tokenizer: Any) -> None:
    processor = FusedProcessor.from_config(pocket.config, tokenizer)
    with pytest.raises(ModelError, match="different LLMs"):
        ensemble(pocket, processor, scattered(pocket_config()), processor)
    second = other_ears(pocket)
    own = FusedProcessor.from_config(second.config, tokenizer)
    both, joined = ensemble(pocket, processor, second, own)
    with pytest.raises(ModelError, match="is an ensemble"):
        ensemble(both, joined, second, own)
    ear = scattered(pocket_config()).encoders["speech"]
    changed = FusedModel.from_parts(
        pocket.language_model, {"speech": ear}, second.config.passes, audio_token_id=3
    )  # fmt: skip
    with pytest.raises(ModelError, match="different encoders called 'speech'"):
        ensemble(pocket, processor, changed, own)


def test_the_leading_ear_and_the_marks_must_stay(pocket: FusedModel, tokenizer: Any) -> None:
    first = FusedProcessor.from_config(pocket.config, tokenizer, time_marker_s=1)
    with pytest.raises(ModelError, match="mark audio or time differently"):
        ensemble(pocket, first, other_ears(pocket), FusedProcessor.from_config(other_ears(pocket).config, tokenizer))
    spec = pocket.config.pass_specs["first"].to_dict()
    ears = dict(reversed(pocket.encoders.items()))
    layers = {one.name: one.layers for one in pocket.config.encoder_specs}
    passes = {"first": PassConfig.from_dict({**spec, "adapters": dict(reversed(spec["adapters"].items()))})}
    turned = FusedModel.from_parts(pocket.language_model, ears, passes, audio_token_id=3, layers=layers)
    second = FusedProcessor.from_config(turned.config, tokenizer, time_marker_s=1)
    with pytest.raises(ModelError, match="hears through speech, events, here they stand as events, speech"):
        ensemble(pocket, first, turned, second)
