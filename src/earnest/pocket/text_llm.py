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

from earnest.engines.linear import fast_linear
from earnest.pocket.batches import Batch, PackEncoder, by_length, collate
from earnest.pocket.curriculum import Mix, draw_pack
from earnest.pocket.ship import as_shipped
from earnest.pocket.tokenizer import END, PAD, build_tokenizer
from earnest.training.checkpoint import Checkpointer
from earnest.training.optimisers import Optimisers
from earnest.training.schedule import one_cycle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


@dataclass(frozen=True)
class TextLLMSettings:
    """Numbers of the stage.

    Attributes:
        hidden: width D.
        layers: number of transformer layers.
        steps: optimiser steps.
        batch_size: packs a step.
        learning_rate: peak of the schedule for AdamW's matrices (embeddings and norms).
        muon_rate: peak for the hidden matrices under Muon; 0 trains everything with AdamW.
        warm_up_steps: steps until the rates reach their peak.
        recall_steps: steps spent on look-up exercises alone, at the start.
        places_steps: steps after them that ask for times and speakers, which stand before what they belong to,
            and enumerate.
        recall: share of look-up exercises among the turns afterwards.
        hard: share of questions from `curriculum.HARD` afterwards.
        narrated: share of narrated scenes afterwards, beyond the world's own.
        noise: standard deviation of the noise on stream slots, in units of the embeddings' own.
        stream: share of surrogates that come as streams.
        turns: exchanges after one surrogate.
        seed: of weights and curriculum.
        threads: of the training.
    """

    hidden: int = 192
    layers: int = 4
    steps: int = 5600
    batch_size: int = 12
    learning_rate: float = 3e-3
    muon_rate: float = 5e-3
    warm_up_steps: int = 150
    recall_steps: int = 600
    places_steps: int = 300
    recall: float = 0.3
    hard: float = 0.5
    narrated: float = 0.06
    noise: float = 1.0
    stream: float = 0.55
    turns: int = 6
    seed: int = 0
    threads: int = 2

    def mix(self, step: int) -> Mix:
        """What is taught: look-ups over surrogates, then where things are, over streams as well, then everything."""
        if step < self.recall_steps:
            return Mix(recall=1.0, stream=0.0, turns=self.turns, plain=0.0, short=True)
        if step < self.recall_steps + self.places_steps:
            return Mix(1.0, 0.35, self.turns, plain=0.0, short=True, places=1.0, absent=1, lists=0.35)
        return Mix(
            self.recall,
            self.stream,
            self.turns,
            plain=0.1,
            places=0.6,
            lists=0.5,
            hard=self.hard,
            narrated=self.narrated,
        )


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


def hidden_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether Muon takes a parameter; AdamW takes embeddings, norms and the head."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


@fast_linear()
def train(settings: TextLLMSettings, out: Path, *, log: Callable[[str], None] = print) -> Path:
    """Trains the LLM and saves model and tokenizer to `out`; goes on from `out/checkpoint.pt` if there is one."""
    torch.set_num_threads(settings.threads)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, settings)
    encoder = PackEncoder(tokenizer)
    optimisers = Optimisers(
        model.named_parameters(), hidden_matrix, muon_rate=settings.muon_rate, learning_rate=settings.learning_rate
    )
    checkpoint = Checkpointer(out / "checkpoint.pt", every=100)
    rng = random.Random(settings.seed)
    first, queue = 0, []
    if state := checkpoint.load():
        first, queue = state["step"], state["queue"]
        model.load_state_dict(state["model"])
        rng.setstate(state["rng"])
        torch.set_rng_state(state["torch"])
        optimisers.load_state_dict(state["optimisers"])
        log(f"goes on at step {first}")
    started, running = time.time(), 0.0
    for step in range(first, settings.steps):
        if not queue:
            packs = [draw_pack(rng, settings.mix(step)) for _ in range(8 * settings.batch_size)]
            queue = by_length(encoder.encode(packs), settings.batch_size, rng)
        loss = loss_of(model, collate(queue.pop()), settings.noise if step >= settings.recall_steps else 0.0)
        loss.backward()
        optimisers.step(one_cycle(step, settings.steps, settings.warm_up_steps / settings.steps))
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
                    "optimisers": optimisers.state_dict(),
                }
            )
    as_shipped(model).save_pretrained(out)
    tokenizer.save_pretrained(out)
    checkpoint.clear()
    return out
