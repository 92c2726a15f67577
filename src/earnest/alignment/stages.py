"""Alignment as stages of a recipe (arXiv 2603.09556, section 4).

alignment-parts      which LLM, encoders and targets; how many parameters each adapter and fusion has
alignment-single     one adapter for each encoder by itself
alignment-ca         cross-attention fusion over the frozen adapters
alignment-perceiver  Perceiver fusion over the frozen adapters
alignment-concat     streams side by side, for comparison
alignment-ensemble   the models of two of these in one prompt; nothing is trained
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.alignment.assembly import CA, CONCAT, FUSIONS, PERCEIVER, SINGLE, Loaded, Parts, load_parts
from earnest.alignment.rows import SPLITS, Target, load_rows
from earnest.alignment.training import PASS, AlignmentSettings, held_out_loss, train_pass
from earnest.engines.load import quiet
from earnest.errors import EarnestError, RecipeError
from earnest.files import write_json
from earnest.fused import FusedModel, FusedProcessor
from earnest.fused.ensemble import ensemble as _ensemble
from earnest.training.recipes import Context, Stage, is_main

PASS_FILE = "pass.safetensors"
CARD = "card.json"
MODEL = "model"
PARTS = "alignment-parts"


@dataclass(frozen=True)
class PartsSettings(Parts):
    """Numbers of `alignment-parts`; of the model, see `Parts`.

    Attributes:
        targets: file of `earnest make rephrase`.
        cache: folder of the encoders' frames; empty for one in the recipe's.
    """

    targets: str = ""
    cache: str = ""


@dataclass(frozen=True)
class SingleSettings(AlignmentSettings):
    """Numbers of `alignment-single`; of the training, see `AlignmentSettings`.

    Attributes:
        whole: whether each is saved as a model of its own, with LLM and encoder; else what is trained alone.
    """

    whole: bool = False


@dataclass(frozen=True)
class FusionSettings(AlignmentSettings):
    """Numbers of a fusion; see `AlignmentSettings`."""


@dataclass(frozen=True)
class EnsembleSettings:
    """Numbers of `alignment-ensemble`.

    Attributes:
        first: stage whose soft tokens stand first.
        second: stage whose soft tokens follow.
    """

    first: str = "alignment-ca"
    second: str = "alignment-perceiver"


def _parts(context: Context) -> PartsSettings:
    found: PartsSettings = context.stages[PARTS]
    return found


def _cache(context: Context) -> Path:
    return Path(_parts(context).cache or context.root / "frames")


def _rows(context: Context, split: str) -> list[Target]:
    return [row for row in load_rows(_parts(context).targets, Target) if row.split == split]


@quiet()
def _count(settings: PartsSettings, context: Context) -> None:
    rows = load_rows(settings.targets, Target)
    splits = {split: sum(row.split == split for row in rows) for split in SPLITS}
    taken = sum(row.target is not None for row in rows)
    mix = ", ".join(f"{split} {count}" for split, count in splits.items())
    context.log(f"{len(rows)} rows, {taken} with a target; by split: {mix}")
    if not any(row.target is not None and row.split == "train" for row in rows):
        raise EarnestError(
            f"{settings.targets}: no row of the split train has a target, so there is nothing to learn from; rows by "
            f"split: {mix} (--split train of make surrogates puts all clips of a small corpus there)"
        )
    files = dict.fromkeys(row.audio for row in rows if row.target is not None)
    if gone := [str(path) for path in files if not path.is_file()]:
        raise EarnestError(
            f"{settings.targets}: {len(gone)} of {len(files)} clips are not there, such as {', '.join(gone[:3])}: put "
            "them back, or make the targets again"
        )
    if not splits["validation"]:
        context.log("no row validates: no loss will be told on clips that were not learnt")
    loaded = load_parts(settings)
    names = list(settings.sources)
    counts: dict[str, int] = {}
    # All that the recipe is to train is made once: what does not fit together is known before hours of training.
    fusions = [kind for kind in FUSIONS if f"alignment-{kind}" in context.stages]
    for kind, own in [(SINGLE, [name]) for name in names] + [(kind, names) for kind in fusions]:
        model, _ = loaded.fused(settings, own, kind, 0)
        trained = model.passes[PASS]
        title = own[0] if kind == SINGLE else kind
        of: list[Any] = [trained] if kind == SINGLE else [trained.fusion, trained.head]
        counts[title] = sum(parameter.numel() for part in of for parameter in part.parameters())
        context.log(f"{title}: {counts[title] / 1e6:.2f} M parameters")
    write_json(context.folder / CARD, {"rows": len(rows), "with_target": taken, "splits": splits, "parameters": counts})


def _train(
    context: Context,
    settings: AlignmentSettings,
    loaded: Loaded,
    names: Sequence[str],
    kind: str,
    folder: Path,
    *,
    whole: bool,
    frozen: Sequence[str] = (),
) -> None:
    """Trains one pass, and writes its folder and what it reaches on the validation split.

    One that was interrupted between the two has only the second to do.
    """
    parts = _parts(context)
    model, processor = loaded.fused(parts, names, kind, settings.seed)
    trained_before = _is_trained(folder)
    title = f"{names[0]}: " if kind == SINGLE else ""
    if trained_before:
        _pass_of(model).load_state_dict(_weights(folder))
    elif kind != SINGLE:
        _begin(model, {name: context.root / "alignment-single" / name for name in names})

    def save(trained: FusedModel, out: Path) -> None:
        from safetensors.torch import save_file

        out.mkdir(parents=True, exist_ok=True)
        state: dict[str, Tensor] = _pass_of(trained).state_dict()
        save_file({name: one.contiguous().cpu() for name, one in state.items()}, out / PASS_FILE)
        if whole:
            trained.passes.to(getattr(torch, parts.dtype))
            trained.save_pretrained(out)
            trained.passes.to(torch.float32)

    if not trained_before:
        train_pass(
            model,
            processor,
            _rows(context, "train"),
            settings,
            folder,
            _cache(context),
            frozen=frozen,
            save=save,
            log=lambda line: context.log(f"{title}{line}"),
        )
    held_out = [row for row in _rows(context, "validation") if row.target is not None]
    if not is_main():
        return
    card: dict[str, Any] = {}
    if held_out:
        size = max(1, settings.batch_size // settings.accumulate)
        loss = held_out_loss(model, processor, held_out, _cache(context), batch_size=size)
        card = {"validation_loss": loss.to_json()}
        context.log(f"{folder.name}: loss on the validation split {loss} clips")
    write_json(folder / CARD, card)


def _is_trained(folder: Path) -> bool:
    return (folder / PASS_FILE).is_file() and not (folder / "checkpoint.pt").exists()


def _pass_of(model: FusedModel) -> Any:
    return model.passes[PASS]


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / PASS_FILE)


def _begin(model: FusedModel, folders: dict[str, Path]) -> None:
    """Adapters and layer mixes from the trainings of each encoder by itself, the boundary from the leading one's."""
    taken: dict[str, Tensor] = {}
    for name, folder in folders.items():
        weights = _weights(folder)
        taken |= {key: own for key, own in weights.items() if key.startswith((f"adapters.{name}.", f"mixes.{name}."))}
        taken.setdefault("boundary", weights["boundary"])
    missing, unexpected = _pass_of(model).load_state_dict(taken, strict=False)
    begun = [key for key in missing if key.startswith(("adapters.", "mixes.", "boundary"))]
    assert not begun and not unexpected, f"single trainings and fusion do not fit: {[*begun, *unexpected]}"


