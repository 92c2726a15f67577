"""Trains what stands between frozen ears and a frozen LLM, on targets that the LLM itself wrote (ALARM, section 4).

Only R is learnt; a target that was cut ends without the end of a turn. Frames come from the disk, the targets of one
clip share it, and batches are of similar length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earnest.alignment.features import Features
from earnest.alignment.lessons import Lessons, lessons_of
from earnest.alignment.packs import IGNORED, Batch, Lesson, batches_of, collated
from earnest.alignment.rows import Target
from earnest.completion import content_key
from earnest.engines.families.fused import FusedFamily
from earnest.engines.linear import fast_linear
from earnest.engines.prefill import left_pad, positions_of
from earnest.engines.weights import state_key
from earnest.errors import needs_extra
from earnest.finding import Metric
from earnest.fused.modeling import FusedModel
from earnest.fused.processing import FusedProcessor
from earnest.statistics import bootstrap
from earnest.training.checkpoint import Checkpointer
from earnest.training.numbers import above_zero, at_least, equal_parts
from earnest.training.optimisers import Optimisers
from earnest.training.schedule import one_cycle

PASS = "first"
LOGGED = 25
"""Steps between two lines of the log."""
MACHINE = ("threads", "every", "accumulate", "recompute")
"""Numbers that change how fast a training is and what it holds in memory, not what it makes but for rounding."""


@dataclass(frozen=True)
class AlignmentSettings:
    """Numbers of a training.

    Attributes:
        steps: optimiser steps.
        batch_size: clips a step, each with its targets.
        targets_per_clip: most targets of one clip in one sequence.
        learning_rate: peak of AdamW.
        muon_rate: peak of the convolutions under Muon; 0 gives them to AdamW, as the paper does.
        weight_decay: of both.
        warm_up: steps of linear warm-up; then a cosine.
        clip_norm: of the gradients.
        distillation: weight of KL(LLM with the surrogate || model) over the targets' tokens, beside the loss.
        accumulate: parts into which a step is cut where memory is short.
        recompute: keep no activations of the LLM, but compute them again.
        every: steps between two checkpoints.
        seed: of the order.
        threads: of torch on the CPU.
    """

    steps: int = 10_000
    batch_size: int = 32
    targets_per_clip: int = 8
    learning_rate: float = 1e-4
    muon_rate: float = 0.0
    weight_decay: float = 0.01
    warm_up: int = 1500
    clip_norm: float = 1.0
    distillation: float = 0.0
    accumulate: int = 1
    recompute: bool = False
    every: int = 500
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        at_least(self, 1, "steps", "batch_size", "targets_per_clip", "accumulate", "every", "threads")
        at_least(self, 0, "muon_rate", "weight_decay", "warm_up", "distillation")
        above_zero(self, "learning_rate", "clip_norm")
        equal_parts(self)

    def factor(self, step: int) -> float:
        """Share of the peak rates at a step, from 0."""
        return one_cycle(step, self.steps, min(0.5, self.warm_up / self.steps))


def logits_of(model: FusedModel, batch: Batch, soft: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [n, V] at the n learnt tokens of a batch, row by row, and those tokens [n]."""
    device = soft[0].device
    embeds = model.embed(batch.ids.to(device), soft)
    mask = torch.zeros(batch.seen.shape, dtype=embeds.dtype, device=device)
    mask = mask.masked_fill(~batch.seen.to(device), torch.finfo(embeds.dtype).min)
    learnt = batch.labels.to(device) != IGNORED
    columns = learnt.any(0).nonzero().flatten()
    found: Any = model.language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=batch.positions.to(device),
        use_cache=False,
        logits_to_keep=columns,
    )
    return found.logits[learnt[:, columns]], batch.labels.to(device)[learnt]


def optimisers_of(
    audio_pass: nn.Module, frozen: Sequence[str], *, muon_rate: float, learning_rate: float, weight_decay: float
) -> Optimisers:
    """Optimisers of a pass, convolutions under Muon; the parameters of what is frozen are left as they are.

    Args:
        audio_pass: what is trained.
        frozen: names, within the pass, of modules that stay as they are.
        muon_rate: peak for the convolutions.
        learning_rate: peak for the rest.
        weight_decay: of both.
    """
    for name, parameter in audio_pass.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] not in frozen)
    return Optimisers(
        audio_pass.named_parameters(),
        lambda _, parameter: parameter.ndim == 3,
        muon_rate=muon_rate,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )


