"""Work over many items by Ray Data, on this machine, or on a cluster where RAY_ADDRESS names one.

Replies come from actors that each load the model once a call: what comes back is what one engine alone would say, in
the same order, for engines answer each item as if it were alone. Files are decoded by tasks; every machine must find
them under the same path.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earnest.cells import CellFault, decoded_seconds
from earnest.completion import Completion, Sampling
from earnest.conversation import Conversation
from earnest.errors import ModelError, needs_extra

BATCHES_A_CALL = 16
"""Batches that each actor gets in one call, so that loading the model is a small part of it."""


class RayEngine:
    """Answers as `earnest.load(name)` would, by several actors.

    Args:
        name: of the model, as `earnest.load` takes it; every machine must find it under this name.
        key: its content key.
        actors: copies of the model.
        batch_size: conversations that an actor gets at once.
        threads: of each actor, which is also how many CPUs it takes.
        gpus: that each actor takes; may be a part of one.
        settings: what else `earnest.load` takes.

    Raises:
        ModelError: Ray is not installed, or fewer than one actor is asked for.
    """

    def __init__(
        self,
        name: str,
        key: str,
        *,
        actors: int = 1,
        batch_size: int = 64,
        threads: int = 1,
        gpus: float = 0.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if actors < 1:
            raise ModelError(f"actors is {actors}: it must be at least 1")
        with needs_extra("scale"):
            import ray.data  # noqa: F401  # pyright: ignore[reportUnusedImport]
        self.name = name
        self.key = key
        self.actors = actors
        self.batch_size = batch_size
        self.threads = threads
        self.gpus = gpus
        self.settings = dict(settings or {})

    @property
    def call_size(self) -> int:
        """Conversations for which a call is worth loading the model: the batch of a run, and what a kill can cost."""
        return self.actors * self.batch_size * BATCHES_A_CALL

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """One completion for each conversation, in order.

        Raises:
            ModelError: there are fewer CPUs or GPUs than the actors take.
        """
        import ray.data

        if not conversations:
            return []
        _join()
        self._check_room()
        # Bytes: a conversation with audio is no row of a table.
        rows = [
            {"place": place, "conversation": pickle.dumps(conversation)}
            for place, conversation in enumerate(conversations)
        ]
        blocks = math.ceil(len(rows) / self.batch_size)
        actors = min(self.actors, blocks)
        done = (
            ray.data.from_items(rows, override_num_blocks=blocks)
            .map_batches(
                _Answering,
                fn_constructor_kwargs={"name": self.name, "sampling": sampling, "settings": self._load_settings()},
                batch_size=self.batch_size,
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=self.threads,
                num_gpus=self.gpus,
            )
            .take_all()
        )
        found = {int(row["place"]): Completion.from_json(json.loads(row["completion"])) for row in done}
        return [found[place] for place in range(len(rows))]

    def _load_settings(self) -> dict[str, Any]:
        return {**self.settings, "batch_size": self.batch_size, "threads": self.threads}

    def _check_room(self) -> None:
        import ray

        there = ray.cluster_resources()
        for kind, each in (("CPU", self.threads), ("GPU", self.gpus)):
            if self.actors * each > there.get(kind, 0.0):
                raise ModelError(
                    f"{self.actors} actors of {each:g} {kind}s each, and Ray has {there.get(kind, 0.0):g}: take fewer "
                    "actors, or less for each"
                )


def decoded_by_ray(paths: Sequence[Path], workers: int) -> list[float | CellFault]:
    """What `decoded_seconds` says of each file, in order.

    Args:
        paths: of files.
        workers: tasks at once, each of one CPU.

    Raises:
        ModelError: Ray is not installed.
    """
    with needs_extra("scale"):
        import ray.data

    if not paths:
        return []
    _join()
    rows = [{"place": place, "path": str(path.resolve())} for place, path in enumerate(paths)]
    done = (
        ray.data.from_items(rows, override_num_blocks=min(len(rows), 4 * workers))
        .map_batches(_decode, compute=ray.data.TaskPoolStrategy(size=workers), num_cpus=1)
        .take_all()
    )
    found = {int(row["place"]): row for row in done}
    return [
        CellFault(str(found[place]["fault"])) if found[place]["fault"] else float(found[place]["seconds"])
        for place in range(len(rows))
    ]


def _decode(batch: Any) -> dict[str, Any]:
    lengths = [decoded_seconds(Path(path)) for path in batch["path"]]
    return {
        "place": batch["place"],
        "seconds": [0.0 if isinstance(length, CellFault) else length for length in lengths],
        "fault": [str(length) if isinstance(length, CellFault) else "" for length in lengths],
    }


class _Answering:
    """An actor: one engine, which answers batches."""

    def __init__(self, name: str, sampling: Sampling, settings: Mapping[str, Any]) -> None:
        from earnest.engines import load

        self.engine = load(name, **settings)
        self.sampling = sampling

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        asked: list[Conversation] = [pickle.loads(row) for row in batch["conversation"]]
        done = self.engine.generate(asked, self.sampling)
        return {"place": batch["place"], "completion": [json.dumps(each.to_json()) for each in done]}


def _join() -> None:
    """Starts Ray on this machine, or joins the cluster that RAY_ADDRESS names; quietly."""
    import ray
    import ray.data

    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # It tells of every call otherwise.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
