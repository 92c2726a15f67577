"""Targets a second of alignment's training against a plain transformers Trainer: `python bench/alignment_speed.py`.

The same model, targets, targets a step, optimiser and linear kernels in one process, in turns. The plain one has a row
for each target, pads to the longest of a batch in random order, and encodes its clips on the way. Ours packs the
targets of a clip, batches by length and reads frames from the disk. Written are the ratio with frames that are there,
as in all epochs but the first, and with an empty cache, where each clip is still encoded once for all its targets.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from alignment_data import require_data
from results import Claims
from torch import nn
from transformers import Trainer, TrainingArguments

from alignment import OUT, Variant, fresh, rows_of
from earnest.alignment.rows import Target, load_rows
from earnest.alignment.training import AlignmentSettings, train_pass
from earnest.audio import Clip
from earnest.conversation import Audio, Conversation
from earnest.engines.families.fused import FusedFamily
from earnest.engines.linear import fast_linear
from earnest.engines.load import model_key
from earnest.finding import Metric

CLIPS_A_STEP, TARGETS_PER_CLIP = 16, 5
STEPS = 12
REPEATS = 3


class Plain(nn.Module):
    """The fused model as a Trainer takes it: samples in, loss out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any, audio: Any) -> Any:
        soft = self.model.encode_audio(audio)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, audio=soft)


@fast_linear()
def plain_seconds(rows: Sequence[Target]) -> float:
    """Seconds of the plain training over all rows once."""
    model, processor = fresh(Variant("shipped", head="align"))
    family = FusedFamily(model, processor)

    def collate(batch: Sequence[Target]) -> dict[str, Any]:
        clips = [Clip.load(row.audio) for row in batch]
        asked = [
            Conversation().user(Audio(clip), f"\n\n{row.question}") for clip, row in zip(clips, batch, strict=True)
        ]
        prompts = [prompt.token_ids for prompt in family.render(asked)]  # type: ignore[union-attr]
        replies = [[*family.continuation_ids(row.target or ""), family.turn_end_id] for row in batch]
        longest = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
        ids, labels, mask = [], [], []
        for prompt, reply in zip(prompts, replies, strict=True):
            pad = longest - len(prompt) - len(reply)
            ids.append([*prompt, *reply, *[family.pad_token_id] * pad])
            labels.append([*[-100] * len(prompt), *reply, *[-100] * pad])
            mask.append([1] * (longest - pad) + [0] * pad)
        audio = [clip.resampled(16_000).samples for clip in clips]
        tensors = (torch.tensor(each) for each in (ids, mask, labels))
        return dict(zip(("input_ids", "attention_mask", "labels"), tensors, strict=True)) | {"audio": audio}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=CLIPS_A_STEP * TARGETS_PER_CLIP, num_train_epochs=1,
            learning_rate=2e-3, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
            logging_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model=Plain(model), args=arguments, train_dataset=list(rows), data_collator=collate)
        started = time.perf_counter()
        trainer.train()
    return time.perf_counter() - started


def our_seconds(rows: Sequence[Target], cache: Path, threads: int) -> float:
    """Seconds of ours over all rows once."""
    model, processor = fresh(Variant("shipped", head="align"))
    settings = AlignmentSettings(
        steps=STEPS, batch_size=CLIPS_A_STEP, targets_per_clip=TARGETS_PER_CLIP, learning_rate=2e-3, warm_up=1,
        threads=threads,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_pass(
            model, processor, rows, settings, Path(folder), cache, save=lambda *_: None, log=lambda _: None
        )  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    started = time.time()
    require_data(options.threads)
    every = rows_of(load_rows(OUT / "targets" / "targets.jsonl", Target), "rephrased")
    of: dict[str, list[Target]] = {}
    for row in every:
        of.setdefault(row.clip, []).append(row)
    full = [own for own in of.values() if len(own) == TARGETS_PER_CLIP][: STEPS * CLIPS_A_STEP]
    rows = [row for own in full for row in own]
    cache = OUT / "speed-frames"
    shutil.rmtree(cache, ignore_errors=True)
    warm: list[float] = []
    cold: list[float] = []
    for _ in range(REPEATS):
        plain = plain_seconds(rows)
        shutil.rmtree(cache, ignore_errors=True)
        empty, full_cache = (our_seconds(rows, cache, options.threads) for _ in range(2))
        cold.append(plain / empty)
        warm.append(plain / full_cache)
        print(f"{len(rows)} targets: plain {plain:.1f} s, ours {empty:.1f} s, {full_cache:.1f} s with frames on disk")
    shutil.rmtree(cache)
    claims = Claims(
        "python bench/alignment_speed.py", round(time.time() - started, 1), 30, "train", model_key("pocket")
    )  # fmt: skip
    for name, ratios, goal in (("ratio_to_trainer", warm, ">= 2"), ("ratio_to_trainer_cold", cold, None)):
        metric = Metric(statistics.median(ratios), min(ratios), max(ratios), REPEATS, "least and greatest", "x")
        claims.put(f"bench.alignment_training.{name}", metric, goal)
    claims.write()


if __name__ == "__main__":
    main()