@fast_linear()
def train_pass(
    model: FusedModel,
    processor: FusedProcessor,
    rows: Sequence[Target],
    settings: AlignmentSettings,
    out: Path,
    cache: Path,
    *,
    frozen: Sequence[str] = (),
    save: Callable[[FusedModel, Path], None] | None = None,
    log: Callable[[str], None] = print,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Trains a model's first pass and saves the whole model with its processor.

    An interrupted training goes on from its last checkpoint to the same weights. Under torchrun each process takes its
    share of a step's clips, and gradients are averaged over all tokens.

    Args:
        model: with a fresh pass, or one to go on with.
        processor: of it.
        rows: targets; those that were rejected are left out.
        settings: numbers.
        out: the model's folder.
        cache: folder of the encoders' frames.
        frozen: names, within the pass, of modules that stay as they are, such as "adapters" when fusion is trained.
        save: how the model is saved; as it is, if None.
        log: one line of progress.
        progress: of the encoding.

    Raises:
        AudioError: clips that cannot be heard.
        EarnestError: there is nothing to learn from.
    """
    with needs_extra("train"):
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    device = next(model.language_model.parameters()).device
    # Encoding a corpus takes longer than processes usually wait for each other.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[patience])
    if device.type == "cpu":
        torch.set_num_threads(settings.threads)
    family = FusedFamily(model, processor)
    started = time.perf_counter()
    if accelerator.num_processes > 1:
        # Each process encodes its share; then all find the cache full.
        paths = list(dict.fromkeys(row.audio for row in rows if row.target is not None))
        Features(model, cache).prepare(paths[accelerator.process_index :: accelerator.num_processes])
        accelerator.wait_for_everyone()
    features = Features(model, cache)
    lessons = lessons_of(
        family,
        rows,
        features,
        targets_per_clip=settings.targets_per_clip,
        distilled=settings.distillation > 0,
        progress=progress,
    )
    targets = sum(len(pack.lessons) for pack in lessons.packs)
    log(f"{targets} targets, {len(lessons.clips)} clips heard in {time.perf_counter() - started:.0f} s")
    audio_pass = model.passes[PASS]
    optimisers = optimisers_of(
        audio_pass,
        frozen,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    log(f"{sum(p.numel() for p in optimisers.parameters)} parameters to train")
    if settings.recompute:
        model.language_model.activation_checkpointing_enable()
        model.language_model.train()
    numbers = {name: own for name, own in asdict(settings).items() if name not in MACHINE}
    made_of = content_key([numbers, list(frozen), state_key(model), lessons.key])
    checkpoint = Checkpointer(out / "checkpoint.pt", settings.every)
    first = 0
    if state := checkpoint.resumed(made_of, "targets", log):
        first = state["step"]
        audio_pass.load_state_dict(state["pass"])
        optimisers.load_state_dict(state["optimisers"])
        log(f"goes on behind step {first}")
    losses: list[float] = []
    learnt = 0
    began = time.perf_counter()
    size = min(settings.batch_size, len(lessons.packs))
    an_epoch = len(lessons.packs) // size
    batches: list[list[int]] = []
    for step in range(first, settings.steps):
        epoch, place = divmod(step, an_epoch)
        if not batches or not place:
            batches = batches_of(lessons.packs, size, settings.seed, epoch)
        places = batches[place]
        loss, count = _gradients(family, lessons, places, features, settings, accelerator)
        learnt += sum(len(lessons.packs[place].lessons) for place in places)
        for parameter in optimisers.parameters:
            parameter.grad = _summed(parameter, accelerator) / count
        optimisers.step(settings.factor(step), clip=settings.clip_norm)
        losses.append(loss / count)
        if (step + 1) % LOGGED == 0 or step + 1 == settings.steps:
            seconds = time.perf_counter() - began
            mean = sum(losses) / len(losses)
            log(f"step {step + 1} of {settings.steps} loss {mean:.4f} {learnt / seconds:.1f} targets/s")
            losses = []
        if checkpoint.due(step) and accelerator.is_main_process:
            checkpoint.save(
                {
                    "made_of": made_of,
                    "step": step + 1,
                    "pass": audio_pass.state_dict(),
                    "optimisers": optimisers.state_dict(),
                }
            )
    if settings.recompute:
        model.language_model.activation_checkpointing_disable()
    model.eval()
    if accelerator.is_main_process:
        (save or _save)(model, out)
        processor.save_pretrained(out)
    accelerator.wait_for_everyone()
    checkpoint.clear()
    return out


@torch.no_grad()
def held_out_loss(
    model: FusedModel, processor: FusedProcessor, rows: Sequence[Target], cache: Path, *, batch_size: int = 16
) -> Metric:
    """Mean negative log-likelihood of a target's tokens in nats, over rows that were not trained on.

    The interval is a bootstrap over clips; n counts them.
    """
    family = FusedFamily(model, processor)
    features = Features(model, cache)
    lessons = lessons_of(family, rows, features)
    sums: dict[int, list[float]] = {}
    for start in range(0, len(lessons.packs), batch_size):
        batch = collated(lessons.packs[start : start + batch_size])
        clips = [lessons.clips[number] for number in batch.clips]
        soft = model.adapt(features.frames(clips), torch.tensor([clip.samples for clip in clips]), PASS)
        logits, wanted = logits_of(model, batch, soft)
        losses = F.cross_entropy(logits.float(), wanted, reduction="none").tolist()
        for clip, labels in zip(batch.clips, batch.labels, strict=True):
            count = int((labels != IGNORED).sum())
            sums.setdefault(clip, []).extend(losses[:count])
            losses = losses[count:]
    return bootstrap([sum(own) / len(own) for own in sums.values()], unit="nats")


def _save(model: FusedModel, out: Path) -> None:
    model.save_pretrained(out)


def _summed(parameter: torch.nn.Parameter, accelerator: Any) -> Tensor:
    """A gradient added up over all processes."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return accelerator.reduce(gradient, "sum") if accelerator.num_processes > 1 else gradient


def _gradients(
    family: FusedFamily,
    lessons: Lessons,
    places: Sequence[int],
    features: Features,
    settings: AlignmentSettings,
    accelerator: Any,
) -> tuple[float, float]:
    """Adds up the gradients of a step's packs; the loss summed over all tokens of all processes, and their number."""
    model: FusedModel = family.model
    own = places[accelerator.process_index :: accelerator.num_processes]
    # Of a small step some processes have nothing.
    size = max(1, -(-len(own) // settings.accumulate))
    totals = torch.zeros(2, device=model.device)
    for start in range(0, len(own), size):
        packs = [lessons.packs[place] for place in own[start : start + size]]
        batch = collated(packs)
        clips = [lessons.clips[number] for number in batch.clips]
        lengths = torch.tensor([clip.samples for clip in clips])
        soft = model.adapt(features.frames(clips), lengths, PASS)
        logits, wanted = logits_of(model, batch, soft)
        loss = F.cross_entropy(logits.float(), wanted, reduction="sum")
        whole = loss
        if settings.distillation:
            teachers = [lessons.teachers[place] for pack in packs for place in pack.lessons]
            whole = loss + settings.distillation * _divergence(family, logits, teachers)
        whole.backward()
        totals += torch.tensor([loss.item(), len(wanted)], device=totals.device)
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals, "sum")
    return float(totals[0]), float(totals[1])


def _divergence(family: FusedFamily, logits: Tensor, teachers: Sequence[Lesson]) -> Tensor:
    """Sum over tokens of KL(teacher || student) in nats; the teacher is the frozen LLM that reads the surrogate."""
    rows = [[*lesson.prompt, *lesson.reply] for lesson in teachers]
    ids, mask = left_pad(rows, family.pad_token_id, logits.device)
    longest = max(len(lesson.reply) for lesson in teachers)
    with torch.no_grad():
        found: Any = family.language_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions_of(mask),
            use_cache=False,
            logits_to_keep=longest + 1,
        )
        known = [row[-1 - len(lesson.reply) : -1] for row, lesson in zip(found.logits, teachers, strict=True)]
        wanted = torch.cat(known).float().log_softmax(-1)
    return F.kl_div(logits.float().log_softmax(-1), wanted, reduction="sum", log_target=True)
