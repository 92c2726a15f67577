"""Pocket's stages for recipes: text LLM, encoders, targets, adapters, ship."""

from __future__ import annotations

from earnest.pocket import adapters as _adapters
from earnest.pocket import ears as _ears
from earnest.pocket import ship as _ship
from earnest.pocket import targets as _targets
from earnest.pocket import text_llm as _text_llm
from earnest.training.recipes import Context, Stage


def _run_text_llm(settings: _text_llm.TextLLMSettings, context: Context) -> None:
    _text_llm.train(settings, context.folder, log=context.log)


def _run_encoders(settings: _ears.EarSettings, context: Context) -> None:
    _ears.train(settings, context.folder, log=context.log)


def _run_targets(settings: _targets.TargetSettings, context: Context) -> None:
    _targets.write(settings, context.root / "text-llm", context.folder, log=context.log)


def _run_adapters(settings: _adapters.AdapterSettings, context: Context) -> None:
    source = context.stages["targets"]
    _adapters.train(settings, source, context.root, context.folder, log=context.log)


def _run_ship(settings: _ship.ShipSettings, context: Context) -> None:
    _ship.ship(settings, context.root, context.stages, log=context.log)


text_llm = Stage(_text_llm.TextLLMSettings, _run_text_llm)
encoders = Stage(_ears.EarSettings, _run_encoders)
targets = Stage(_targets.TargetSettings, _run_targets, ("text-llm",))
adapters = Stage(_adapters.AdapterSettings, _run_adapters, ("text-llm", "encoders", "targets"))
ship = Stage(_ship.ShipSettings, _run_ship, ("adapters",), publishes=True)
