"""Stage `ship`: the trained model into the package, with a card of what made it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earnest.engines.lora import CONFIG, copy_adapter
from earnest.errors import RecipeError
from earnest.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = Path(__file__).parent / "weights"
CARD = "training.json"
MAX_BYTES = 16 * 2**20


def as_shipped(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights as float16 holds them, in float32: all that is trained on it sees what is shipped."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    return model


@dataclass(frozen=True)
class ShipSettings:
    """Numbers of the stage.

    Attributes:
        source: the stage whose folder is shipped.
    """

    source: str = "adapters"


def ship(
    settings: ShipSettings,
    root: Path,
    stages: Mapping[str, Any],
    target: Path = WEIGHTS,
    *,
    log: Callable[[str], None] = print,
) -> Path:
    """Copies the model and writes the card: each stage's settings and wall-clock seconds.

    Args:
        settings: numbers of the stage.
        root: folder of the recipe.
        stages: settings of all stages.
        target: where to; what lies there is replaced.
        log: one line of progress.

    Raises:
        RecipeError: the source is not trained, or larger than 16 MiB.
    """
    source = root / settings.source
    files = sorted(path for path in source.glob("*") if path.suffix in (".json", ".safetensors", ".jinja"))
    if not (source / "config.json").exists():
        raise RecipeError(f"{source} holds no model; run the stage {settings.source!r} first")
    size = sum(path.stat().st_size for path in files)
    if size > MAX_BYTES:
        raise RecipeError(f"{source} takes {size / 2**20:.1f} MiB; at most {MAX_BYTES / 2**20:.0f} are shipped")
    seconds = stage_seconds(root, [name for name in stages if name != "ship"])
    card = {name: {"settings": asdict(stages[name]), "seconds": spent} for name, spent in seconds.items()}
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for path in files:
        if path.name != "stage.json":
            shutil.copyfile(path, fresh / path.name)
    config = fresh / "config.json"
    write_json(config, json.loads(config.read_text("utf-8"), object_hook=_nameless))
    (fresh / CARD).write_text(json.dumps(card, indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    # Adapters that lay beside the old weights went with them: they are trained on what is shipped.
    log(f"{size / 2**20:.1f} MiB in {target}, trained in {sum(seconds.values()) / 60:.1f} min")
    return target


def put_adapters(
    folders: Mapping[str, Path],
    target: Path,
    model: str,
    card: str,
    content: Mapping[str, Any],
    *,
    beside: Sequence[Path] = (),
    dtype: str | None = None,
) -> None:
    """Puts adapters beside the weights that they are for, all or none of them.

    Args:
        folders: path below the target to the folder that a training wrote.
        target: where to; what lies there is replaced.
        model: the name of the model that they are for.
        card: name of the card's file.
        content: of the card.
        beside: files that go with them, such as ears of their own.
        dtype: of their weights, such as "float16"; None leaves them as they are.
    """
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for name, folder in folders.items():
        copy_adapter(folder, fresh / name, dtype=dtype)
        config = fresh / name / CONFIG
        # A folder of the machine it was trained on tells nobody anything.
        write_json(config, {**json.loads(config.read_text("utf-8")), "base_model_name_or_path": model})
    for path in beside:
        shutil.copyfile(path, fresh / path.name)
    write_json(fresh / card, content)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _nameless(table: dict[str, Any]) -> dict[str, Any]:
    """A table of a config without the folder that its part was trained in, which tells nobody anything elsewhere."""
    return {name: value for name, value in table.items() if name != "_name_or_path"}


def stage_seconds(root: Path, stages: Sequence[str]) -> dict[str, float]:
    """How long each stage of a recipe took."""
    return {stage: json.loads((root / stage / "stage.json").read_text("utf-8"))["seconds"] for stage in stages}
