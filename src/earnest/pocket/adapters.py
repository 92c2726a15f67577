"""Stage `adapters`: adapters and fusion learn through the frozen LLM, from frozen ears, on its own replies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from earnest.fused import AdapterConfig, FusedModel, FusedProcessor, PassConfig
from earnest.fused.encoders import EarEncoder
from earnest.pocket.batches import PackEncoder, Sequence, collate
from earnest.pocket.clips import hear
from earnest.pocket.curriculum import Exchange, Pack
from earnest.pocket.greedy import as_shipped
from earnest.pocket.schedule import one_cycle
from earnest.pocket.stream import SLOT_S, Slot, time_slot
from earnest.pocket.targets import TargetSettings, grouped, read
from earnest.pocket.tokenizer import AUDIO, AUDIO_END, AUDIO_START, BLANK, TIME
from earnest.training.checkpoint import Checkpointer

HOP = 256
EARS: tuple[str, ...] = ("events", "speech")


@dataclass(frozen=True)
class AdapterSettings:
    """Numbers of the stage.

    Attributes:
        width: channels of the adapters.
        head: align (softmax over the LLM's vocabulary times its embeddings) or linear.
        steps: optimiser steps.
        batch_size: clips a step, each with all its questions.
        learning_rate: peak of the cycle.
        seed: of weights and order.
        workers: processes that render.
        threads: of the training.
    """

    width: int = 192
    head: str = "align"
    steps: int = 900
    batch_size: int = 16
    learning_rate: float = 2e-3
    seed: int = 30
    workers: int = 2
    threads: int = 2


@dataclass(frozen=True)
class Example:
    """A clip's frozen frames [F, C] float16 per ear, its length in samples and its packed sequence."""

    frames: tuple[npt.NDArray[np.float16], ...]
    samples: int
    sequence: Sequence


def assemble(llm: Path, ears: Path, settings: AdapterSettings) -> tuple[FusedModel, FusedProcessor]:
    """The fused model with fresh adapters over the trained LLM and ears."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(llm)
    adapter = AdapterConfig(widths=(settings.width,) * 2, kernels=(5, 5), strides=(2, 2), residual_kernels=(3,))
    model = FusedModel.from_parts(
        as_shipped(AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32)),
        {name: as_shipped(_without_heads(EarEncoder.from_pretrained(ears / name))) for name in EARS},
        {
            "first": PassConfig(
                adapters=dict.fromkeys(EARS, adapter),
                head=settings.head,  # type: ignore[arg-type]
                blank_token_id=tokenizer.convert_tokens_to_ids(BLANK),
            )
        },
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO),
    )
    processor = FusedProcessor.from_config(
        model.config,
        tokenizer,
        audio_token=AUDIO,
        audio_start_token=AUDIO_START,
        audio_end_token=AUDIO_END,
        time_marker_s=1.0,
        time_marker_format=TIME,
    )
    return model, processor


def _without_heads(ear: EarEncoder) -> EarEncoder:
    ear.heads = torch.nn.ModuleDict()
    ear.config.heads = None
    return ear


def audio_slots(tokens: int) -> list[Slot]:
    """The layout of a clip: a time every second between the soft tokens' places."""
    slots: list[Slot] = []
    second = 0
    for place in range(tokens):
        if place * SLOT_S >= second:
            slots.append(time_slot(second))
            second += 1
        slots.append(Slot(AUDIO, AUDIO, 0.0))
    return slots


def prepare(
    model: FusedModel, encoder: PackEncoder, targets: Path, settings: AdapterSettings, source: TargetSettings
) -> list[Example]:
    """Renders the targets' clips, runs the frozen ears once and packs each clip's exchanges."""
    rows = dict(grouped(read(targets)))
    examples: list[Example] = []
    pool = hear("adapters", "train", source.seed, source.scenes, workers=settings.workers)
    for number, heard in enumerate(pool):
        if number not in rows:
            continue
        mel = torch.from_numpy(heard.mel).float()[None]
        with torch.inference_mode():
            hidden = [model.encoders[name](mel).last_hidden_state[0] for name in EARS]
        samples = round(heard.scene.duration_s * 16_000)
        tokens = model.config.budget("first").tokens(samples)
        exchanges = tuple(Exchange(row.user, row.target or "") for row in rows[number])
        [sequence] = encoder.encode([Pack(audio_slots(tokens), exchanges)])
        frames = tuple(frame.to(torch.float16).numpy() for frame in hidden)
        examples.append(Example(frames, samples, sequence))
    return examples


def loss_of(model: FusedModel, examples: list[Example]) -> torch.Tensor:
    """Mean cross-entropy over the targets' tokens; gradients reach the adapters alone."""
    batch = collate([example.sequence for example in examples])
    hidden = [
        pad_sequence([torch.from_numpy(e.frames[ear]).float() for e in examples], batch_first=True)
        for ear in range(len(EARS))
    ]
    soft = model.adapt(hidden, torch.tensor([e.samples for e in examples]), "first")
    embedded = model.embed(batch.ids, soft)
    states = model.language_model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    learned = batch.targets >= 0
    return F.cross_entropy(model.language_model.lm_head(states[learned]), batch.targets[learned])


def train(
    settings: AdapterSettings,
    source: TargetSettings,
    root: Path,
    out: Path,
    *,
    log: Callable[[str], None] = print,
) -> Path:
    """Trains the first pass and saves the whole model, float16, with its processor.

    Args:
        settings: numbers of the stage.
        source: numbers of the stage `targets`.
        root: folder that holds text-llm-second, encoders and targets.
        out: folder of this stage; its `checkpoint.pt` is continued if there is one.
        log: one line of progress.
    """
    started = time.time()
    torch.set_num_threads(settings.threads)
    model, processor = assemble(root / "text-llm-second", root / "encoders", settings)
    encoder = PackEncoder(processor.tokenizer)
    examples = prepare(model, encoder, root / "targets" / "targets.jsonl", settings, source)
    log(f"{len(examples)} clips heard in {time.time() - started:.0f} s")
    parameters = list(model.trainable_parameters("first"))
    log(f"{sum(p.numel() for p in parameters)} parameters to train")
    optimiser = torch.optim.AdamW(parameters, settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint = Checkpointer(out / "checkpoint.pt")
    rng = random.Random(settings.seed)
    first, queue = 0, []
    if state := checkpoint.load():
        first, queue = state["step"], state["queue"]
        model.passes.load_state_dict(state["passes"])
        optimiser.load_state_dict(state["optimiser"])
        rng.setstate(state["rng"])
        log(f"goes on at step {first}")
    running = 0.0
    for step in range(first, settings.steps):
        if not queue:
            chosen = rng.sample(range(len(examples)), min(len(examples), 8 * settings.batch_size))
            chosen.sort(key=lambda k: len(examples[k].sequence.ids))
            queue = [chosen[k : k + settings.batch_size] for k in range(0, len(chosen), settings.batch_size)]
            rng.shuffle(queue)
        loss = loss_of(model, [examples[k] for k in queue.pop()])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * one_cycle(step, settings.steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        running += loss.item()
        if step % 25 == 24:
            log(f"step {step + 1} loss {running / 25:.4f} {time.time() - started:.0f} s")
            running = 0.0
        if checkpoint.due(step):
            checkpoint.save(
                {
                    "step": step + 1,
                    "queue": queue,
                    "passes": model.passes.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "rng": rng.getstate(),
                }
            )
    model.to(torch.float16).save_pretrained(out)
    processor.save_pretrained(out)
    checkpoint.clear()
    return out
