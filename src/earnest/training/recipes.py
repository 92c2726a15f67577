"""Recipes: run files that say which stages make a model, and with which numbers.

    out = "runs/pocket"

    [[stage]]
    name = "text-llm"
    steps = 2400

A stage reads what the stages that it needs left in `out` and writes its own folder there. It is skipped when it
is complete with the same numbers, its own and those of what it needs; an interrupted one goes on from its
checkpoint. When a number changes, what was made with the old one is removed and made again.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from earnest.errors import EarnestError, RecipeError
from earnest.files import write_json

STAGES: dict[str, str] = {
    "text-llm": "earnest.pocket.stages:text_llm",
    "encoders": "earnest.pocket.stages:encoders",
    "targets": "earnest.pocket.stages:targets",
    "adapters": "earnest.pocket.stages:adapters",
    "ship": "earnest.pocket.stages:ship",
    "idk-data": "earnest.reliability.stages:data",
    "idk-adapters": "earnest.reliability.stages:adapters",
    "idk-choice": "earnest.reliability.stages:choice",
    "idk-ship": "earnest.reliability.stages:ship",
    "hardening-data": "earnest.faithfulness.stages:data",
    "hardening-adapters": "earnest.faithfulness.stages:adapters",
    "hardening-ship": "earnest.faithfulness.stages:ship",
    "safety-data": "earnest.safety.stages:data",
    "safety-adapters": "earnest.safety.stages:adapters",
    "safety-choice": "earnest.safety.stages:choice",
    "safety-ship": "earnest.safety.stages:ship",
    "scan": "earnest.relistening.stages:scan",
    "relistening-data": "earnest.relistening.stages:data",
    "relistening-sft": "earnest.relistening.stages:sft",
    "relistening-grpo": "earnest.relistening.stages:grpo",
    "relistening-ship": "earnest.relistening.stages:ship",
    "alignment-parts": "earnest.alignment.stages:parts",
    "alignment-single": "earnest.alignment.stages:single",
    "alignment-ca": "earnest.alignment.stages:ca",
    "alignment-perceiver": "earnest.alignment.stages:perceiver",
    "alignment-concat": "earnest.alignment.stages:concat",
    "alignment-ensemble": "earnest.alignment.stages:ensemble",
}
"""Stage names and where they are: `module:attribute` of a `Stage`. A concern adds its own line."""


MACHINE: tuple[str, ...] = ("threads", "workers")
"""Settings that change how fast a stage is, not what it makes."""


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


def _nothing_else(_: Any) -> list[str]:
    return []


def _nothing_to_check(_: Any, __: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Stage:
    """A step of a recipe.

    Attributes:
        settings: a frozen dataclass of numbers.
        run: what is done with them.
        needs: stages that must be complete before.
        builds_on: the same, where the recipe has them.
        publishes: its result lies outside the recipe's folder: run even when complete, and only in the folder
            that the recipe itself names.
        made_of: what it reads beside its numbers and other stages, as content keys; the stage is run again when one
            of them changes.
        check: of its settings and those of all stages, before any stage is run; raises a RecipeError.
        parallel: whether all processes of torchrun share its work; the first runs the others alone.
    """

    settings: type[Any]
    run: Callable[[Any, Context], None]
    needs: tuple[str, ...] = ()
    builds_on: tuple[str, ...] = ()
    publishes: bool = False
    made_of: Callable[[Any], list[str]] = _nothing_else
    check: Callable[[Any, dict[str, Any]], None] = _nothing_to_check
    parallel: bool = False


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
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give a recipe, such as recipes/pocket/base.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error})") from error
    faults = [f"unknown key {key!r}; known: out, stage" for key in document if key not in ("out", "stage")]
    rows = document.get("stage", [])
    if not isinstance(rows, list) or not rows:
        faults.append("no [[stage]]; a recipe needs at least one")
        rows = []
    stages: list[tuple[str, Stage, Any]] = []
    for row in rows:
        if "name" not in row:
            faults.append(f"a stage has no name; it has {', '.join(row) or 'nothing'}")
            continue
        name = str(row["name"])
        if name not in STAGES:
            close = difflib.get_close_matches(name, STAGES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(STAGES)}"
            faults.append(f"unknown stage {name!r}; {hint}")
            continue
        stage = _stage(name)
        known = {field.name: field for field in fields(stage.settings)}
        given = {key: value for key, value in row.items() if key != "name"}
        faults += [f"stage {name}: unknown key {key!r}; known: {', '.join(known)}" for key in given if key not in known]
        given |= {key: value for key, value in (overrides or {}).items() if key in known}
        wrong = [key for key, value in given.items() if key in known and not _fits(value, known[key].default)]
        faults += [f"stage {name}: {key} = {given[key]!r} is no {type(known[key].default).__name__}" for key in wrong]
        if not faults:
            try:
                stages.append((name, stage, stage.settings(**given)))
            except EarnestError as error:
                faults.append(f"stage {name}: {error}")
    if not faults:
        every = {name: values for name, _, values in stages}
        for name, stage, values in stages:
            try:
                stage.check(values, every)
            except EarnestError as error:
                faults.append(f"stage {name}: {error}")
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
    made: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name, stage, values in recipe.stages:
        missing = [need for need in stage.needs if need not in made]
        before = [need for need in (*stage.builds_on, *stage.needs) if need in made]
        made[name] = _key(values, [*(made[need] for need in before), *stage.made_of(values)])
        folder = root / name
        if not is_main():
            _follow(name, stage, values, made[name], only, Context(root, folder, settings, lambda _: None))
            continue
        done = _read(folder / "stage.json")
        same = done.get("key") == made[name]
        if stage.publishes and root.resolve() != recipe.out.resolve():
            log(f"{name}: left out, as this is {root} and not {recipe.out}")
            continue
        if same and done["complete"] and not stage.publishes:
            log(f"{name}: complete ({done['seconds']:.0f} s)")
            seconds[name] = done["seconds"]
            continue
        if only is not None and name != only:
            continue
        missing += [need for need in before if not _complete(root / need, made[need])]
        if missing:
            raise RecipeError(f"{path}: the stage {name!r} needs {', '.join(missing)}: run it before")
        if done and not same:
            log(f"{name}: was made {_changed(done.get('settings', {}), values)}; that is removed, and it is made anew")
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
        spent = done["seconds"] if same and not stage.publishes else 0.0
        started = time.time()
        log(f"{name}: {', '.join(f'{key} = {value!r}' for key, value in asdict(values).items())}")
        folder.mkdir(parents=True, exist_ok=True)

        def note(complete: bool, name: str = name, started: float = started, spent: float = spent) -> float:
            total = round(spent + time.time() - started, 1)
            row = {"key": made[name], "settings": asdict(settings[name]), "seconds": total, "complete": complete}
            write_json(root / name / "stage.json", row)
            return total

        def report(text: str, name: str = name, note: Callable[[bool], float] = note) -> None:
            note(False)
            log(f"{name}: {text}")

        # From here on the folder is this stage's: a kill before its first line costs nothing.
        note(False)
        stage.run(values, Context(root, folder, settings, report))
        seconds[name] = note(True)
        log(f"{name}: complete ({seconds[name]:.0f} s)")
    return seconds


def is_main() -> bool:
    """Whether this process keeps the books: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _follow(name: str, stage: Stage, values: Any, key: str, only: str | None, context: Context) -> None:
    """A parallel stage in a process that keeps no books: begun when the first one has, left out when it is complete."""
    if not stage.parallel or (only is not None and name != only):
        return
    while (row := _read(context.folder / "stage.json")).get("key") != key:
        time.sleep(0.1)
    if not row["complete"]:
        stage.run(values, context)


def _key(values: Any, needed: list[str]) -> str:
    """Tells what a stage makes: its numbers, but for those of the machine, and the keys of what it needs."""
    numbers = {key: value for key, value in asdict(values).items() if key not in MACHINE}
    return hashlib.sha256(json.dumps([numbers, needed], sort_keys=True).encode()).hexdigest()[:16]


def _changed(before: Mapping[str, Any], values: Any) -> str:
    """What a stage was made with before."""
    now = asdict(values)
    changed = [key for key in now if key not in MACHINE and before.get(key) != now[key]]
    if not changed:
        return "from other data or by other stages than now"
    return "with " + ", ".join(f"{key} = {before.get(key)!r} (now {now[key]!r})" for key in changed)


def _complete(folder: Path, key: str) -> bool:
    row = _read(folder / "stage.json")
    return bool(row) and row["complete"] and row.get("key") == key


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
