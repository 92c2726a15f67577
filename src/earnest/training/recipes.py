"""Recipes: run files that say which stages make a model, and with which numbers.

    out = "runs/pocket"

    [[stage]]
    name = "text-llm"
    steps = 2400

A stage reads what earlier stages left in `out`, writes its own folder there and is skipped when it is
complete with the same numbers; an interrupted stage goes on from its checkpoint.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from earnest.errors import RecipeError

STAGES: dict[str, str] = {
    "text-llm": "earnest.pocket.stages:text_llm",
    "text-llm-second": "earnest.pocket.stages:text_llm_second",
    "encoders": "earnest.pocket.stages:encoders",
    "targets": "earnest.pocket.stages:targets",
    "adapters": "earnest.pocket.stages:adapters",
    "ship": "earnest.pocket.stages:ship",
}
"""Stage names and where they are: `module:attribute` of a `Stage`. A concern adds its own line."""


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    Attributes:
        root: folder of the whole recipe.
        folder: the stage's own folder in it.
        stages: the settings of every stage of the recipe, by name.
        log: one line of progress.
    """

    root: Path
    folder: Path
    stages: Mapping[str, Any]
    log: Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A step of a recipe: a frozen dataclass of numbers and what is done with them."""

    settings: type[Any]
    run: Callable[[Any, Context], None]


@dataclass(frozen=True)
class Recipe:
    """A run file, checked: `stages` holds (name, stage, settings) in order."""

    path: Path
    out: Path
    stages: tuple[tuple[str, Stage, Any], ...]


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads and checks a recipe; all faults at once.

    Args:
        path: a TOML file.
        overrides: numbers that replace the file's in every stage that has them (`threads`, `workers`).

    Raises:
        RecipeError: unreadable file, unknown stage or key, wrong type.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error})") from error
    faults = [f"unknown key {key!r}; known: out, stage" for key in document if key not in ("out", "stage")]
    rows = document.get("stage", [])
    if not isinstance(rows, list) or not rows:
        faults.append("no [[stage]]; a recipe needs at least one")
        rows = []
    stages: list[tuple[str, Stage, Any]] = []
    for row in rows:
        name = str(row.get("name"))
        if name not in STAGES:
            faults.append(f"unknown stage {name!r}; known: {', '.join(STAGES)}")
            continue
        stage = _stage(name)
        known = {field.name: field for field in fields(stage.settings)}
        given = {key: value for key, value in row.items() if key != "name"}
        faults += [f"stage {name}: unknown key {key!r}; known: {', '.join(known)}" for key in given if key not in known]
        given |= {key: value for key, value in (overrides or {}).items() if key in known}
        wrong = [key for key, value in given.items() if key in known and not _fits(value, known[key].default)]
        faults += [f"stage {name}: {key} = {given[key]!r} is no {type(known[key].default).__name__}" for key in wrong]
        if not faults:
            stages.append((name, stage, stage.settings(**given)))
    if faults:
        raise RecipeError(f"{path}: {len(faults)} fault(s)\n" + "\n".join(f"  {fault}" for fault in faults))
    return Recipe(path, Path(str(document.get("out", f"runs/{path.stem}"))), tuple(stages))


def _stage(name: str) -> Stage:
    module, attribute = STAGES[name].split(":")
    stage: Stage = getattr(import_module(module), attribute)
    return stage


def _fits(value: Any, default: Any) -> bool:
    """Whether a value has the type of the setting's default; whole numbers pass as floats."""
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)


def run(
    path: str | Path,
    *,
    only: str | None = None,
    out: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, float]:
    """Runs a recipe's stages in order; complete ones are skipped, interrupted ones go on.

    Args:
        path: the recipe.
        only: a single stage; what it needs must be complete.
        out: folder instead of the recipe's own.
        overrides: see `load`.
        log: one line of progress.

    Returns:
        Wall-clock seconds of each stage, from all its sessions.

    Raises:
        RecipeError: a faulty recipe, or `only` names no stage of it.
    """
    recipe = load(path, overrides)
    root = out or recipe.out
    names = [name for name, _, _ in recipe.stages]
    if only is not None and only not in names:
        raise RecipeError(f"{path} has no stage {only!r}; it has {', '.join(names)}")
    settings = {name: values for name, _, values in recipe.stages}
    seconds: dict[str, float] = {}
    for name, stage, values in recipe.stages:
        folder = root / name
        done = _read(folder / "stage.json")
        if done.get("settings") == asdict(values) and done.get("complete"):
            log(f"{name}: complete ({done['seconds']:.0f} s)")
            seconds[name] = done["seconds"]
            continue
        if only is not None and name != only:
            continue
        spent = done["seconds"] if done.get("settings") == asdict(values) else 0.0
        started = time.time()
        log(f"{name}: {values}")
        folder.mkdir(parents=True, exist_ok=True)

        def report(text: str, name: str = name, started: float = started, spent: float = spent) -> None:
            _write(root / name, settings[name], spent + time.time() - started, complete=False)
            log(f"{name}: {text}")

        stage.run(values, Context(root, folder, settings, report))
        seconds[name] = spent + time.time() - started
        _write(folder, values, seconds[name], complete=True)
        log(f"{name}: complete ({seconds[name]:.0f} s)")
    return seconds


def _write(folder: Path, values: Any, seconds: float, *, complete: bool) -> None:
    row = {"settings": asdict(values), "seconds": round(seconds, 1), "complete": complete}
    (folder / "stage.json").write_text(json.dumps(row, indent=1))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
