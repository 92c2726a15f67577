"""Stage `scan`: pocket's first pass over long clips, compressed hard, beside its usual one for what is heard again.

A small ear that takes 32 bands every 64 ms writes one soft token every two seconds: the names of what sounds and plays
in it, and whether someone speaks. Details (order, pitch, tempo, words) are left to a finer look. Ear and pass learn
together to write that in pieces that the frozen LLM reads, from the scenes' timelines; the passes that pocket has stay
as they are and become the fine ones.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoProcessor

from earnest.audio import Clip
from earnest.engines.linear import fast_linear
from earnest.engines.load import find_folder
from earnest.errors import ModelError, RecipeError
from earnest.files import write_json
from earnest.fused import AdapterConfig, FusedModel, FusedProcessor, PassConfig
from earnest.fused.configuration import SAMPLE_RATE_HZ, EarConfig, MelConfig
from earnest.fused.encoders import EarEncoder
from earnest.fused.mel import log_mel
from earnest.pocket.stream import AIR_SHARES, event_pieces
from earnest.pocket.tokenizer import AIR, BLANK
from earnest.relistening.long_scenes import long_scene, make_long
from earnest.training.checkpoint import Checkpointer
from earnest.training.numbers import above_zero, at_least
from earnest.training.optimisers import Optimisers
from earnest.training.schedule import one_cycle
from earnest.world.mixing import render
from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import INSTRUMENTS, SOUNDS

EAR = "scan"
CARD = "scan.json"
VOICE = "▁word"
"""What stands for all that is said: the scan does not tell words."""
EMPTY = {BLANK: 1.0 - sum(AIR_SHARES) / 2, AIR: sum(AIR_SHARES) / 2}
"""What a token says in which nothing sounds."""
ENOUGH_S = 0.25
"""All that is heard so long in a token's time has an equal share of it: what has little is not found by a look-up."""
MEASURED = 120
"""Scenes of the validation split on which the card's numbers are measured."""


@dataclass(frozen=True)
class ScanSettings:
    """Numbers of the stage.

    Attributes:
        model: the fused model whose passes become the fine ones; any with an "align" head in its first.
        scenes: long ones, to train on.
        steps: optimiser steps.
        batch_size: clips a step.
        bands: of the log-mels.
        hop: samples from one frame to the next.
        width: channels of the ear.
        blocks: its residual blocks.
        adapter_width: channels of the pass.
        stride: frames of the ear (four log-mels each) that one soft token stands for, an even number.
        learning_rate: peak for norms and head.
        muon_rate: peak for the convolutions under Muon.
        seed: of scenes, weights and order.
        workers: processes that render.
        threads: of the training.
    """

    model: str = "pocket"
    scenes: int = 3000
    steps: int = 4000
    batch_size: int = 32
    bands: int = 32
    hop: int = 1024
    width: int = 96
    blocks: int = 4
    adapter_width: int = 192
    stride: int = 8
    learning_rate: float = 3e-3
    muon_rate: float = 1e-2
    seed: int = 60
    workers: int = 2
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        at_least(
            self, 1, "steps", "batch_size", "bands", "hop", "width", "blocks", "adapter_width", "workers", "threads"
        )
        if self.scenes < self.batch_size:
            raise RecipeError(f"scenes is {self.scenes}: a step takes {self.batch_size} (batch_size) of them")
        if self.stride < 2 or self.stride % 2:
            raise RecipeError(f"stride is {self.stride}: it must be an even number, at least 2")
        above_zero(self, "learning_rate")
        at_least(self, 0, "muon_rate")


@dataclass(frozen=True)
class _Scanned:
    """A clip: log-mels [F, M], samples at 16 kHz, ids of what is to be written [n, P] (-1: none) and their shares."""

    mel: Tensor
    samples: int
    wanted: Tensor
    shares: Tensor


