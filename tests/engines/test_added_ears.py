"""Ears that come with adapters of a fused model: a cheap first pass beside the model's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_fused, tiny_pocket, tone
from tests.tiny_hearing import tiny_qwen2_audio
from transformers import AutoModelForCausalLM, AutoProcessor

import earnest
from earnest.completion import Completion, Sampling, content_key
from earnest.conversation import Audio, Conversation
from earnest.engines.families.added_ears import WEIGHTS, save_added, with_added
from earnest.engines.load import load_local, model_key
from earnest.engines.local import LocalEngine
from earnest.engines.lora import EARS, adapter_key, ears_of
from earnest.engines.weights import folder_key
from earnest.errors import ModelError
from earnest.relistening.scan import EAR, ScanSettings, with_scan
from earnest.training.lora_trainer import LoraSettings
from earnest.training.sft import Lesson, fine_tune

CLIP = tone(440, 5.0)
NUMBERS = ScanSettings(bands=12, hop=1024, width=16, blocks=1, adapter_width=16, stride=4)


def read(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), AutoProcessor.from_pretrained(folder)


class Folders:
    """A model, the same with a scan before it, the scan alone, and an adapter of the LLM that lies below it."""

    def __init__(self, root: Path) -> None:
        self.model = tiny_pocket(root / "model")
        both, processor = with_scan(*read(self.model), NUMBERS)
        with torch.no_grad():
            for parameter in (*both.encoders[EAR].parameters(), *both.passes["first"].parameters()):
                parameter.add_(0.3 * torch.randn_like(parameter))
        both.half().save_pretrained(root / "whole")
        processor.save_pretrained(root / "whole")
        self.whole, self.ears = root / "whole", root / "ears"
        save_added(read(self.whole, torch.float16)[0], self.ears, (EAR,), ("first",), {"fine": "first"})
        settings = LoraSettings(rank=2, parts="all", learning_rate=5e-2, epochs=2)
        lessons = [Lesson(lambda: Conversation().user("what is heard?"), "dog.")]
        self.adapter = root / "adapter"
        fine_tune(engine_of(self.model).family, lessons, settings, self.adapter, log=lambda _: None)
        self.below = self.ears / "sft"
        shutil.copytree(self.adapter, self.below)


def engine_of(folder: Path, adapter: Path | None = None) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("ears"))


def asked() -> list[Conversation]:
    question = Conversation().user(Audio(CLIP), "\n\nwhat is heard?")
    again = question.assistant("<think> i hear <seg>1, 2</seg>", Audio(CLIP.crop(1.0, 2.0), fine=True))
    return [question, again, Conversation().user("hello")]


def said(engine: Any) -> list[Completion]:
    return engine.generate(asked(), Sampling(max_new_tokens=12))


def same(one: list[Completion], two: list[Completion]) -> bool:
    own, other = ([(c.text, c.token_ids, c.logprobs, c.heard) for c in each] for each in (one, two))
    return own == other


def test_what_was_added_comes_back(held: Folders) -> None:
    whole, added = engine_of(held.whole), engine_of(held.model, held.ears)
    clips = [CLIP.samples, tone(600, 0.3).samples]
    for fine in (False, True):
        pairs = zip(
            whole.family.model.encode_audio(clips, [fine] * 2), added.family.model.encode_audio(clips, [fine] * 2),
            strict=True,
        )  # fmt: skip
        assert all(torch.equal(one, two) for one, two in pairs)
    assert same(said(whole), said(added))
    bare = engine_of(held.model)
    assert not same(said(bare)[:1], said(added)[:1]), "the clip is heard by another ear"
    assert said(bare)[1].error, "and it has no finer pass"
    assert same(said(bare)[2:], said(added)[2:]), "without audio it is the same model"
    assert said(added)[0].heard.audio_tokens == 5 and said(bare)[0].heard.audio_tokens == 20


def test_llm_and_ears_are_taken_over_and_not_copied(held: Folders) -> None:
    model, processor = read(held.model)
    both, own = with_added(model, processor, held.ears)
    assert both.language_model is model.language_model
    assert both.encoders["events"] is model.encoders["events"]
    assert both.passes["fine"] is model.passes["first"]
    assert own.time_marker_format == processor.time_marker_format
    assert own.budgets.keys() == {"first", "fine"}
    assert not both.training
    assert {parameter.dtype for parameter in both.parameters()} == {torch.float32}


def test_only_what_was_added_is_in_the_folder(held: Folders) -> None:
    names = load_file(held.ears / WEIGHTS)
    assert all(name.startswith((f"encoders.{EAR}.", "passes.first.")) for name in names)
    row = json.loads((held.ears / EARS).read_text())
    assert [spec["name"] for spec in row["encoders"]] == [EAR]
    assert (list(row["passes"]), row["kept"]) == (["first"], {"fine": "first"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kept": {"fine": "second"}}, "builds on the pass 'second': this model has first"),
        ("less", "1 weights differ, such as encoders.scan."),
        ("more", "1 weights differ, such as passes.first.odd"),
        ("wider", "do not fit this model"),
    ],
)
def test_what_does_not_fit_is_said(held: Folders, tmp_path: Path, change: Any, says: str) -> None:
    shutil.copytree(held.ears, tmp_path / "ears", ignore=lambda *_: ["sft"])
    if isinstance(change, dict):
        row = json.loads((held.ears / EARS).read_text())
        (tmp_path / "ears" / EARS).write_text(json.dumps({**row, **change}))
    else:
        weights = load_file(held.ears / WEIGHTS)
        name = next(iter(sorted(weights)))
        if change == "less":
            del weights[name]
        elif change == "more":
            weights["passes.first.odd"] = torch.zeros(1)
        else:
            weights[name] = torch.zeros(*weights[name].shape, 2)
        save_file(weights, tmp_path / "ears" / WEIGHTS)
    with pytest.raises(ModelError, match=says):
        engine_of(held.model, tmp_path / "ears")


def test_an_adapter_below_brings_the_ears_along(held: Folders) -> None:
    engine: Any = earnest.load(str(held.model), device="cpu", threads=1, adapter=held.below)
    expected = said(engine_of(held.whole, held.adapter))
    assert same(said(engine), expected)
    assert not same(expected, said(engine_of(held.whole))), "the adapter changes what is said"
    # Put on for a while, over ears that are there from the start.
    added: Any = earnest.load(str(held.model), device="cpu", threads=1, adapter=held.ears)
    before = said(added)
    with added.wearing(held.below):
        assert same(said(added), expected)
    assert same(said(added), before)


def test_the_key_knows_the_ears(held: Folders, tmp_path: Path) -> None:
    assert ears_of(held.ears) == ears_of(held.below) == held.ears
    assert ears_of(held.adapter) is None
    assert adapter_key(held.adapter) == folder_key(held.adapter), "without ears as it always was"
    assert adapter_key(held.ears) == folder_key(held.ears)
    assert adapter_key(held.below) == content_key([folder_key(held.below), folder_key(held.ears)])
    shutil.copytree(held.ears, tmp_path / "other")
    assert adapter_key(tmp_path / "other" / "sft") == adapter_key(held.below), "wherever it lies"
    weights = load_file(tmp_path / "other" / WEIGHTS)
    save_file({name: 2 * tensor for name, tensor in weights.items()}, tmp_path / "other" / WEIGHTS)
    keys = {adapter_key(folder) for folder in (held.adapter, held.below, tmp_path / "other" / "sft")}
    assert len(keys) == 3
    found = {adapter: model_key(str(held.model), adapter=adapter) for adapter in (None, held.ears, held.below)}
    assert len(set(found.values())) == 3
    assert {adapter: engine_of(held.model, adapter).key for adapter in found} == found


def test_without_ears_an_adapter_is_put_on_as_ever(held: Folders, tmp_path: Path) -> None:
    from earnest.engines.lora import put_on

    engine = engine_of(held.model, held.adapter)
    by_hand = engine_of(held.model)
    put_on(by_hand.family.model, held.adapter)
    assert same(said(engine), said(by_hand))
    assert set(engine.family.model.passes) == {"first"}
    two = tiny_fused(tmp_path / "fused")
    assert set(engine_of(two).family.model.passes) == {"first", "fine"}


def test_ears_are_for_fused_models(held: Folders, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit this model"):
        engine_of(tiny_qwen2_audio(tmp_path / "qwen"), held.ears)
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        engine_of(held.model, tmp_path)
