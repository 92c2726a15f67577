"""Stage `adapters`: adapters and fusion learn through the frozen LLM, from frozen ears, on its own replies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Clips
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from earnest.pocket.stream import SLOT_S, Slot, scene_stream, time_slot
from earnest.pocket.targets import TargetSettings, grouped, read
from earnest.pocket.tokenizer import AUDIO, AUDIO_END, AUDIO_START, BLANK, TIME
from earnest.training.checkpoint import Checkpointer
from earnest.training.optimisers import Optimisers
from earnest.training.schedule import one_cycle
from earnest.world.timeline import Scene

HOP = 256
EARS: tuple[str, ...] = ("events", "speech")


@dataclass(frozen=True)
class AdapterSettings:
    """Numbers of the stage.

    Attributes:
        width: channels of the adapters.
        head: align (softmax over the LLM's vocabulary times its embeddings) or linear.
        warm_steps: steps before the others in which an align head learns to write the streams that the LLM was
            taught to read, from the ears' own labels; 0 for none.
        steps: optimiser steps through the LLM.
        batch_size: clips a step, each with all its questions.
        learning_rate: peak of the cycle for norms and head.
        muon_rate: peak for the convolutions under Muon.
        seed: of weights and order.
        workers: processes that render.
        threads: of the training.
    """

    width: int = 192
    head: str = "align"
    warm_steps: int = 300
    steps: int = 800
    batch_size: int = 16
    learning_rate: float = 2e-3
    muon_rate: float = 5e-3
    seed: int = 30
    workers: int = 2
    threads: int = 2


@dataclass(frozen=True)
class Streamed:
    """A clip with what an align head is to write of it.

    Attributes:
        frames: frozen frames [F, C] of each ear, in the model's order.
        samples: its length at 16 kHz.
        stream: its timeline as a stream, a mixture of two pieces for each soft token: ids [n, 2] and the share
            of the second [n].
    """

    frames: tuple[npt.NDArray[np.float16], ...]
    samples: int
    stream: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Example(Streamed):
    """A clip as the adapters are trained on it.

    Attributes:
        sequence: its packed exchanges.
    """

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
        stream = stream_of(heard.scene, tokens, encoder.vocabulary, number)
        examples.append(Example(frames, samples, stream, sequence))
    return examples


def stream_of(
    scene: Scene, tokens: int, vocabulary: Mapping[str, int], seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The clip's timeline in `tokens` slots, without the times; see `Streamed`."""
    slots = [slot for slot in scene_stream(scene, random.Random(seed), robust=False) if slot[0][:2] != TIME[:2]]
    slots = [*slots, *[Slot(BLANK, BLANK, 0.0)] * tokens][:tokens]
    ids = [[vocabulary[slot.piece], vocabulary[slot.other]] for slot in slots]
    return np.array(ids, np.int64), np.array([slot.share for slot in slots], np.float32)


def _hidden(clips: Clips[Streamed]) -> list[torch.Tensor | None]:
    return [
        pad_sequence([torch.from_numpy(clip.frames[ear]).float() for clip in clips], batch_first=True)
        for ear in range(len(clips[0].frames))
    ]


def warm_loss(model: FusedModel, examples: Clips[Streamed]) -> torch.Tensor:
    """Cross-entropy of the align head's mixtures against the clips' streams; tokens behind the last one are free."""
    written: list[Any] = []
    audio_pass: Any = model.passes["first"]

    def keep(_module: torch.nn.Module, _given: Any, logits: Any) -> None:
        written.append(logits)

    hook = audio_pass.head.linear.register_forward_hook(keep)
    model.adapt(_hidden(examples), torch.tensor([e.samples for e in examples]), "first")
    hook.remove()
    logits = torch.cat([row[: len(e.stream[1])] for row, e in zip(written[0], examples, strict=True)])
    ids = torch.from_numpy(np.concatenate([e.stream[0] for e in examples]))
    shares = torch.from_numpy(np.concatenate([e.stream[1] for e in examples]))
    logp = logits.log_softmax(-1).gather(1, ids)
    return -((1 - shares) * logp[:, 0] + shares * logp[:, 1]).mean()


def loss_of(model: FusedModel, examples: list[Example]) -> torch.Tensor:
    """Mean cross-entropy over the targets' tokens; gradients reach the adapters alone."""
    batch = collate([example.sequence for example in examples])
    soft = model.adapt(_hidden(examples), torch.tensor([e.samples for e in examples]), "first")
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
        root: folder that holds text-llm, encoders and targets.
        out: folder of this stage; its `checkpoint.pt` is continued if there is one.
        log: one line of progress.
    """
    started = time.time()
    torch.set_num_threads(settings.threads)
    model, processor = assemble(root / "text-llm", root / "encoders", settings)
    encoder = PackEncoder(processor.tokenizer)
    examples = prepare(model, encoder, root / "targets" / "targets.jsonl", settings, source)
    log(f"{len(examples)} clips heard in {time.time() - started:.0f} s")
    optimisers = Optimisers(
        model.passes["first"].named_parameters(),
        lambda _, parameter: parameter.ndim == 3,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
        weight_decay=0.02,
    )
    log(f"{sum(p.numel() for p in optimisers.parameters)} parameters to train")
    checkpoint = Checkpointer(out / "checkpoint.pt")
    rng = random.Random(settings.seed)
    first, queue = 0, []
    if state := checkpoint.load():
        first, queue = state["step"], state["queue"]
        model.passes.load_state_dict(state["passes"])
        optimisers.load_state_dict(state["optimisers"])
        rng.setstate(state["rng"])
        log(f"goes on at step {first}")
    running = 0.0
    # One loop for both: first the warm steps, then those through the LLM, each with its own cycle.
    total = settings.warm_steps + settings.steps
    for step in range(first, total):
        warm = step < settings.warm_steps
        if not queue:
            chosen = rng.sample(range(len(examples)), min(len(examples), 8 * settings.batch_size))
            chosen.sort(key=lambda k: len(examples[k].sequence.ids))
            queue = [chosen[k : k + settings.batch_size] for k in range(0, len(chosen), settings.batch_size)]
            rng.shuffle(queue)
        loss = (warm_loss if warm else loss_of)(model, [examples[k] for k in queue.pop()])
        loss.backward()
        cycle = (step, settings.warm_steps) if warm else (step - settings.warm_steps, settings.steps)
        optimisers.step(one_cycle(*cycle))
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
                    "optimisers": optimisers.state_dict(),
                    "rng": rng.getstate(),
                }
            )
    model.half().save_pretrained(out)
    processor.save_pretrained(out)
    checkpoint.clear()
    return out