def with_scan(model: FusedModel, processor: FusedProcessor, settings: ScanSettings) -> tuple[FusedModel, Any]:
    """A model whose first pass is a fresh scan, and whose fine one is the first that it had."""
    torch.manual_seed(settings.seed)
    mel = MelConfig(n_fft=2 * settings.hop, hop=settings.hop, n_mels=settings.bands)
    ear = EarEncoder(EarConfig(mel=mel.to_dict(), width=settings.width, blocks=settings.blocks)).eval()
    usual = model.config.pass_specs["first"]
    adapter = AdapterConfig(
        widths=(settings.adapter_width,) * 2,
        kernels=(5, 5),
        strides=(2, settings.stride // 2),
        residual_kernels=(3,),
    )
    scan = PassConfig(adapters={EAR: adapter}, head="align", blank_token_id=usual.blank_token_id)
    encoders = {name: cast(Any, module) for name, module in model.encoders.items()}
    both = FusedModel.from_parts(
        model.language_model,
        {**encoders, EAR: ear},
        {"first": scan, "fine": usual},
        audio_token_id=model.config.audio_token_id,
        layers={spec.name: spec.layers for spec in model.config.encoder_specs},
        features={spec.name: spec.feature or {} for spec in model.config.encoder_specs},
    )
    both.passes["fine"].load_state_dict(model.passes["first"].state_dict())
    return both, processor.over(both.config)


@fast_linear()
def train(settings: ScanSettings, folder: Path, *, log: Callable[[str], None] = print) -> Path:
    """Trains ear and pass and saves the whole model, float16, with its processor.

    Args:
        settings: numbers of the stage.
        folder: of the stage; an interrupted training goes on from its `checkpoint.pt`.
        log: one line of progress.

    Raises:
        ModelError: the model does not read pocket's streams.
    """
    started = time.time()
    torch.set_num_threads(settings.threads)
    source = find_folder(settings.model)
    usual: Any = AutoProcessor.from_pretrained(source)
    if BLANK not in usual.tokenizer.get_vocab():
        raise ModelError(f"{settings.model} does not read pocket's streams: its tokenizer has no piece {BLANK!r}")
    base: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model, processor = with_scan(base, usual, settings)
    make_long(
        folder / "scenes", settings.scenes, split="train", seed=settings.seed, per_scene=1, workers=settings.workers
    )
    log(f"{settings.scenes} clips rendered in {time.time() - started:.0f} s")
    rows = _read(model, processor, settings, folder / "scenes")
    log(f"{len(rows)} clips read in {time.time() - started:.0f} s")
    ear, own = model.encoders[EAR], model.passes["first"]
    ear.requires_grad_(True)
    optimisers = Optimisers(
        [*ear.named_parameters(), *own.named_parameters()],
        lambda _, parameter: parameter.ndim == 3,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
        weight_decay=0.02,
    )
    log(f"{sum(p.numel() for p in optimisers.parameters)} parameters to train")
    checkpoint = Checkpointer(folder / "checkpoint.pt")
    rng = random.Random(settings.seed)
    first = 0
    if state := checkpoint.load():
        first = state["step"]
        ear.load_state_dict(state["ear"])
        own.load_state_dict(state["pass"])
        optimisers.load_state_dict(state["optimisers"])
        rng.setstate(state["rng"])
    running = 0.0
    for step in range(first, settings.steps):
        batch = [rows[k] for k in sorted(rng.sample(range(len(rows)), settings.batch_size))]
        loss = _loss(model, batch)
        loss.backward()
        optimisers.step(one_cycle(step, settings.steps))
        running += loss.item()
        if step % 50 == 49:
            log(f"step {step + 1} loss {running / 50:.4f} {time.time() - started:.0f} s")
            running = 0.0
        if checkpoint.due(step):
            state = {"step": step + 1, "ear": ear.state_dict(), "pass": own.state_dict()}
            checkpoint.save({**state, "optimisers": optimisers.state_dict(), "rng": rng.getstate()})
    ear.requires_grad_(False).eval()
    write_json(folder / CARD, {"heard": heard(model, processor, settings, "validation", MEASURED)})
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    checkpoint.clear()
    log((folder / CARD).read_text("utf-8").replace("\n", ""))
    return folder


@torch.inference_mode()
def heard(
    model: FusedModel, processor: FusedProcessor, settings: ScanSettings, split: str, count: int
) -> dict[str, float]:
    """How much of a scene the scan writes: of each kind of piece that is there, the share that it gives most weight.

    A kind counts as heard where its right piece weighs more than any other of the same kind in that token.
    """
    vocabulary: dict[str, int] = processor.tokenizer.get_vocab()
    kinds = _kinds(vocabulary)
    right: dict[str, list[bool]] = {name: [] for name in kinds}
    logits: list[Tensor] = []
    hook = _written(model, logits)
    for index in range(count):
        scene = long_scene(split, settings.seed, index)
        samples = render(scene).samples
        row = _row(model, scene, np.asarray(samples), vocabulary)
        _adapted(model, [row])
        weights = logits.pop()[0].softmax(-1)
        for token, wanted in enumerate(row.wanted):
            for piece in {int(p) for p in wanted if p >= 0}:
                for name, ids in kinds.items():
                    if piece in ids:
                        right[name].append(int(ids[int(weights[token, ids].argmax())]) == piece)
    hook.remove()
    return {name: round(float(np.mean(own)), 4) for name, own in right.items() if own}


def _kinds(vocabulary: dict[str, int]) -> dict[str, Tensor]:
    names = {
        "sound": [name_of(Event("sound", name, 0.0, 1.0)) for name in SOUNDS],
        "instrument": [name_of(Event("music", name, 0.0, 1.0)) for name in INSTRUMENTS],
        # Someone speaks, or nothing is heard.
        "voice": [VOICE, BLANK],
    }
    return {kind: torch.tensor([vocabulary[piece] for piece in own]) for kind, own in names.items()}


def _read(model: FusedModel, processor: FusedProcessor, settings: ScanSettings, folder: Path) -> list[_Scanned]:
    vocabulary: dict[str, int] = processor.tokenizer.get_vocab()
    rows: list[_Scanned] = []
    for index in range(settings.scenes):
        scene = long_scene("train", settings.seed, index)
        samples = Clip.load(folder / "audio" / f"{scene.id}.flac").samples
        rows.append(_row(model, scene, np.asarray(samples), vocabulary))
    return rows


def _row(model: FusedModel, scene: Scene, samples: npt.NDArray[np.float32], vocabulary: dict[str, int]) -> _Scanned:
    mel = cast(EarConfig, model.encoders[EAR].config).mel_config
    tokens = model.config.budget("first").tokens(samples.size)
    token_s = model.config.budget("first").samples_per_token / SAMPLE_RATE_HZ
    ids, shares = _wanted(scene, tokens, token_s, vocabulary)
    return _Scanned(log_mel(torch.from_numpy(np.array(samples)), mel)[0], samples.size, ids, shares)


def _wanted(scene: Scene, tokens: int, token_s: float, vocabulary: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """What each soft token is to write: ids [n, P], -1 where there are fewer, and their shares [n, P].

    The names of the events that are heard in its time, all alike but what is hardly in it; blank and air only where
    nothing is.
    """
    own: list[dict[str, float]] = [{} for _ in range(tokens)]
    for event in scene.events:
        first, last = (min(tokens - 1, int(second / token_s)) for second in (event.start_s, event.end_s))
        for token in range(first, last + 1):
            heard_s = min(event.end_s, (token + 1) * token_s) - max(event.start_s, token * token_s)
            if heard_s > 0:
                piece = name_of(event)
                own[token][piece] = own[token].get(piece, 0.0) + heard_s
    own = [{piece: min(heard_s, ENOUGH_S) for piece, heard_s in pieces.items()} or EMPTY for pieces in own]
    most = max(len(pieces) for pieces in own)
    ids, shares = torch.full((tokens, most), -1), torch.zeros(tokens, most)
    for token, pieces in enumerate(own):
        total = sum(pieces.values())
        for place, (piece, share) in enumerate(pieces.items()):
            ids[token, place] = vocabulary[piece]
            shares[token, place] = share / total
    return ids, shares


def name_of(event: Event) -> str:
    """The piece that names an event: its first in a stream, and one for whatever is said."""
    return VOICE if event.kind == "speech" else event_pieces(event)[0][0]


def _adapted(model: FusedModel, batch: Sequence[_Scanned]) -> list[Tensor]:
    mels = pad_sequence([row.mel for row in batch], batch_first=True)
    lengths = torch.tensor([len(row.mel) for row in batch])
    frames = model.encoders[EAR](mels, lengths).last_hidden_state
    hidden = [frames if spec.name == EAR else None for spec in model.config.encoder_specs]
    return model.adapt(hidden, torch.tensor([row.samples for row in batch]), "first")


def _written(model: FusedModel, logits: list[Tensor]) -> Any:
    """Keeps what the head of the first pass writes, before it becomes a mixture; the hook is to be removed."""

    def keep(_: torch.nn.Module, __: Any, found: Tensor) -> None:
        logits.append(found)

    return cast(Any, model.passes["first"]).head.linear.register_forward_hook(keep)


def _loss(model: FusedModel, batch: Sequence[_Scanned]) -> Tensor:
    """Cross-entropy of the head's mixtures against what is to be written."""
    written: list[Tensor] = []
    hook = _written(model, written)
    _adapted(model, batch)
    hook.remove()
    logp = torch.cat([row[: len(r.wanted)] for row, r in zip(written[0], batch, strict=True)]).log_softmax(-1)
    most = max(row.wanted.shape[1] for row in batch)
    pad = torch.nn.functional.pad
    ids = torch.cat([pad(row.wanted, (0, most - row.wanted.shape[1]), value=-1) for row in batch])
    shares = torch.cat([pad(row.shares, (0, most - row.shares.shape[1])) for row in batch])
    return -(shares * logp.gather(1, ids.clamp(min=0))).sum(1).mean()


def read_card(folder: Path) -> dict[str, float]:
    """What `heard` measured after the training."""
    return json.loads((folder / CARD).read_text("utf-8"))["heard"]
