"""Stage `adapters`: adapters and fusion learn through the frozen LLM, from frozen ears, on its own replies.

First the align head learns to write the streams that the LLM was taught to read (`warming.py`); then the general
training of alignment goes on (`earnest.alignment.training`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from earnest.alignment.features import Features
from earnest.alignment.rows import Target, load_rows
from earnest.alignment.training import AlignmentSettings, train_pass
from earnest.engines.linear import fast_linear
from earnest.fused import AdapterConfig, FusedModel, FusedProcessor, PassConfig
from earnest.fused.encoders import EarEncoder
from earnest.pocket.tokenizer import AUDIO, AUDIO_END, AUDIO_START, BLANK, TIME
from earnest.pocket.warming import WarmSettings, streams_of, warm_up
from earnest.training.numbers import at_least

EARS: tuple[str, ...] = ("events", "speech")
FRAMES = "frames"


@dataclass(frozen=True)
class AdapterSettings:
    """Numbers of the stage.

    Attributes:
        width: channels of the adapters.
        warm_steps: steps in which the align head learns to write streams.
        steps: optimiser steps through the LLM.
        batch_size: clips a step, each with all its questions.
        learning_rate: peak of the cycle for norms and head.
        muon_rate: peak for the convolutions under Muon.
        weight_decay: of both.
        seed: of weights and order.
        threads: of the training.
    """

    width: int = 192
    warm_steps: int = 600
    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-3
    muon_rate: float = 5e-3
    weight_decay: float = 0.02
    seed: int = 30
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the ranges, also those of the training that follows.

        Raises:
            RecipeError: a number out of range.
        """
        at_least(self, 0, "warm_steps")
        at_least(self, 1, "width")
        _ = self.alignment

    @property
    def warm(self) -> WarmSettings:
        """Of the first part."""
        return WarmSettings(
            self.warm_steps, self.batch_size, self.learning_rate, self.muon_rate, self.weight_decay, self.seed
        )

    @property
    def alignment(self) -> AlignmentSettings:
        """Of the second part."""
        return AlignmentSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            muon_rate=self.muon_rate,
            weight_decay=self.weight_decay,
            warm_up=self.steps // 12,
            every=100,
            seed=self.seed,
            threads=self.threads,
        )


def assemble(llm: Path, ears: Path, settings: AdapterSettings) -> tuple[FusedModel, FusedProcessor]:
    """The fused model with fresh adapters over the trained LLM and ears."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(llm)
    adapter = AdapterConfig(widths=(settings.width,) * 2, kernels=(5, 5), strides=(2, 2), residual_kernels=(3,))
    blank = tokenizer.convert_tokens_to_ids(BLANK)
    model = FusedModel.from_parts(
        AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32),
        {name: _without_heads(EarEncoder.from_pretrained(ears / name)) for name in EARS},
        {"first": PassConfig(adapters=dict.fromkeys(EARS, adapter), head="align", blank_token_id=blank)},
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


@fast_linear()
def train(settings: AdapterSettings, root: Path, out: Path, *, log: Callable[[str], None] = print) -> Path:
    """Trains the first pass and saves the whole model, float16, with its processor.

    Args:
        settings: numbers of the stage.
        root: folder that holds text-llm, encoders and targets.
        out: folder of this stage; its checkpoints are continued if there are some.
        log: one line of progress.
    """
    torch.set_num_threads(settings.threads)
    model, processor = assemble(root / "text-llm", root / "encoders", settings)
    rows = [row for row in load_rows(root / "targets" / "targets.jsonl", Target) if row.target is not None]
    features = Features(model, out / FRAMES)
    found = features.prepare(row.audio for row in rows)
    log(f"{len(found)} clips encoded")
    clips = streams_of(model, found, root / "targets" / "clips", processor.tokenizer.get_vocab())
    warm = warm_up(model, features.frames, clips, settings.warm, out / "warm.pt", log=log)

    def save(trained: FusedModel, folder: Path) -> None:
        trained.half().save_pretrained(folder)

    train_pass(model, processor, rows, settings.alignment, out, out / FRAMES, save=save, log=log)
    warm.clear()
    return out
