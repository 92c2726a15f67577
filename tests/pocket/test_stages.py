"""The stages themselves, with a handful of steps: they run, they resume to the same weights, they fit together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from earnest.pocket import adapters, ears, targets, text_llm
from earnest.pocket.adapters import AdapterSettings
from earnest.pocket.ears import EarSettings
from earnest.pocket.targets import Target, TargetSettings
from earnest.pocket.text_llm import TextLLMSettings
from earnest.pocket.tokenizer import build_tokenizer
from earnest.training.checkpoint import Checkpointer

LLM = TextLLMSettings(layers=1, steps=4, batch_size=2, turns=2, recall_steps=1, places_steps=1, threads=1)


class _Killed(BaseException):
    pass


def _quiet(_: str) -> None:
    pass


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpointer, "due", lambda self, step: True)


def _killed_and_resumed(train: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains into a folder, dies after the second step's checkpoint, and goes on."""
    save = Checkpointer.save

    def save_and_die(self: Checkpointer, state: dict[str, Any]) -> None:
        save(self, state)
        if state["step"] == 2:
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", save_and_die)
        with pytest.raises(_Killed):
            train(folder)
    assert (folder / "checkpoint.pt").exists()
    train(folder)
    assert not (folder / "checkpoint.pt").exists()


def _same(first: Path, second: Path) -> bool:
    whole, resumed = _weights(first), _weights(second)
    return all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.usefixtures("every_step")
def test_a_killed_text_llm_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text_llm.train(LLM, tmp_path / "whole", log=_quiet)
    _killed_and_resumed(lambda folder: text_llm.train(LLM, folder, log=_quiet), tmp_path / "killed", monkeypatch)
    assert _same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.usefixtures("every_step")
def test_every_stage_runs_and_the_result_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole rebuild in miniature, ending in a folder that `earnest.load` takes; ears and adapters resume."""
    import earnest
    from earnest.audio import Clip

    ears_settings = EarSettings(scenes=6, steps=3, batch_size=2, event_width=16, speech_width=16, blocks=1, workers=1)
    source = TargetSettings(scenes=4, turns=2, threads=1)
    text_llm.train(LLM, tmp_path / "text-llm", log=_quiet)
    ears_settings = replace(ears_settings, threads=1)
    ears.train(ears_settings, tmp_path / "encoders", log=_quiet)
    _killed_and_resumed(lambda folder: ears.train(ears_settings, folder, log=_quiet), tmp_path / "ears", monkeypatch)
    assert all(_same(tmp_path / "encoders" / name, tmp_path / "ears" / name) for name in ("events", "speech"))
    targets.write(source, tmp_path / "text-llm", tmp_path / "targets", log=_quiet)
    path = tmp_path / "targets" / "targets.jsonl"
    # An untrained LLM writes nothing that could be learned: the reference replies of two clips stand in.
    rows = [Target(k, "is there a dog?", "<answer> no</answer>", "<answer> no</answer>", "no leak") for k in (0, 2)]
    path.write_text("".join(json.dumps(row.__dict__) + "\n" for row in rows))
    small = AdapterSettings(width=16, warm_steps=2, steps=2, batch_size=2, workers=1, threads=1)
    folder = adapters.train(small, source, tmp_path, tmp_path / "adapters", log=_quiet)
    _killed_and_resumed(
        lambda killed: adapters.train(small, source, tmp_path, killed, log=_quiet), tmp_path / "killed", monkeypatch
    )
    assert _same(folder, tmp_path / "killed")
    engine = earnest.load(str(folder), threads=1)
    reply = earnest.ask(engine, Clip.silence(2.5), "is there a dog?", max_new_tokens=4)
    assert reply.heard.seconds_heard == pytest.approx(2.5)
    assert reply.heard.audio_tokens == 10


def test_the_layout_of_training_is_the_processors(tmp_path: Path) -> None:
    from earnest.fused import FusedModel, FusedProcessor, PassConfig
    from earnest.pocket.ears import new_ear
    from earnest.pocket.tokenizer import AUDIO, AUDIO_END, AUDIO_START, TIME

    tokenizer = build_tokenizer()
    llm = text_llm.new_model(tokenizer, LLM)
    model = FusedModel.from_parts(
        llm,
        {"events": new_ear(("pitch",), 16, 1)},
        {
            "first": PassConfig.from_dict(
                {"adapters": {"events": {"widths": (8, 8), "kernels": (5, 5), "strides": (2, 2)}}}
            )
        },
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO),
    )
    processor = FusedProcessor.from_config(
        model.config, tokenizer, audio_token=AUDIO, audio_start_token=AUDIO_START, audio_end_token=AUDIO_END,
        time_marker_s=1.0, time_marker_format=TIME,
    )  # fmt: skip
    for samples in (1, 4096, 4097, 16_000, 100_000, 60 * 16_000):
        slots = adapters.audio_slots(model.config.budget("first").tokens(samples))
        expected = [tokenizer.convert_tokens_to_ids(slot.piece) for slot in slots]
        assert processor.audio_ids(samples)[1:-1] == expected
