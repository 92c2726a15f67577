"""Adapters that peft saved, on top of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_audio_flamingo3, tiny_qwen2_audio

from earnest.completion import Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.load import load_local, model_key
from earnest.engines.local import LocalEngine
from earnest.errors import ModelError

ASKED = [Conversation().user(Audio(tone(300 + 90 * k, 1.0)), "what?") for k in range(3)]


def engine_of(folder: Path, adapter: Path | None = None) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


def adapter_of(folder: Path, to: Path, scale: float = 0.5) -> Path:
    """A LoRA adapter of the LLM with random weights."""
    family: Any = engine_of(folder).family
    torch.manual_seed(1)
    model = get_peft_model(family.model, LoraConfig(r=4, target_modules=family.lora_targets()))
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
