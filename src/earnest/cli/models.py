"""The models that make data: each is loaded when it is first asked, in this process or by Ray's actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earnest.cli.grounded import Late

if TYPE_CHECKING:
    from earnest.scale.ray_data import RayEngine

Ray = Annotated[bool, typer.Option("--ray", help="Ask by Ray: copies of the model, on this machine or RAY_ADDRESS's.")]
Actors = Annotated[int | None, typer.Option("--actors", min=1, help="Copies under --ray. Default: 2.")]
ActorGpus = Annotated[float | None, typer.Option("--actor-gpus", min=0.0, help="GPUs of each copy. Default: 0.")]
ACTORS = 2


class Models:
    """Models by name.

    Args:
        names: of the models, as `earnest.load` takes them.
        settings: of `earnest.load`.
        ray: whether Ray's actors ask.
        actors: copies of each model under Ray.
        actor_gpus: that each of them takes.

    Raises:
        ModelError: an unknown model, or Ray is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        settings: dict[str, Any],
        *,
        ray: bool = False,
        actors: int | None = None,
        actor_gpus: float | None = None,
    ) -> None:
        from earnest.engines import load, model_key
        from earnest.engines.load import require_loadable, usable_device
        from earnest.engines.server import served_model

        if not ray and (actors is not None or actor_gpus is not None):
            raise typer.BadParameter("--actors and --actor-gpus: only with --ray")
        # Before a run's folder is taken for them.
        for name in dict.fromkeys(names):
            if served_model(name, settings["base_url"]) is None:
                require_loadable(name)
        if settings["device"] and not ray:
            usable_device(settings["device"])
        self.keys = {name: model_key(name, settings["base_url"]) for name in dict.fromkeys(names)}
        self.local = {name: Late(key, lambda name=name: load(name, **settings)) for name, key in self.keys.items()}
        self.batch_size: int = settings["batch_size"]
        self._distant: dict[str, RayEngine] = {}
        if ray:
            from earnest.scale.ray_data import RayEngine

            rest = {name: value for name, value in settings.items() if name not in ("batch_size", "threads")}
            self._distant = {
                name: RayEngine(
                    name,
                    key,
                    actors=actors or ACTORS,
                    batch_size=self.batch_size,
                    threads=settings["threads"],
                    gpus=actor_gpus or 0.0,
                    settings=rest,
                )
                for name, key in self.keys.items()
            }

    def __getitem__(self, name: str) -> Late | RayEngine:
        return self._distant.get(name) or self.local[name]

    @property
    def call_size(self) -> int:
        """Conversations that a run gives a model at once."""
        return next((each.call_size for each in self._distant.values()), self.batch_size)

    def require(self, name: str, purpose: str, remedy: str, *needs: str) -> None:
        """Says before any work what a model cannot do; those that run in this process can do all of it.

        Raises:
            ModelError: something is missing.
        """
        from earnest.engines import require
        from earnest.engines.server import served_model
        from earnest.errors import ModelError

        if not needs or served_model(name) is None:
            return
        try:
            require(self.local[name].engine, purpose, *needs)
        except ModelError as error:
            raise ModelError(f"{str(error).rstrip('.')}; or {remedy}") from error
