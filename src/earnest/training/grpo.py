"""GRPO (arXiv 2402.03300, section 4.1) with rollouts that hold more than the policy's own tokens.

    for each step:
        prompts           a few, each answered G times by the policy, sampled
        advantage         A = (R - mean of its group) / (standard deviation of its group + eps)
        loss              - min(r A, clip(r, 1 - c, 1 + c) A) + beta KL,   r = exp(logp - old logp)
                          KL = exp(ref - logp) - (ref - logp) - 1          (k3, per token)
        one mask          the policy's own tokens: prompt, inserted audio and its marks count in none of loss, KL, mean
        mean              over the tokens of a reply, then over the replies

What is trained and scored is `policy.py`'s.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.completion import content_key
from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Family
from earnest.engines.linear import fast_linear
from earnest.engines.lora import flags_restored, require_bare
from earnest.engines.weights import state_key
from earnest.errors import EarnestError, RecipeError, needs_extra
from earnest.files import append_durably, cut_torn_line, json_line, read_json_lines, write_json, write_json_lines
from earnest.training.checkpoint import Checkpointer
from earnest.training.lora_trainer import MADE_OF, PARTS, SOFT_TOKEN_BYTES
from earnest.training.numbers import above_zero, at_least, one_of
from earnest.training.policy import Policy, Rollout, Row, rows_of

EPS = 1e-4
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class GRPOSettings:
    """Numbers of a training.

    Attributes:
        steps: batches of rollouts.
        prompts: of a step.
        group: replies to each of them (G).
        updates: optimiser steps on each batch of rollouts; beyond the first the clip may bind.
        temperature: of the rollouts, and of the probabilities that are compared.
        learning_rate: peak; it rises over the warm-up and then stays.
        warm_up: steps.
        clip: c.
        kl: beta; 0 leaves the reference out.
        rank: of the LoRA matrices; 0 trains the whole LLM, with a copy as the reference.
        alpha: their product counts alpha / rank.
        parts: of the LLM's matrices: "attention", "mlp" or "all".
        most_tokens: rows times columns that are scored at once.
        every: steps between two checkpoints.
        seed: of LoRA's weights, of the order and of the rollouts.
    """

    steps: int = 100
    prompts: int = 8
    group: int = 8
    updates: int = 1
    temperature: float = 1.0
    learning_rate: float = 1e-6
    warm_up: int = 10
    clip: float = 0.2
    kl: float = 0.04
    rank: int = 16
    alpha: int = 32
    parts: str = "all"
    most_tokens: int = 16_384
    every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        one_of(self, "parts", PARTS)
        if self.group < 2:
            raise RecipeError(f"group is {self.group}: an advantage needs at least 2 replies to compare")
        above_zero(self, "learning_rate", "temperature")
        at_least(self, 1, "steps", "prompts", "updates", "alpha", "most_tokens", "every")
        at_least(self, 0, "rank", "warm_up", "kl")
        if not 0 < self.clip < 1:
            raise RecipeError(f"clip is {self.clip}: it must be between 0 and 1")


Roll = Callable[[Sequence[Any], Sequence[int]], Sequence[Rollout]]
"""Answers questions, each with a seed of its own, by the policy as it is now."""


def advantages(rewards: Tensor, eps: float = EPS) -> Tensor:
    """[P, G] -> [P, G]: (R - mean) / (std + eps) within each group; the standard deviation is that of the sample.

    Exactly 0 where all rewards of a group are equal: what is left of them by rounding is no small thing beside eps.
    """
    found = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + eps)
    return found.where(_differ(rewards)[:, None], 0.0)


def _differ(rewards: Tensor) -> Tensor:
    """[P, G] -> [P]: whether a group's rewards are not all equal."""
    return rewards.amax(1) > rewards.amin(1)


