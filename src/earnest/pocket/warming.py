"""A head first writes streams that the LLM was taught to read: through the LLM alone words stay at chance."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from earnest.alignment.features import HeardClip
from earnest.alignment.training import optimisers_of
from earnest.completion import content_key
from earnest.engines.weights import state_key
from earnest.files import read_json_lines
from earnest.fused import FusedModel
from earnest.fused.fusion import AlignHead
from earnest.pocket.stream import Slot, scene_stream
from earnest.pocket.tokenizer import BLANK, TIME
from earnest.training.checkpoint import Checkpointer
from earnest.training.schedule import one_cycle
from earnest.world.timeline import Scene

FramesOf = Callable[[Sequence[HeardClip]], list[torch.Tensor | None]]
LOGGED = 100
"""Steps between two lines of the log."""


@dataclass(frozen=True)
class WarmSettings:
    """Numbers of the warm-up.

    Attributes:
        steps: optimiser steps.
        batch_size: clips a step.
        learning_rate: peak of the cycle for norms and head.
        muon_rate: peak for the convolutions under Muon.
        weight_decay: of both.
        seed: of the order.
    """

    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 2e-3
    muon_rate: float = 5e-3
    weight_decay: float = 0.02
    seed: int = 30


@dataclass(frozen=True)
class Streamed:
    """A clip with what a head is to write of it.

    Attributes:
        clip: whose frames are on disk.
        ids: its timeline as a stream, a mixture of two pieces for each soft token [n, 2].
        shares: of the second [n].
    """

    clip: HeardClip
    ids: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]


def streams_of(
    model: FusedModel, clips: Mapping[Path, HeardClip], world: Path, vocabulary: Mapping[str, int]
) -> list[Streamed]:
    """Clips of the world with what a head is to write of them; tokens that belong to no moment are free.

    Args:
        model: whose first pass it is; not chunked.
        clips: file to what `Features.prepare` gave.
        world: folder of the clips, with their timelines.
        vocabulary: of the LLM.
    """
    scenes = {row["id"]: Scene.from_json(row) for row in read_json_lines(world / "scenes.jsonl")}
    moments = replace(model.config.budget("first"), extra_per_chunk=0)
    return [
        Streamed(clip, *stream_of(scenes[path.stem], moments.tokens(clip.samples), vocabulary, number))
        for number, (path, clip) in enumerate(clips.items())
    ]


def stream_of(
    scene: Scene, tokens: int, vocabulary: Mapping[str, int], seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The clip's timeline in `tokens` slots, without the times: ids and shares as in `Streamed`."""
    stream = scene_stream(scene, random.Random(seed), robust=False, heard=True)
    slots = [slot for slot in stream if slot.piece[:2] != TIME[:2]]
    slots = [*slots, *[Slot(BLANK, BLANK, 0.0)] * tokens][:tokens]
    ids = [[vocabulary[slot.piece], vocabulary[slot.other]] for slot in slots]
    return np.array(ids, np.int64), np.array([slot.share for slot in slots], np.float32)


def warm_loss(model: FusedModel, frames: Sequence[torch.Tensor | None], clips: Sequence[Streamed]) -> torch.Tensor:
    """How far the first pass is from the clips' streams; tokens behind the last one of a stream are free.

    For an align head the cross-entropy of its mixtures of pieces; for another head the squared distance of its soft
    tokens to the mixtures of the LLM's embeddings, in units of their variance.

    Args:
        model: whose first pass it is.
        frames: of the clips, as `FusedModel.encode` gives them.
        clips: with their streams.
    """
    audio_pass: Any = model.passes["first"]
    lengths = torch.tensor([each.clip.samples for each in clips])
    ids = torch.from_numpy(np.concatenate([each.ids for each in clips]))
    shares = torch.from_numpy(np.concatenate([each.shares for each in clips]))

    def within(rows: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.cat([row[: len(each.shares)] for row, each in zip(rows, clips, strict=True)])

    if not isinstance(audio_pass.head, AlignHead):
        embeddings: torch.Tensor = cast(Any, model.get_input_embeddings()).weight.detach()
        wanted = torch.lerp(embeddings[ids[:, 0]], embeddings[ids[:, 1]], shares[:, None])
        return (within(model.adapt(frames, lengths, "first")) - wanted).square().mean() / embeddings.var()
    written: list[Any] = []

    def keep(_module: torch.nn.Module, _given: Any, logits: Any) -> None:
        written.append(logits)

    hook = audio_pass.head.linear.register_forward_hook(keep)
    model.adapt(frames, lengths, "first")
    hook.remove()
    logp = within(written[0]).log_softmax(-1).gather(1, ids)
    return -((1 - shares) * logp[:, 0] + shares * logp[:, 1]).mean()


def warm_up(
    model: FusedModel,
    frames_of: FramesOf,
    clips: Sequence[Streamed],
    settings: WarmSettings,
    path: Path,
    *,
    frozen: Sequence[str] = (),
    log: Callable[[str], None] = print,
) -> Checkpointer:
    """Trains the first pass, in place; an interrupted one goes on from its checkpoint to the same weights.

    Args:
        model: whose first pass it is.
        frames_of: frames of clips, as `Features.frames` reads them.
        clips: with their streams.
        settings: numbers.
        path: of the checkpoint. It stays when all steps are done: what follows may be interrupted too.
        frozen: names, within the pass, of modules that stay as they are.
        log: one line of progress.

    Returns:
        The checkpoint, to be cleared when what follows is complete.
    """
    audio_pass = model.passes["first"]
    optimisers = optimisers_of(
        audio_pass,
        frozen,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    rng = random.Random(settings.seed)
    made_of = content_key([asdict(settings), list(frozen), state_key(model), _key(clips)])
    checkpoint = Checkpointer(path)
    first = 0
    if state := checkpoint.resumed(made_of, "clips", log):
        first = state["step"]
        audio_pass.load_state_dict(state["pass"])
        optimisers.load_state_dict(state["optimisers"])
        rng.setstate(state["rng"])
        log(f"goes on behind warm step {first}")
    running = 0.0
    for step in range(first, settings.steps):
        chosen = rng.sample(range(len(clips)), min(len(clips), settings.batch_size))
        batch = [clips[place] for place in chosen]
        loss = warm_loss(model, frames_of([each.clip for each in batch]), batch)
        loss.backward()
        optimisers.step(one_cycle(step, settings.steps))
        running += loss.item()
        if step % LOGGED == LOGGED - 1:
            log(f"warm step {step + 1} loss {running / LOGGED:.4f}")
            running = 0.0
        if checkpoint.due(step) or step + 1 == settings.steps:
            checkpoint.save(
                {
                    "made_of": made_of,
                    "step": step + 1,
                    "pass": audio_pass.state_dict(),
                    "optimisers": optimisers.state_dict(),
                    "rng": rng.getstate(),
                }
            )
    return checkpoint


def _key(clips: Sequence[Streamed]) -> str:
    digest = hashlib.sha256()
    for each in clips:
        digest.update(each.clip.key.encode() + each.ids.tobytes() + each.shares.tobytes())
    return digest.hexdigest()