@quiet()
def _single(settings: SingleSettings, context: Context) -> None:
    parts = _parts(context)
    loaded = load_parts(parts)
    for name in parts.sources:
        folder = context.folder / name
        if _is_trained(folder) and (folder / CARD).is_file():
            context.log(f"{name}: complete")
            continue
        _train(context, settings, loaded, [name], SINGLE, folder, whole=settings.whole)


@quiet()
def _fusion(kind: str, settings: FusionSettings, context: Context) -> None:
    parts = _parts(context)
    names = list(parts.sources)
    # Boundary, fusion and head are trained, on adapters that stay.
    _train(
        context, settings, load_parts(parts), names, kind, context.folder / MODEL, whole=True,
        frozen=("adapters", "mixes"),
    )  # fmt: skip


@quiet()
def _join(settings: EnsembleSettings, context: Context) -> None:
    models: list[Any] = []
    for name in (settings.first, settings.second):
        folder = context.root / name / MODEL
        models += [FusedModel.from_pretrained(folder), FusedProcessor.from_pretrained(folder)]
    model, processor = _ensemble(*models)
    model.save_pretrained(context.folder / MODEL)
    processor.save_pretrained(context.folder / MODEL)


def _made_of(settings: PartsSettings) -> list[str]:
    """What the stage reads.

    Raises:
        RecipeError: the targets are no file; nothing has been loaded then.
    """
    if not Path(settings.targets).is_file():
        raise RecipeError(
            f"alignment-parts: targets = {settings.targets!r} is no file: name the targets.jsonl of make rephrase"
        )
    return [hashlib.sha256(Path(settings.targets).read_bytes()).hexdigest()]


def _can_fuse(_: object, stages: dict[str, object]) -> None:
    parts = stages.get(PARTS)
    if isinstance(parts, PartsSettings) and len(parts.sources) < 2:
        raise RecipeError(f"a fusion takes at least two encoders, alignment-parts has {len(parts.sources)}: add one")


def _can_join(settings: EnsembleSettings, stages: dict[str, object]) -> None:
    for name in (settings.first, settings.second):
        if name not in FUSION_STAGES or name not in stages:
            raise RecipeError(f"{name!r} is no fusion of this recipe: give two of {', '.join(FUSION_STAGES)}")


FUSION_STAGES: tuple[str, ...] = tuple(f"alignment-{kind}" for kind in FUSIONS)


def _stage(kind: str) -> Stage:
    run: Callable[[Any, Context], None] = partial(_fusion, kind)
    return Stage(FusionSettings, run, (PARTS, "alignment-single"), check=_can_fuse, parallel=True)


parts = Stage(PartsSettings, _count, made_of=_made_of)
single = Stage(SingleSettings, _single, (PARTS,), parallel=True)
ca, perceiver, concat = (_stage(kind) for kind in (CA, PERCEIVER, CONCAT))
ensemble = Stage(EnsembleSettings, _join, (PARTS,), builds_on=FUSION_STAGES, check=_can_join)
