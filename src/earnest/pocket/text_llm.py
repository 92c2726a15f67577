"""Stage `text-llm`: a tiny Qwen3 learns the closed language from text alone; afterwards it is frozen."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from earnest.errors import RecipeError
from earnest.pocket.batches import Batch, PackEncoder, by_length, collate
from earnest.pocket.curriculum import Mix, draw_pack
from earnest.pocket.schedule import one_cycle
from earnest.pocket.tokenizer import END, PAD, build_tokenizer
from earnest.training.checkpoint import Checkpointer
from earnest.training.muon import Muon

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


@dataclass(frozen=True)
class TextLLMSettings:
    """Numbers of the first stage.

    Attributes:
        hidden: width D.
        layers: number of transformer layers.
        steps: optimiser steps.
        batch_size: packs a step.
        learning_rate: peak of the schedule for AdamW's matrices (embeddings and norms).
        muon_rate: peak for the hidden matrices under Muon; 0 trains everything with AdamW.
        recall_steps: steps spent on look-up exercises alone, at the start.
        places_steps: steps after them that ask for times and speakers, which stand before what they belong to.
        noise: standard deviation of the noise on stream slots, in units of the embeddings' own.
        stream: share of surrogates that come as streams.
        turns: exchanges after one surrogate.
        seed: of weights and curriculum.
        threads: of the training.
    """

    hidden: int = 192
    layers: int = 4
    steps: int = 2200
    batch_size: int = 12
    learning_rate: float = 3e-3
    muon_rate: float = 5e-3
    recall_steps: int = 600
    places_steps: int = 300
    noise: float = 1.0
    stream: float = 0.6
    turns: int = 6
    seed: int = 0
    threads: int = 2

    def mix(self, step: int) -> Mix:
        """What is taught: look-ups over surrogates, then where things are, over streams as well, then everything."""
        if step < self.recall_steps:
            return Mix(recall=1.0, stream=0.0, turns=self.turns, plain=0.0, short=True)
        if step < self.recall_steps + self.places_steps:
            return Mix(1.0, 0.35, self.turns, plain=0.0, short=True, places=1.0, absent=1)
        return Mix(stream=self.stream, turns=self.turns)


@dataclass(frozen=True)
class SecondSettings(TextLLMSettings):
    """Numbers of the second stage, which goes on from the first with the questions that take longest to learn.

    Attributes:
        recall: share of look-up exercises.
        lists: share of those that enumerate.
        hard: share of questions from `curriculum.HARD`.
    """

    steps: int = 2400
    recall_steps: int = 0
    places_steps: int = 0
    recall: float = 0.3
    lists: float = 0.45
    hard: float = 0.5
    stream: float = 0.55
    seed: int = 1

    def mix(self, step: int) -> Mix:
        """The same from the first step to the last."""
        return Mix(self.recall, self.stream, self.turns, plain=0.1, lists=self.lists, places=0.6, hard=self.hard)


def new_model(tokenizer: PreTrainedTokenizerFast, settings: TextLLMSettings) -> Qwen3ForCausalLM:
    """A randomly initialised tiny Qwen3 (stock architecture)."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(settings.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=512,
        num_hidden_layers=settings.layers,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.get_vocab()[PAD],
        eos_token_id=tokenizer.get_vocab()[END],
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def mixed_embeddings(model: Qwen3ForCausalLM, batch: Batch, noise: float) -> torch.Tensor:
    """Embeddings [B, T, D] of a batch: mixtures of two pieces, noise on stream slots."""
    table = cast(torch.nn.Embedding, model.get_input_embeddings())
    shares = batch.shares[..., None]
    embedded = table(batch.ids) * (1 - shares) + table(batch.others) * shares
    if noise:
        scale = noise * table.weight.detach().std() * torch.rand(len(batch.ids), 1, 1, device=embedded.device)
        embedded = embedded + torch.randn_like(embedded) * scale * batch.streamed[..., None]
    return embedded


def loss_of(model: Qwen3ForCausalLM, batch: Batch, noise: float) -> torch.Tensor:
    """Mean cross-entropy over the replies' tokens."""
    embedded = mixed_embeddings(model, batch, noise)
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    learned = batch.targets >= 0
    return F.cross_entropy(model.lm_head(hidden[learned]), batch.targets[learned])


def optimisers(model: torch.nn.Module, settings: TextLLMSettings) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices and AdamW for the rest, or AdamW alone."""
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (hidden if matrix and settings.muon_rate else rest).append(parameter)
    result: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    ]
    if hidden:
        result.append(Muon(hidden, settings.muon_rate))
    return result


def train(
    settings: TextLLMSettings, out: Path, *, start: Path | None = None, log: Callable[[str], None] = print
) -> Path:
    """Trains the LLM and saves model and tokenizer to `out`; goes on from `out/checkpoint.pt` if there is one.

    Args:
        settings: numbers of the stage.
        out: folder of the stage.
        start: folder of the model to begin with; None: random weights.
        log: one line of progress.
    """
    torch.set_num_threads(settings.threads)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, settings)
    if start is not None:
        _check_same_pieces(tokenizer, start)
        model.load_state_dict(type(model).from_pretrained(start, dtype=torch.float32).state_dict())
    encoder = PackEncoder(tokenizer)
    optims = optimisers(model, settings)
    rates = [group["lr"] for optim in optims for group in optim.param_groups]
    checkpoint = Checkpointer(out / "checkpoint.pt", every=100)
    rng = random.Random(settings.seed)
    first, queue = 0, []
    if state := checkpoint.load():
        first, queue = state["step"], state["queue"]
        model.load_state_dict(state["model"])
        rng.setstate(state["rng"])
        torch.set_rng_state(state["torch"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        log(f"goes on at step {first}")
    started, running = time.time(), 0.0
    for step in range(first, settings.steps):
        if not queue:
            packs = [draw_pack(rng, settings.mix(step)) for _ in range(8 * settings.batch_size)]
            queue = by_length(encoder.encode(packs), settings.batch_size, rng)
        loss = loss_of(model, collate(queue.pop()), settings.noise if step >= settings.recall_steps else 0.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        groups = [group for optim in optims for group in optim.param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * one_cycle(step, settings.steps)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        running += loss.item()
        if step % 25 == 24:
            log(f"step {step + 1} loss {running / 25:.4f} {time.time() - started:.0f} s")
            running = 0.0
        if checkpoint.due(step):
            checkpoint.save(
                {
                    "step": step + 1,
                    "queue": queue,
                    "model": model.state_dict(),
                    "rng": rng.getstate(),
                    "torch": torch.get_rng_state(),
                    "optims": [optim.state_dict() for optim in optims],
                }
            )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    checkpoint.clear()
    return out


def _check_same_pieces(tokenizer: PreTrainedTokenizerFast, start: Path) -> None:
    from transformers import AutoTokenizer

    if AutoTokenizer.from_pretrained(start).get_vocab() != tokenizer.get_vocab():
        raise RecipeError(f"{start} was trained with other pieces than today's tokenizer: train its stage again")
