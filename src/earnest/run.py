"""The run directory: every completion as soon as it is there, so that a killed run goes on where it stopped.

resolved.toml      what was asked for, all defaults written out
completions.jsonl  append-only, content-addressed by (model, conversation, sampling)
records.jsonl      one line per item, graded
findings.json      tables, curves and notes
metrics.json       name to metric, sorted: equal runs give equal bytes
environment.json   machine and versions
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from earnest.completion import Completion, Sampling, Stop, content_key
from earnest.conversation import Conversation
from earnest.errors import ModelError, RecipeError
from earnest.files import (
    append_durably,
    cut_torn_line,
    json_line,
    read_json_lines,
    to_toml,
    write_atomic,
    write_json,
    write_json_lines,
)
from earnest.finding import Finding, Metric

PACKAGES: tuple[str, ...] = ("earnest", "torch", "transformers", "numpy", "soundfile", "soxr")
"""Packages whose versions can change a result."""


class Generator(Protocol):
    """What a run needs of an engine."""

    @property
    def key(self) -> str:
        """Content key of the weights."""
        ...

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """One completion per conversation, in their order."""
        ...


def run_folder(model: str, key: str, what: str) -> Path:
    """Where a run goes if the user names no place: runs/MODEL-KEY-WHAT."""
    return Path("runs") / f"{re.sub(r'[^A-Za-z0-9.]+', '-', model).strip('-.')}-{key[:8]}-{what}"


class RunDirectory:
    """A folder that holds one run.

    Attributes:
        path: the folder.
        reused: completions that were found here, over all calls of `run_batched`.
        computed: completions that an engine was asked for.
    """

    def __init__(self, path: Path | str) -> None:
        """Opens a new, a killed or a finished run.

        Args:
            path: the folder; made if missing.

        Raises:
            RecipeError: a line of its completions is damaged (a torn last line is not: it is cut).
        """
        self.path = Path(path)
        self.reused = 0
        self.computed = 0
        self.path.mkdir(parents=True, exist_ok=True)
        self._file = self.path / "completions.jsonl"
        self._completions = self._load()

    def settle(self, resolved: Mapping[str, Any]) -> None:
        """Writes `resolved.toml`, or makes sure that the one which is there says the same.

        Args:
            resolved: the whole configuration, defaults included; nested mappings of plain values.

        Raises:
            RecipeError: the folder holds a run of another configuration; every difference is named.
        """
        file = self.path / "resolved.toml"
        text = to_toml(resolved)
        if not file.exists():
            write_atomic(file, text)
            return
        there, wanted = _flat(tomllib.loads(file.read_text("utf-8"))), _flat(tomllib.loads(text))
        changed = [
            f"{name} is {there.get(name)!r} there, {wanted.get(name)!r} here"
            for name in sorted({*there, *wanted})
            if there.get(name) != wanted.get(name)
        ]
        if changed:
            raise RecipeError(
                f"{self.path} holds another run: {'; '.join(changed)}. Give another folder, or delete this one"
            )

    def run_batched(
        self,
        engine: Generator,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
        *,
        retry_failed: bool = False,
    ) -> list[Completion]:
        """Completes conversations, saves each batch before the next begins, and computes nothing twice.

        A kill loses the batch that is being computed and no other. A conversation that occurs twice is
        completed once: engines draw per item, so that its completions would be equal.

        Args:
            engine: who answers.
            conversations: in any order; results keep it.
            sampling: how replies are drawn.
            batch_size: conversations per call of the engine, which is also what a kill can cost.
            progress: called with (completions that are there, completions in all) at the start and after
                each batch; both count a repeated conversation once.
            retry_failed: whether completions that failed earlier are computed again.

        Raises:
            ModelError: the engine returned another number of completions than it was asked for.
            RecipeError: the batch size is below 1.
        """
        if batch_size < 1:
            raise RecipeError(f"batch_size is {batch_size}: it must be at least 1")
        model_key = engine.key
        keys = [content_key([model_key, conversation.key, sampling.key]) for conversation in conversations]
        todo = {
            key: conversation
            for key, conversation in zip(keys, conversations, strict=True)
            if key not in self._completions or (retry_failed and self._completions[key].stop is Stop.FAILED)
        }
        wanted = len(set(keys))
        done = wanted - len(todo)
        self.reused += done
        if progress:
            progress(done, wanted)
        missing = list(todo.items())
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            completions = engine.generate([conversation for _, conversation in batch], sampling)
            if len(completions) != len(batch):
                raise ModelError(
                    f"the engine returned {len(completions)} completions for {len(batch)} conversations: "
                    "it must return one for each (a failed one has stop = failed)"
                )
            found = {key: completion for (key, _), completion in zip(batch, completions, strict=True)}
            append_durably(
                self._file,
                "".join(json_line({"key": key, **completion.to_json()}) for key, completion in found.items()),
            )
            self._completions |= found
            self.computed += len(batch)
            done += len(batch)
            if progress:
                progress(done, wanted)
        return [self._completions[key] for key in keys]

    def write_environment(self, extra: Mapping[str, Any] | None = None) -> None:
        """Writes machine and versions, and what the caller adds (device, model key, ...)."""
        write_json(self.path / "environment.json", {**environment(), **(extra or {})})

    def write_records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes `records.jsonl`, one line per item."""
        write_json_lines(self.path / "records.jsonl", records)

    def write_findings(self, findings: Sequence[Finding]) -> None:
        """Writes `findings.json`, `metrics.json` (FINDING.METRIC to metric) and `records.jsonl`.

        Each record says in `finding` whose it is.
        """
        rows = [{**finding.to_json(), "records": []} for finding in findings]
        write_json(self.path / "findings.json", rows)
        metrics = {
            f"{finding.name}.{name}": metric.to_json()
            for finding in findings
            for name, metric in finding.metrics.items()
        }
        write_json(self.path / "metrics.json", dict(sorted(metrics.items())))
        self.write_records({"finding": finding.name, **row} for finding in findings for row in finding.records)

    def _load(self) -> dict[str, Completion]:
        if not self._file.exists():
            return {}
        cut_torn_line(self._file)
        try:
            rows = read_json_lines(self._file)
            return {row.pop("key"): Completion.from_json(row) for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(
                f"{self._file} has a line that is no completion ({error}): delete that line, it is computed again"
            ) from error


def read_findings(path: Path | str) -> list[Finding]:
    """Reads the findings of a finished run, their records included.

    Raises:
        RecipeError: the folder holds no finished run.
    """
    folder = _finished(path, "findings.json")
    records: dict[str, list[dict[str, Any]]] = {}
    for row in read_records(folder):
        records.setdefault(row.pop("finding"), []).append(row)
    rows: list[dict[str, Any]] = json.loads((folder / "findings.json").read_text("utf-8"))
    return [Finding.from_json({**row, "records": records.get(row["name"], [])}) for row in rows]


def read_metrics(path: Path | str) -> dict[str, Metric]:
    """Reads `metrics.json` of a finished run: FINDING.METRIC to metric.

    Raises:
        RecipeError: the folder holds no finished run.
    """
    rows = json.loads((_finished(path, "metrics.json") / "metrics.json").read_text("utf-8"))
    return {name: Metric.from_json(row) for name, row in rows.items()}


def read_records(path: Path | str) -> list[dict[str, Any]]:
    """Reads `records.jsonl` of a finished run.

    Raises:
        RecipeError: the folder holds no finished run.
    """
    return read_json_lines(_finished(path, "records.jsonl") / "records.jsonl")


def environment() -> dict[str, Any]:
    """Machine and versions, as far as they can change a result."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _finished(path: Path | str, name: str) -> Path:
    folder = Path(path)
    if not (folder / name).is_file():
        raise RecipeError(f"{folder} has no {name}: it is no finished run; repeat its command to finish it")
    return folder


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
