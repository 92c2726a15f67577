"""Pocket's stages for recipes: text LLM, encoders, targets, adapters, ship."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from earnest.pocket import adapters as _adapters
from earnest.pocket import clips as _clips
from earnest.pocket import curriculum as _curriculum
from earnest.pocket import ears as _ears
from earnest.pocket import language as _language
from earnest.pocket import ship as _ship
from earnest.pocket import stream as _stream
from earnest.pocket import targets as _targets
from earnest.pocket import text_llm as _text_llm
from earnest.pocket import tokenizer as _tokenizer
from earnest.pocket import world_questions as _world_questions
from earnest.training.recipes import Context, Stage
from earnest.world.dataset import world_version


def _run_text_llm(settings: _text_llm.TextLLMSettings, context: Context) -> None:
    _text_llm.train(settings, context.folder, log=context.log)


def _run_encoders(settings: _ears.EarSettings, context: Context) -> None:
    _ears.train(settings, context.folder, log=context.log)


def _run_targets(settings: _targets.TargetSettings, context: Context) -> None:
    _targets.write(settings, context.root / "text-llm", context.folder, log=context.log)


def _run_adapters(settings: _adapters.AdapterSettings, context: Context) -> None:
    _adapters.train(settings, context.root, context.folder, log=context.log)


def _run_ship(settings: _ship.ShipSettings, context: Context) -> None:
    _ship.ship(settings, context.root, context.stages, log=context.log)


def _made_of(*modules: ModuleType) -> Callable[[object], list[str]]:
    """Keys of the sources that decide what is learnt, and of the world's: what others made is not gone on with."""

    def keys(_: object) -> list[str]:
        sources = b"".join(Path(module.__file__ or "").read_bytes() for module in modules)
        return [world_version(), hashlib.sha256(sources).hexdigest()[:16]]

    return keys


text_llm = Stage(
    _text_llm.TextLLMSettings, _run_text_llm, made_of=_made_of(_curriculum, _language, _stream, _tokenizer)
)
encoders = Stage(_ears.EarSettings, _run_encoders, made_of=_made_of(_clips))
targets = Stage(_targets.TargetSettings, _run_targets, ("text-llm",), made_of=_made_of(_clips, _world_questions))
adapters = Stage(_adapters.AdapterSettings, _run_adapters, ("text-llm", "encoders", "targets"))
ship = Stage(_ship.ShipSettings, _run_ship, ("adapters",), publishes=True)
