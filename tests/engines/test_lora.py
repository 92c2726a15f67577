"""Adapters that peft saved, on top of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_audio_flamingo3, tiny_qwen2_audio

from earnest.completion import Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.load import load_local, model_key
from earnest.engines.local import LocalEngine
from earnest.engines.lora import CONFIG, chained, copy_adapter, put_on
from earnest.errors import ModelError

ASKED = [Conversation().user(Audio(tone(300 + 90 * k, 1.0)), "what?") for k in range(3)]


def engine_of(folder: Path, adapter: Path | None = None) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


def adapter_of(folder: Path, to: Path, scale: float = 0.5, *parts: str, **config: int) -> Path:
    """A LoRA adapter of the LLM with random weights."""
    family: Any = engine_of(folder).family
    torch.manual_seed(config.pop("seed", 1))
    model = get_peft_model(family.model, LoraConfig(**{"r": 4, **config}, target_modules=family.lora_targets(*parts)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, scale)
    model.save_pretrained(to)
    return to


@pytest.mark.parametrize("make", [tiny_qwen2_audio, tiny_fused])
def test_an_adapter_changes_the_answers_as_peft_says(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    adapter = adapter_of(folder, tmp_path / "adapter")
    plain, worn = engine_of(folder), engine_of(folder, adapter)
    sampling = Sampling(max_new_tokens=8)
    before, after = plain.generate(ASKED, sampling), worn.generate(ASKED, sampling)
    assert [c.token_ids for c in before] != [c.token_ids for c in after]
    # Merged into the weights by peft itself, it says the same.
    from peft import PeftModel

    merged = engine_of(folder)
    PeftModel.from_pretrained(merged.family.model, adapter).merge_and_unload()
    assert [c.token_ids for c in merged.generate(ASKED, sampling)] == [c.token_ids for c in after]


def test_an_adapter_is_part_of_the_key(tmp_path: Path) -> None:
    folder = tiny_qwen2_audio(tmp_path / "model")
    one, other = adapter_of(folder, tmp_path / "one"), adapter_of(folder, tmp_path / "other", 0.1)
    keys = {model_key(str(folder), adapter=adapter) for adapter in (None, one, other)}
    assert len(keys) == 3
    assert engine_of(folder, one).key == model_key(str(folder), adapter=one)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = tiny_qwen2_audio(tmp_path / "model")
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        engine_of(folder, tmp_path)
    wider = tiny_qwen2_audio(tmp_path / "wider", text={"hidden_size": 128})
    with pytest.raises(ModelError, match="does not fit this model"):
        engine_of(folder, adapter_of(wider, tmp_path / "wide"))
    deeper = tiny_qwen2_audio(tmp_path / "deeper", text={"num_hidden_layers": 3})
    with pytest.raises(ModelError, match="does not fit this model"):
        engine_of(folder, adapter_of(deeper, tmp_path / "deep"))
    with pytest.raises(ModelError, match="let it load"):
        model_key("server:http://127.0.0.1:1/v1#m", adapter=tmp_path)


@pytest.mark.parametrize("make", [tiny_audio_flamingo3, tiny_fused])
def test_the_targets_of_an_architecture_leave_its_ear_alone(make: Any, tmp_path: Path) -> None:
    family: Any = engine_of(make(tmp_path / "model")).family
    model = get_peft_model(family.model, LoraConfig(r=2, target_modules=family.lora_targets()))
    touched = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert touched
    assert all("language_model" in name for name in touched)
    assert not any("audio_tower" in name or "encoders" in name for name in touched)


def test_an_adapter_that_is_switched_or_merged_is_noticed(tmp_path: Path) -> None:
    folder = tiny_qwen2_audio(tmp_path / "model")
    plain = [c.token_ids for c in engine_of(folder).generate(ASKED, Sampling(max_new_tokens=8))]
    engine = engine_of(folder, adapter_of(folder, tmp_path / "adapter"))
    layers = [module for module in engine.family.model.modules() if isinstance(module, BaseTunerLayer)]

    def replies() -> list[tuple[int, ...]]:
        return [c.token_ids for c in engine.generate(ASKED, Sampling(max_new_tokens=8))]

    worn, key = replies(), engine.key
    assert worn != plain
    for layer in layers:
        layer.enable_adapters(False)
    assert replies() == plain
    assert engine.key != key
    for layer in layers:
        layer.enable_adapters(True)
    assert (replies(), engine.key) == (worn, key)
    for layer in layers:
        layer.merge()
    assert engine.key != key
    assert replies() == worn


@pytest.mark.parametrize("make", [tiny_qwen2_audio, tiny_fused])
def test_a_chain_does_what_one_adapter_does_on_top_of_another(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    first = adapter_of(folder, tmp_path / "first", 0.1, r=4, lora_alpha=16, seed=1)
    second = adapter_of(folder, tmp_path / "second", 0.1, r=6, lora_alpha=3, seed=2)
    merged = engine_of(folder)
    put_on(merged.family.model, first).merge_and_unload()
    chained([first, second], tmp_path / "both")
    # All matrices of the two stand side by side in one: it must not be longer than that, nor scaled.
    config = json.loads((tmp_path / "both" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"]) == (10, 10)
    reply = [list(range(40, 60))] * len(ASKED)
    worn = engine_of(folder)
    bare, alone = worn.logprobs(ASKED, reply), engine_of(folder, first).logprobs(ASKED, reply)
    with merged.wearing(second), worn.wearing(tmp_path / "both"):
        for one, two in zip(merged.logprobs(ASKED, reply), worn.logprobs(ASKED, reply), strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
        for other in (bare, alone):
            assert not torch.allclose(worn.logprobs(ASKED, reply)[0], other[0], atol=1e-2)
        torch.testing.assert_close(merged.last_hidden(ASKED), worn.last_hidden(ASKED), atol=1e-5, rtol=1e-5)


def test_a_chain_is_of_like_adapters_and_replaces_what_was_there(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "model")
    one = adapter_of(folder, tmp_path / "one")
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "old").touch()
    with pytest.raises(ModelError, match=r"change different matrices, such as .*mlp.*: chain like ones"):
        chained([one, adapter_of(folder, tmp_path / "attention", 0.5, "attention")], tmp_path / "both")
    assert (tmp_path / "both" / "old").exists(), "what cannot be chained takes nothing away"
    chained([one], tmp_path / "both")
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == [CONFIG, "adapter_model.safetensors"]
    with engine_of(folder).wearing(tmp_path / "both"):
        pass
    replies = [
        [c.token_ids for c in engine_of(folder, own).generate(ASKED, Sampling(max_new_tokens=8))]
        for own in (one, tmp_path / "both")
    ]
    assert replies[0] == replies[1]


def test_a_copy_may_be_of_another_precision(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "model")
    one = adapter_of(folder, tmp_path / "one")
    copy_adapter(one, tmp_path / "same")
    copy_adapter(one, tmp_path / "half", dtype="float16")
    name = "adapter_model.safetensors"
    whole, same, half = (load_file(own / name) for own in (one, tmp_path / "same", tmp_path / "half"))
    assert all(torch.equal(whole[key], same[key]) for key in whole)
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    assert all(torch.equal(half[key], whole[key].half()) for key in whole)
    assert (tmp_path / "half" / CONFIG).read_bytes() == (one / CONFIG).read_bytes()
    # Worn by a model of single precision, it is as it was but for the rounding.
    scored = [engine_of(folder, own).logprobs(ASKED, [[40, 41]] * 3) for own in (one, tmp_path / "half")]
    for full, rounded in zip(*scored, strict=True):
        torch.testing.assert_close(full, rounded, atol=5e-2, rtol=1e-2)
        assert not torch.equal(full, rounded)