def policy_loss(
    logp: Sequence[Tensor],
    old: Sequence[Tensor],
    reference: Sequence[Tensor] | None,
    advantage: Sequence[float],
    *,
    clip: float,
    kl: float,
) -> tuple[Tensor, dict[str, float]]:
    """Sum over replies of the mean over their tokens, and what is worth knowing of it.

    Args:
        logp: [n] of each reply's own tokens under the policy.
        old: the same when they were drawn.
        reference: the same under the reference; None without KL.
        advantage: of each reply.
        clip: c.
        kl: beta.
    """
    total = logp[0].new_zeros(())
    divergence = clipped = tokens = 0.0
    for place, (own, before, gain) in enumerate(zip(logp, old, advantage, strict=True)):
        ratio = (own - before).exp()
        bounded = ratio.clamp(1 - clip, 1 + clip)
        loss = -torch.minimum(ratio * gain, bounded * gain)
        if reference is not None and kl:
            apart = reference[place] - own
            k3 = apart.exp() - apart - 1
            loss = loss + kl * k3
            divergence += float(k3.detach().sum())
        total = total + loss.mean()
        clipped += float((ratio.detach() != bounded.detach()).sum())
        tokens += len(own)
    return total, {"kl": divergence / tokens, "clipped": clipped / tokens}


@fast_linear()
def train_policy(
    family: Family,
    questions: Sequence[Any],
    roll: Roll,
    settings: GRPOSettings,
    out: Path,
    *,
    taught: Any,
    on_step: Callable[[int, Sequence[Rollout]], None] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Trains an adapter by GRPO and saves it as peft does (or the whole model); the model is then as it was before.

    An interrupted training goes on from its last checkpoint to the same weights. Under torchrun each process answers
    and scores its share of a step's prompts, and gradients are averaged.

    Args:
        family: the loaded model, without an adapter; what the policy starts from and, disabled, the reference.
        questions: what is asked; drawn in an order of their own.
        roll: answers by the policy as it is now.
        settings: numbers.
        out: folder of the result; `metrics.jsonl` has a line for each step.
        taught: tells what is learnt from other things; plain values.
        on_step: given each step's number and rollouts, to be logged.
        log: one line of progress.

    Raises:
        ModelError: the model wears an adapter already, or peft or accelerate is missing.
        EarnestError: there is nothing to ask, or the processes cannot share a step's prompts evenly.
    """
    with needs_extra("train"):
        from accelerate import Accelerator
    if not questions:
        raise EarnestError("there is nothing to ask: give at least one question")
    require_bare(family.model)
    made_of = content_key([asdict(settings), taught, state_key(family.model)])
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(cpu=family.model.device.type == "cpu")
    if settings.prompts % accelerator.num_processes:
        raise EarnestError(
            f"prompts is {settings.prompts}, which {accelerator.num_processes} processes cannot share evenly: give a "
            "multiple of their number"
        )
    checkpoint = Checkpointer(out / "checkpoint.pt", settings.every)
    with flags_restored(family.model):
        policy = Policy(
            family,
            rank=settings.rank,
            alpha=settings.alpha,
            parts=settings.parts,
            temperature=settings.temperature,
            seed=settings.seed,
        )
        try:
            parameters = policy.parameters
            optimizer: Any = accelerator.prepare(
                torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.0)
            )
            state = checkpoint.load() if _same(out, made_of) else None
            first = 0
            if state:
                first = state["step"]
                policy.load(state["policy"])
                optimizer.load_state_dict(state["optimizer"])
                if accelerator.is_main_process:
                    _forget(out / METRICS, first)
                log(f"goes on behind step {first}")
            else:
                checkpoint.clear()
                (out / METRICS).unlink(missing_ok=True)
                write_json(out / MADE_OF, made_of)
            for step in range(first, settings.steps):
                began = time.perf_counter()
                # Of one step: which clips are encoded together is then the same after an interruption.
                heard = AudioCache(SOFT_TOKEN_BYTES)
                asked = _drawn(questions, settings, step, accelerator.process_index, accelerator.num_processes)
                seeds = [_seed(settings.seed, number, k) for number, _ in asked for k in range(settings.group)]
                repeated = [question for _, question in asked for _ in range(settings.group)]
                rollouts = list(roll(repeated, seeds))
                rewards = torch.tensor([rollout.reward for rollout in rollouts]).view(-1, settings.group)
                gains = advantages(rewards)
                rolled = time.perf_counter()
                notes = _update(
                    policy, optimizer, accelerator, rollouts, gains.flatten().tolist(), settings, step, heard
                )
                row = {
                    "step": step + 1,
                    "reward": round(float(rewards.mean()), 4),
                    "informative": round(float(_differ(rewards).float().mean()), 4),
                    "generations": round(sum(len(r.generations) for r in rollouts) / len(rollouts), 3),
                    **_means([rollout.record for rollout in rollouts]),
                    **{name: round(value, 6) for name, value in notes.items()},
                    "rollout_s": round(rolled - began, 2),
                    "update_s": round(time.perf_counter() - rolled, 2),
                }
                if accelerator.is_main_process:
                    append_durably(out / METRICS, json_line(row))
                    if on_step:
                        on_step(step + 1, rollouts)
                if (step + 1) % 5 == 0 or step + 1 == settings.steps:
                    shown = ", ".join(f"{name} {value:g}" for name, value in row.items() if name != "step")
                    log(f"step {step + 1} of {settings.steps}: {shown}")
                if checkpoint.due(step) and accelerator.is_main_process:
                    checkpoint.save({"step": step + 1, "policy": policy.state(), "optimizer": optimizer.state_dict()})
            if accelerator.is_main_process:
                policy.save(out)
            accelerator.wait_for_everyone()
        finally:
            policy.close()
    checkpoint.clear()
    return out


def _update(
    policy: Policy,
    optimizer: Any,
    accelerator: Any,
    rollouts: Sequence[Rollout],
    gains: Sequence[float],
    settings: GRPOSettings,
    step: int,
    heard: AudioCache,
) -> dict[str, float]:
    """The optimiser's steps on one batch of rollouts."""
    # A group whose replies all earn the same teaches nothing but to stay where the reference is.
    rows = {k: rows_of(rollouts[k]) for k, gain in enumerate(gains) if abs(gain) > EPS or settings.kl}
    # A reply whose first generation failed has no tokens.
    rows = {k: own for k, own in rows.items() if own}
    batches = _batches(rows, settings.most_tokens)
    old: dict[int, Tensor] = {}
    reference: dict[int, Tensor] = {}
    for batch in batches:
        with torch.no_grad():
            if settings.updates > 1:
                old |= policy.logprobs(batch, rows, heard)
            if settings.kl:
                reference |= policy.logprobs(batch, rows, heard, reference=True)
    notes: dict[str, float] = {"kl": 0.0, "clipped": 0.0, "gradient": 0.0}
    for _ in range(settings.updates):
        for batch in batches:
            logp = policy.logprobs(batch, rows, heard)
            before = [old[k] if old else logp[k].detach() for k in batch]
            loss, found = policy_loss(
                [logp[k] for k in batch],
                before,
                [reference[k] for k in batch] if settings.kl else None,
                [gains[k] for k in batch],
                clip=settings.clip,
                kl=settings.kl,
            )
            accelerator.backward(loss / len(rollouts))
            for name, value in found.items():
                notes[name] += value * len(batch) / len(rows) / settings.updates
        policy.average(accelerator)
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters, 1.0)
        notes["gradient"] += float(norm) / settings.updates
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warm_up))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return notes


