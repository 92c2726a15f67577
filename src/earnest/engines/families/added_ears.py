"""Ears that are added to a fused model: encoders and passes in a folder of their own, beside an adapter of the LLM.

    ears.json          specs of the added encoders and passes, and which pass of the model each other one is
    ears.safetensors   their weights

So a model that hears a whole clip in one way can be given a cheaper first pass, and its own becomes the fine one,
without a second copy of everything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from earnest.engines.lora import EARS
from earnest.errors import ModelError
from earnest.files import write_json
from earnest.fused.configuration import EncoderSpec
from earnest.fused.encoders import KINDS
from earnest.fused.modeling import FusedModel
from earnest.fused.processing import FusedProcessor

WEIGHTS = "ears.safetensors"


def save_added(
    model: FusedModel, folder: Path, encoders: Sequence[str], passes: Sequence[str], kept: Mapping[str, str]
) -> None:
    """Writes what a model has beyond another one.

    Args:
        model: with the added ears.
        folder: where to.
        encoders: that were added.
        passes: that were added.
        kept: passes that the other model has under another name: name here to name there.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    specs = model.config.pass_specs
    write_json(
        folder / EARS,
        {
            "encoders": [spec.to_dict() for spec in model.config.encoder_specs if spec.name in encoders],
            "passes": {name: specs[name].to_dict() for name in passes},
            "kept": dict(kept),
        },
    )
    prefixes = tuple([f"encoders.{name}." for name in encoders] + [f"passes.{name}." for name in passes])
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name.startswith(prefixes)}
    save_file(tensors, folder / WEIGHTS)


def with_added(model: FusedModel, processor: FusedProcessor, folder: Path) -> tuple[FusedModel, FusedProcessor]:
    """A model with the ears of a folder; LLM and encoders are taken over, not copied.

    Raises:
        ModelError: the folder's passes name one that the model does not have, or its weights do not fit.
    """
    from safetensors.torch import load_file

    row: dict[str, Any] = json.loads((folder / EARS).read_text("utf-8"))
    kept: dict[str, str] = row["kept"]
    specs = model.config.pass_specs
    if missing := set(kept.values()) - set(specs):
        raise ModelError(f"{folder} builds on the pass {sorted(missing)[0]!r}: this model has {', '.join(specs)}")
    added = [EncoderSpec.from_dict(spec) for spec in row["encoders"]]
    encoders: dict[str, Any] = dict(model.encoders.items())
    encoders |= {spec.name: KINDS[spec.model_type].build(spec).eval() for spec in added}
    layers = {spec.name: spec.layers for spec in (*model.config.encoder_specs, *added)}
    both = FusedModel.from_parts(
        model.language_model,
        encoders,
        {**row["passes"], **{name: specs[own] for name, own in kept.items()}},
        audio_token_id=model.config.audio_token_id,
        layers=layers,
    )
    for name, own in kept.items():
        both.passes[name] = model.passes[own]
    weights = load_file(folder / WEIGHTS)
    wanted = {name for name in both.state_dict() if _is_added(name, row)}
    if odd := sorted(wanted ^ set(weights)):
        raise ModelError(
            f"the ears in {folder} do not fit their own specs: {len(odd)} weights differ, such as {odd[0]}"
        )
    try:
        both.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(f"the ears in {folder} do not fit this model: {error}") from error
    both = cast(Any, both).to(next(model.parameters()).dtype).eval()
    return both, processor.over(both.config)


def _is_added(name: str, row: Mapping[str, Any]) -> bool:
    kinds = {"encoders": [spec["name"] for spec in row["encoders"]], "passes": list(row["passes"])}
    kind, own = name.split(".")[:2]
    return own in kinds.get(kind, ())
