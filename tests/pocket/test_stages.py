"""The stages themselves, with a handful of steps: they run, they resume to the same weights, they fit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from earnest.alignment.rows import Asked, Target, as_kind, load_rows, save_rows
from earnest.errors import EarnestError
from earnest.pocket import adapters, ears, stages, targets, text_llm
from earnest.pocket.adapters import AdapterSettings
from earnest.pocket.ears import EarSettings
from earnest.pocket.targets import TargetSettings
from earnest.pocket.text_llm import TextLLMSettings
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


def _killed_and_resumed(
    train: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "checkpoint.pt"
) -> None:
    """Trains into a folder, dies after the second step's checkpoint of that name, and goes on."""
    save = Checkpointer.save

    def save_and_die(self: Checkpointer, state: dict[str, Any]) -> None:
        save(self, state)
        if state["step"] == 2 and self.path.name == name:
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", save_and_die)
        with pytest.raises(_Killed):
            train(folder)
    assert (folder / name).exists()
    train(folder)
    assert not list(folder.glob("*.pt"))


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
    source = TargetSettings(scenes=4, turns=2, max_new_tokens=8, workers=1, threads=1)
    text_llm.train(LLM, tmp_path / "text-llm", log=_quiet)
    ears_settings = replace(ears_settings, threads=1)
    ears.train(ears_settings, tmp_path / "encoders", log=_quiet)
    _killed_and_resumed(lambda folder: ears.train(ears_settings, folder, log=_quiet), tmp_path / "ears", monkeypatch)
    assert all(_same(tmp_path / "encoders" / name, tmp_path / "ears" / name) for name in ("events", "speech"))
    targets.write(source, tmp_path / "text-llm", tmp_path / "targets", log=_quiet)
    # An untrained LLM writes nothing that could be learned: reference replies stand in.
    asked = load_rows(tmp_path / "targets" / "questions" / "questions.jsonl", Asked)
    rows = [as_kind(row, Target, raw=row.answer, target=row.answer, reason="no leak") for row in asked]
    save_rows(rows, tmp_path / "targets" / "targets.jsonl")
    small = AdapterSettings(width=16, warm_steps=3, steps=3, batch_size=2, threads=1)
    folder = adapters.train(small, tmp_path, tmp_path / "adapters", log=_quiet)
    for name in ("warm.pt", "checkpoint.pt"):
        killed = tmp_path / f"killed at {name}"
        _killed_and_resumed(lambda out: adapters.train(small, tmp_path, out, log=_quiet), killed, monkeypatch, name)
        assert _same(folder, killed)
    engine = earnest.load(str(folder), threads=1)
    reply = earnest.ask(engine, Clip.silence(2.5), "is there a dog?", max_new_tokens=4)
    assert reply.heard.seconds_heard == pytest.approx(2.5)
    assert reply.heard.audio_tokens == 10


def test_other_sources_make_other_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, settings in (
        (stages.text_llm, LLM),
        (stages.encoders, EarSettings()),
        (stages.targets, TargetSettings()),
    ):
        before = stage.made_of(settings)
        with monkeypatch.context() as patch:
            patch.setattr(stages, "world_version", lambda: "another")
            assert stage.made_of(settings) != before
    sources = [stage.made_of(None)[1] for stage in (stages.text_llm, stages.encoders, stages.targets)]
    assert len(set(sources)) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [({"warm_steps": -1}, "warm_steps is -1"), ({"width": 0}, "width is 0"), ({"steps": 0}, "steps is 0")],
)
def test_bad_numbers_of_the_adapters_are_told_at_once(change: dict[str, int], said: str) -> None:
    with pytest.raises(EarnestError, match=said):
        AdapterSettings(**change)