def _batches(rows: Mapping[int, Sequence[Row]], most_tokens: int) -> list[list[int]]:
    """Replies of similar length together, at most so many tokens, padding included, at once."""

    def length(k: int) -> int:
        return max(len(row.token_ids) for row in rows[k])

    batches: list[list[int]] = []
    count = 0
    for k in sorted(rows, key=length):
        more = count + len(rows[k])
        if not batches or more * length(k) > most_tokens:
            batches.append([])
            more = len(rows[k])
        batches[-1].append(k)
        count = more
    return batches


def _drawn(
    questions: Sequence[Any], settings: GRPOSettings, step: int, process: int, processes: int
) -> list[tuple[int, Any]]:
    """A step's questions of one process, numbered over the training: each once before any comes again."""
    first = step * settings.prompts
    drawn: list[tuple[int, Any]] = []
    for number in range(first + process, first + settings.prompts, processes):
        epoch, place = divmod(number, len(questions))
        order = list(range(len(questions)))
        random.Random(f"grpo/{settings.seed}/{epoch}").shuffle(order)
        drawn.append((number, questions[order[place]]))
    return drawn


def _seed(seed: int, number: int, k: int) -> int:
    return random.Random(f"grpo/{seed}/{number}/{k}").getrandbits(31)


def _means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of what is a number, over the records that have it."""
    found: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append(float(value))
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def _forget(metrics: Path, step: int) -> None:
    """Takes out the lines of steps behind the last checkpoint: they are made again."""
    if metrics.exists():
        cut_torn_line(metrics)
        write_json_lines(metrics, (row for row in read_json_lines(metrics) if row["step"] <= step))


def _same(out: Path, made_of: str) -> bool:
    note = out / MADE_OF
    return note.is_file() and json.loads(note.read_text("utf-8")) == made_of
