"""One LoRA adapter for the LLM behind a frozen ear, whatever is learnt: peft's matrices, transformers' Trainer.

What is trained is given the ear's soft tokens in place of the placeholders, by the same family that answers. (Stock
trainers take an audio model's batch and may drop the audio without a word.)
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.completion import content_key
from earnest.conversation import Audio, Conversation
from earnest.engines.audio_cache import AudioCache, AudioKey
from earnest.engines.families.family import Family, Prompt
from earnest.engines.linear import fast_linear
from earnest.engines.lora import CONFIG, copy_adapter, flags_restored, require_bare
from earnest.engines.prefill import left_pad, positions_of
from earnest.engines.sharing import audio_key
from earnest.engines.weights import state_key
from earnest.errors import EarnestError, ModelError, needs_extra
from earnest.files import write_json
from earnest.training.numbers import above_zero, at_least, equal_parts, one_of

CHECKPOINTS, MADE_OF, EPOCHS = "checkpoints", "made_of.json", "epochs"
SOFT_TOKEN_BYTES = 512 * 2**20
"""Bound of the soft tokens that are kept for the next request about a clip."""
PARTS = ("attention", "mlp", "all")

Loss = Callable[[Any, dict[str, Any], Any], Tensor]
"""Of (peft's wrapper, a collated batch, the number of labels of a step or None)."""


@dataclass(frozen=True)
class LoraSettings:
    """Numbers of a training.

    Attributes:
        rank: of the LoRA matrices (arXiv 2106.09685).
        alpha: their product counts alpha / rank.
        dropout: before them.
        parts: of the LLM's matrices: "attention", "mlp" or "all".
        learning_rate: peak; it rises over the warm-up and falls linearly to 0.
        warm_up: share of the steps in which it rises.
        epochs: passes over the rows.
        batch_size: rows of a step.
        accumulate: parts into which a step is cut where memory is short.
        seed: of LoRA's weights and of the order.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    parts: str = "attention"
    learning_rate: float = 1e-4
    warm_up: float = 0.05
    epochs: int = 1
    batch_size: int = 16
    accumulate: int = 1
    seed: int = 0

    @staticmethod
    def of(numbers: Any, **fixed: Any) -> LoraSettings:
        """A stage's numbers, those that it has; the rest as given, or as usual."""
        own = {
            field.name: getattr(numbers, field.name) for field in fields(LoraSettings) if hasattr(numbers, field.name)
        }
        return LoraSettings(**{**own, **fixed})

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        one_of(self, "parts", PARTS)
        above_zero(self, "learning_rate")
        at_least(self, 1, "rank", "alpha", "epochs", "batch_size", "accumulate")
        equal_parts(self)


@fast_linear()
def train_adapter(
    family: Family,
    rows: Any,
    settings: LoraSettings,
    out: Path,
    *,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    loss: Loss,
    taught: Sequence[Any],
    per_epoch: bool = False,
    arguments: dict[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Trains a LoRA adapter and saves it as peft does; the model itself is afterwards as it was before.

    An interrupted training goes on from its last whole checkpoint in `out/checkpoints`, if that is of the same rows,
    settings and weights; else it begins anew. One process, on the device that the model is on.

    Args:
        family: the loaded model, without an adapter.
        rows: a torch Dataset.
        settings: numbers.
        out: the adapter's folder.
        collate: rows to the batch that `loss` is given.
        loss: what is minimised.
        taught: tells what is learnt from other things; plain values.
        per_epoch: whether the adapter of each epoch is kept, in `out/epochs/1`, `out/epochs/2`, ...
        arguments: further ones of transformers' TrainingArguments; they are part of what tells trainings apart.
        log: one line of progress.

    Raises:
        ModelError: the model wears an adapter already, is on another GPU than the first, peft is missing, or torchrun
            started several processes.
    """
    with needs_extra("train"):
        from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ModelError(f"adapters are fine-tuned in one process, not in {processes}: run this stage without torchrun")
    require_bare(family.model)
    made_of = [asdict(settings), list(taught), state_key(family.model), *([arguments] if arguments else [])]
    begun = _checkpoint(out / CHECKPOINTS, content_key(made_of))
    parts = () if settings.parts == "all" else (settings.parts,)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=family.lora_targets(*parts),
    )
    an_epoch = math.ceil(len(rows) / settings.batch_size)
    steps = settings.epochs * an_epoch

    class Lines(TrainerCallback):
        """Says where it is, line by line."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                log(f"step {state.global_step} of {steps} loss {float(logs['loss']):.4f}")

    class AdapterTrainer(Trainer):
        """Scores a batch by way of the family; `model` is peft's wrapper of the same weights."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            found = loss(model, inputs, num_items_in_batch)
            return (found, {}) if return_outputs else found

    further: dict[str, Any] = {"weight_decay": 0.0, **(arguments or {})}
    given: Any = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warm_up * steps),
        logging_steps=max(1, steps // 10),
        save_steps=an_epoch if per_epoch else max(1, steps // 5),
        save_total_limit=None if per_epoch else 2,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=family.model.device.type == "cpu",
        dataloader_pin_memory=False,
        **further,
    )
    if given.device != family.model.device:
        raise ModelError(
            f"the model is on {family.model.device}, the trainer takes {given.device}: choose the GPU by "
            "CUDA_VISIBLE_DEVICES"
        )
    # More GPUs would each get a copy of the model and a batch of their own.
    given._n_gpu = 1
    set_seed(settings.seed)
    with flags_restored(family.model):
        worn: Any = get_peft_model(family.model, config)
        try:
            trainer = AdapterTrainer(
                model=worn, args=given, train_dataset=rows, data_collator=collate, callbacks=[Lines()]
            )
            trainer.remove_callback(PrinterCallback)
            # A step's tokens are counted over all its parts, whatever the architecture's own forward takes.
            trainer.model_accepts_loss_kwargs = True
            trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
            worn.save_pretrained(out, save_embedding_layers=False)
        finally:
            worn.unload()
    if per_epoch:
        for number in range(1, settings.epochs + 1):
            copy_adapter(out / CHECKPOINTS / f"checkpoint-{number * an_epoch}", out / EPOCHS / str(number))
    # In one move: a kill leaves either a training to complete or a complete one.
    done = out / f"{CHECKPOINTS}.done"
    shutil.rmtree(done, ignore_errors=True)
    shutil.rmtree((out / CHECKPOINTS).rename(done))
    return out


def _checkpoint(folder: Path, made_of: str) -> Path | None:
    """The last checkpoint that was written to its end, of the same training; others are removed."""
    note = folder / MADE_OF
    if not note.is_file() or json.loads(note.read_text("utf-8")) != made_of:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(note, made_of)
        return None
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, json.JSONDecodeError):
            # It is written last.
            shutil.rmtree(path)
        else:
            return path
    return None


def is_trained(folder: Path) -> bool:
    """Whether a training has been completed in a folder."""
    return (folder / CONFIG).is_file() and not (folder / CHECKPOINTS).exists()


def prompt_of(family: Family, conversation: Conversation) -> Prompt:
    """A conversation as tokens.

    Raises:
        EarnestError: the model cannot take it.
    """
    (prompt,) = family.render([conversation])
    if isinstance(prompt, EarnestError):
        raise prompt
    return prompt


def soft_tokens(family: Family, parts: Sequence[Audio], kept: AudioCache) -> list[Tensor]:
    """Soft tokens [F, D] of each clip; those that are not in `kept` go through the ear, and into it."""
    known: dict[AudioKey, Tensor] = {}
    missing: dict[AudioKey, Audio] = {}
    for part in parts:
        key = audio_key(part)
        if (tokens := kept.get(key)) is None:
            missing[key] = part
        else:
            known[key] = tokens
    if missing:
        for key, tokens in zip(missing, _encoded(family, list(missing.values())), strict=True):
            known[key] = tokens
            kept.put(key, tokens)
    return [known[audio_key(part)] for part in parts]


def padded(
    family: Family, rows: Sequence[tuple[Prompt, Sequence[int]]], kept: AudioCache
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Token ids and mask [B, T], padded on the left, of prompts and what is said after each, and the soft tokens."""
    ids, mask = left_pad(
        [[*prompt.token_ids, *reply] for prompt, reply in rows], family.pad_token_id, family.model.device
    )
    return ids, mask, soft_tokens(family, [part for prompt, _ in rows for part in prompt.audio], kept)


def last_logits(
    family: Family, token_ids: Tensor, mask: Tensor, soft: Sequence[Tensor], keep: int, model: Any = None
) -> Tensor:
    """Logits [B, keep, V] of the last `keep` tokens, each from what stands before it; no gradient reaches the ear.

    Args:
        family: the model.
        token_ids: [B, T], padded on the left.
        mask: [B, T], 1 at real tokens.
        soft: soft tokens [F, D] of each clip, in the order of their placeholders.
        keep: below T.
        model: stands in for the family's LLM.
    """
    with torch.no_grad():
        embeds = family.embed(token_ids, soft)
    found = (model or family.language_model)(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions_of(mask),
        use_cache=False,
        logits_to_keep=keep + 1,
    )
    return found.logits[:, :-1]


def _encoded(family: Family, parts: Sequence[Audio]) -> list[Tensor]:
    """Soft tokens [F, D] of each clip, as an answer gets them: without dropout, although the LLM is being trained."""
    training = [module for module in family.model.modules() if module.training]
    family.model.eval()
    try:
        with torch.no_grad():
            # Copies: what an encoder gives for a batch may be views of all of it.
            return [tokens.clone() for tokens in family.encode(parts)]
    finally:
        for module in training:
            module.training = True
