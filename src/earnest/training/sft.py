"""Supervised fine-tuning of the LLM behind the ears: LoRA by peft, steps by transformers' Trainer.

The ear is frozen: what is trained is given its soft tokens in place of the placeholders, by the same family that
answers. (Stock trainers take an audio model's batch and may drop the audio without a word.) Only replies are learnt.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from earnest.completion import content_key
from earnest.conversation import Audio, Conversation
from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Family, Prompt
from earnest.engines.lora import CONFIG, flags_restored, require_bare
from earnest.engines.prefill import left_pad, positions_of
from earnest.engines.sharing import audio_key
from earnest.engines.weights import state_key
from earnest.errors import EarnestError, ModelError, needs_extra
from earnest.files import write_json

IGNORED = -100
SOFT_TOKEN_BYTES = 512 * 2**20
"""Bound of the soft tokens that are kept for the next question about a clip."""
CHECKPOINTS, MADE_OF = "checkpoints", "made_of.json"
PARTS = ("attention", "mlp", "all")


@dataclass(frozen=True)
class Lesson:
    """A request and the reply that is to be learnt.

    Attributes:
        conversation: makes the request when it is its turn, so that not all clips are in memory at once.
        reply: as the model would write it, its tags included.
        name: tells the request from others, as an example's id does.
    """

    conversation: Callable[[], Conversation]
    reply: str
    name: str = ""


@dataclass(frozen=True)
class SftSettings:
    """Numbers of a fine-tuning.

    Attributes:
        rank: of the LoRA matrices (arXiv 2106.09685).
        alpha: their product counts alpha / rank.
        dropout: before them.
        parts: of the LLM's matrices: "attention", "mlp" or "all".
        learning_rate: peak; it rises over the warm-up and falls linearly to 0.
        warm_up: share of the steps in which it rises.
        epochs: passes over the lessons.
        batch_size: lessons of a step.
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

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            EarnestError: one is out of its range.
        """
        if self.parts not in PARTS:
            raise EarnestError(f"parts is {self.parts!r}: give one of {', '.join(PARTS)}")
        if not self.learning_rate > 0:
            raise EarnestError(f"learning_rate is {self.learning_rate}: it must be above 0")
        for name in ("rank", "alpha", "epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise EarnestError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.batch_size % self.accumulate:
            raise EarnestError(
                f"a batch_size of {self.batch_size} cannot be cut into {self.accumulate} equal parts: change one"
            )


@dataclass(frozen=True)
class _Row:
    prompt: Prompt
    reply: tuple[int, ...]


class _Rows(Dataset[_Row]):
    """Lessons as tokens, made when they are asked for."""

    def __init__(self, family: Family, lessons: Sequence[Lesson]) -> None:
        self._family = family
        self._lessons = lessons

    def __len__(self) -> int:
        return len(self._lessons)

    def __getitem__(self, place: int) -> _Row:
        lesson = self._lessons[place]
        (prompt,) = self._family.render([lesson.conversation()])
        if isinstance(prompt, EarnestError):
            raise prompt
        return _Row(prompt, (*self._family.continuation_ids(lesson.reply), self._family.turn_end_id))


def fine_tune(
    family: Family,
    lessons: Sequence[Lesson],
    settings: SftSettings,
    out: Path | str,
    *,
    soft: AudioCache | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Trains a LoRA adapter on replies and saves it as peft does; the model itself is afterwards as it was before.

    An interrupted training goes on from its last whole checkpoint in `out/checkpoints`, if that is of the same lessons,
    settings and weights; else it begins anew. One process, on the device that the model is on.

    Args:
        family: the loaded model, without an adapter.
        lessons: requests and replies.
        settings: numbers.
        out: the adapter's folder.
        soft: soft tokens of clips, shared by several trainings on one model; None for a cache of its own.
        log: one line of progress.

    Raises:
        EarnestError: there are no lessons, or the model cannot take one of them.
        ModelError: it wears an adapter already, is on another GPU than the first, or peft is missing.
    """
    with needs_extra("train"):
        from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

    if not lessons:
        raise EarnestError("there is nothing to learn from: give at least one lesson")
    require_bare(family.model)
    out = Path(out)
    rows = _Rows(family, lessons)
    taught = [[lesson.name, lesson.reply] for lesson in lessons]
    begun = _checkpoint(out / CHECKPOINTS, content_key([asdict(settings), taught, state_key(family.model)]))
    parts = () if settings.parts == "all" else (settings.parts,)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=family.lora_targets(*parts),
    )
    steps = settings.epochs * math.ceil(len(rows) / settings.batch_size)
    heard = AudioCache(SOFT_TOKEN_BYTES) if soft is None else soft

    class Lines(TrainerCallback):
        """Says where it is, line by line."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                log(f"step {state.global_step} of {steps} loss {float(logs['loss']):.4f}")

    class ReplyTrainer(Trainer):
        """Scores replies by way of the family; `model` is peft's wrapper of the same weights."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            del inputs["shift_labels"]
            loss = reply_loss(family, **inputs) / num_items_in_batch
            return (loss, {}) if return_outputs else loss

    arguments: Any = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warm_up * steps),
        weight_decay=0.0,
        logging_steps=max(1, steps // 10),
        save_steps=max(1, steps // 5),
        save_total_limit=2,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=family.model.device.type == "cpu",
        dataloader_pin_memory=False,
    )
    if arguments.device != family.model.device:
        raise ModelError(
            f"the model is on {family.model.device}, the trainer takes {arguments.device}: choose the GPU by "
            "CUDA_VISIBLE_DEVICES"
        )
    # More GPUs would each get a copy of the model and a batch of their own.
    arguments._n_gpu = 1
    set_seed(settings.seed)
    with flags_restored(family.model):
        worn: Any = get_peft_model(family.model, config)
        try:
            trainer = ReplyTrainer(
                model=worn,
                args=arguments,
                train_dataset=rows,
                data_collator=lambda batch: collated(family, batch, heard),
                callbacks=[Lines()],
            )
            trainer.remove_callback(PrinterCallback)
            # A step's tokens are counted over all its parts, whatever the architecture's own forward takes.
            trainer.model_accepts_loss_kwargs = True
            trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
            worn.save_pretrained(out, save_embedding_layers=False)
        finally:
            worn.unload()
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


def collated(family: Family, batch: Sequence[_Row], soft: AudioCache) -> dict[str, Any]:
    """A batch for `reply_loss`; clips that are not in `soft` go through the ear, and into it.

    `shift_labels` are the labels: by this name the trainer counts all of them.
    """
    device = family.model.device
    ids, mask = left_pad([[*row.prompt.token_ids, *row.reply] for row in batch], family.pad_token_id, device)
    longest = max(len(row.reply) for row in batch)
    labels = torch.tensor([[IGNORED] * (longest - len(row.reply)) + list(row.reply) for row in batch], device=device)
    parts = [part for row in batch for part in row.prompt.audio]
    known = {audio_key(part): soft.get(audio_key(part)) for part in parts}
    missing = {audio_key(part): part for part in parts if known[audio_key(part)] is None}
    if missing:
        for key, tokens in zip(missing, _encoded(family, list(missing.values())), strict=True):
            known[key] = tokens
            soft.put(key, tokens)
    own = [known[audio_key(part)] for part in parts]
    return {"token_ids": ids, "mask": mask, "labels": labels, "shift_labels": labels, "soft": own}


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


def reply_loss(family: Family, token_ids: Tensor, mask: Tensor, labels: Tensor, soft: list[Tensor]) -> Tensor:
    """Sum of the cross-entropies of all replies' tokens, in nats.

    Args:
        family: the model.
        token_ids: [B, T], padded on the left.
        mask: [B, T], 1 at real tokens.
        labels: [B, n] of the last n tokens; `IGNORED` where a row's reply is shorter.
        soft: soft tokens [F, D] of each clip, in the order of their placeholders.
    """
    with torch.no_grad():
        embeds = family.embed(token_ids, soft)
    logits = family.language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions_of(mask),
        use_cache=False,
        logits_to_keep=labels.shape[1] + 1,
    ).logits[:, :-1]
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
