"""Ensemble E: one LLM that hears a clip through two checkpoints, one after the other (arXiv 2603.09556, section 3).

Nothing is trained: the soft tokens of both stand in one prompt.
"""

from __future__ import annotations

from typing import Any

import torch

from earnest.errors import ModelError
from earnest.fused.modeling import FusedModel
from earnest.fused.processing import FusedProcessor


def ensemble(
    model: FusedModel, processor: FusedProcessor, second: FusedModel, second_processor: FusedProcessor
) -> tuple[FusedModel, FusedProcessor]:
    """A model whose first pass is the one's and whose second pass is the other's.

    Args:
        model: gives LLM, encoders and first pass; they are taken over, not copied.
        processor: of it.
        second: gives its first pass, and encoders that the other does not have.
        second_processor: of it.

    Raises:
        ModelError: LLM, tokenizer, marks or encoders of one name differ, a model is an ensemble already, or the other's
            encoders stand in another order than they would be saved in.
    """
    for one in (model, second):
        if "second" in one.config.pass_specs:
            raise ModelError("an ensemble is of two models with one pass over the clip each: this one is an ensemble")
    if not _equal(model.language_model, second.language_model):
        raise ModelError("the two models have different LLMs: an ensemble is of two ears of one LLM")
    if processor.tokenizer.get_vocab() != second_processor.tokenizer.get_vocab():
        raise ModelError("the two models have different tokenizers: an ensemble is of two ears of one LLM")
    if _marks(processor) != _marks(second_processor):
        raise ModelError(
            "the two models mark audio or time differently: give both processors the same tokens and times"
        )
    encoders: dict[str, Any] = dict(model.encoders.items())
    specs = {spec.name: spec for spec in model.config.encoder_specs}
    for spec in second.config.encoder_specs:
        same = specs.setdefault(spec.name, spec) == spec
        own = encoders.setdefault(spec.name, second.encoders[spec.name])
        if not same or not _equal(own, second.encoders[spec.name]):
            raise ModelError(f"the two models have different encoders called {spec.name!r}: give one another name")
    both = FusedModel.from_parts(
        model.language_model,
        encoders,
        {"first": model.config.pass_specs["first"], "second": second.config.pass_specs["first"]},
        audio_token_id=model.config.audio_token_id,
        layers={name: spec.layers for name, spec in specs.items()},
        features={name: spec.feature or {} for name, spec in specs.items()},
    )
    led, saved = (
        list(config.pass_specs[name].adapters) for config, name in ((second.config, "first"), (both.config, "second"))
    )
    if led != saved:
        raise ModelError(
            f"the second model hears through {', '.join(led)}, here they stand as {', '.join(saved)}: another encoder "
            "would lead its fusion. Give the model first that names its encoders in the other's order"
        )
    both.passes["first"], both.passes["second"] = model.passes["first"], second.passes["first"]
    return both.eval(), processor.over(both.config)


def _marks(processor: FusedProcessor) -> tuple[Any, ...]:
    names = ("audio_token", "audio_start_token", "audio_end_token", "time_marker_s", "time_marker_format")
    return tuple(getattr(processor, name) for name in names)


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
