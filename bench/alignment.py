"""What alignment is worth on pocket, part by part: `python bench/alignment.py`.

Pocket's frozen LLM and frozen ears, all between them trained anew: on ground-truth replies, on the LLM's own replies
(R0) and on those that it rephrased itself (R); with one ear, both side by side, cross-attention, a Perceiver, and their
ensemble; with a linear head, as in the paper, and an align head, as pocket ships. All see the same clips and begin by
writing streams (`earnest.pocket.warming`); parts have a quarter of the steps of the targets; CA and the Perceiver stand
on adapters that had theirs before. The data is that of `bench/alignment_data.py`, made here if it is not there; trained
variants are kept beside it. The shipped pocket answers the same questions. Writes `alignment.accuracy.*`,
`alignment.fusion_gain_over_best_single.*` and `alignment.reply_leak.*`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from alignment_data import OUT, require_data
from results import Claims, spent

from earnest.alignment.features import Features
from earnest.alignment.leaks import leak
from earnest.alignment.rows import Target, load_rows
from earnest.alignment.training import train_pass
from earnest.completion import Completion, Sampling, content_key
from earnest.engines import Engine
from earnest.engines.load import find_folder, load_local, model_key
from earnest.example import Example
from earnest.fused import AdapterConfig, FusedModel, FusedProcessor, FusionConfig, PassConfig
from earnest.fused.ensemble import ensemble
from earnest.grading import Record, make_record
from earnest.pocket.adapters import AdapterSettings
from earnest.pocket.warming import streams_of, warm_up
from earnest.run import RunDirectory
from earnest.statistics import paired_bootstrap, rate, wilson
from earnest.training.checkpoint import Checkpointer
from earnest.world.dataset import world_example, world_item, world_version
from earnest.world.mixing import render
from earnest.world.questions import TEMPLATES
from earnest.world.surrogates import scene_surrogate
from pocket import CLEAN_DB, oracle_conversation, right

EARS = ("speech", "events")
"""The first leads a fusion, as Whisper does in the paper."""
MODALITIES = ("sound", "music", "speech")
SAMPLING = Sampling(max_new_tokens=160)
SEED = 30
PARTS = 0.25
"""Of the steps: what the parts are compared after, as there are twice as many of them as of targets."""


@dataclass(frozen=True)
class Variant:
    """One model of the ablation.

    Attributes:
        name: of its folder.
        ears: that it hears through.
        kind: of the fusion.
        head: align or linear.
        targets: rephrased, raw or ground_truth.
        begins: variants whose adapters it takes over and leaves as they are; the first gives its head, too.
        share: of the steps; parts are compared after fewer than targets.
    """

    name: str
    ears: tuple[str, ...] = EARS
    kind: str = "concat"
    head: str = "linear"
    targets: str = "rephrased"
    begins: tuple[str, ...] = ()
    share: float = PARTS


VARIANTS = (
    Variant("rephrased", share=1.0),
    Variant("raw", targets="raw", share=1.0),
    Variant("ground_truth", targets="ground_truth", share=1.0),
    Variant("concat"),
    Variant("speech", ("speech",)),
    Variant("events", ("events",)),
    Variant("ca", kind="ca", begins=("speech", "events")),
    Variant("perceiver", kind="perceiver", begins=("speech", "events")),
    Variant("align", head="align"),
)


def rows_of(rows: Sequence[Target], kind: str) -> list[Target]:
    """The same rows for all, with one kind of target: those whose rephrasing was taken and which were not cut."""
    taken = [row for row in rows if row.target is not None and not row.cut and row.answer]
    if kind == "rephrased":
        return taken
    return [replace(row, target=row.raw if kind == "raw" else row.answer) for row in taken]


def folder_of(variant: Variant, options: argparse.Namespace) -> Path:
    """Where a variant lies: another training, other targets or another pocket have another name."""
    made_of = [asdict(variant), options.warm_steps, options.steps, model_key("pocket"), _targets_key()]
    return OUT / "models" / f"{variant.name}-{content_key(made_of)[:8]}"


@cache
def _targets_key() -> str:
    return hashlib.sha256((OUT / "targets" / "targets.jsonl").read_bytes()).hexdigest()


def fresh(variant: Variant, begins: Sequence[Path] = ()) -> tuple[FusedModel, FusedProcessor]:
    """Pocket's LLM and ears with a new pass; with adapters and head of others, where it begins with them."""
    source = find_folder("pocket")
    base: Any = FusedModel.from_pretrained(source, dtype=torch.float32)
    processor: Any = FusedProcessor.from_pretrained(source)
    usual = base.config.pass_specs["first"]
    adapter: AdapterConfig = usual.adapters["events"]
    fusion = FusionConfig(variant.kind, width=192, heads=6, ffn=512, layers=2 if variant.kind == "perceiver" else 1)  # type: ignore[arg-type]
    torch.manual_seed(SEED)
    model = FusedModel.from_parts(
        base.language_model,
        {name: base.encoders[name] for name in variant.ears},
        {"first": PassConfig(dict.fromkeys(variant.ears, adapter), fusion, variant.head, usual.blank_token_id)},  # type: ignore[arg-type]
        audio_token_id=base.config.audio_token_id,
    )
    for number, (name, folder) in enumerate(zip(variant.begins, begins, strict=False)):
        other: Any = FusedModel.from_pretrained(folder, dtype=torch.float32).passes["first"]
        own: Any = model.passes["first"]
        own.adapters[name].load_state_dict(other.adapters[name].state_dict())
        own.mixes[name].load_state_dict(other.mixes[name].state_dict())
        if number == 0:
            own.head.load_state_dict(other.head.state_dict())
    return model, processor.over(model.config)


def train(variant: Variant, rows: Sequence[Target], options: argparse.Namespace) -> Path:
    """Trains a variant, or finds it trained."""
    folder = folder_of(variant, options)
    if (folder / "model.safetensors").exists():
        return folder
    started = time.time()
    named = {other.name: other for other in VARIANTS}
    model, processor = fresh(variant, [folder_of(named[name], options) for name in variant.begins])
    taken = rows_of(rows, variant.targets)
    frozen = ("adapters", "mixes") if variant.begins else ()
    warm_steps, steps = (round(variant.share * n) for n in (options.warm_steps, options.steps))
    usual = AdapterSettings(warm_steps=warm_steps, steps=steps, threads=options.threads, seed=SEED)
    torch.set_num_threads(options.threads)
    warm = Checkpointer(folder / "warm.pt")
    features = Features(model, OUT / "frames")
    clips = features.prepare(row.audio for row in taken)
    lessons = streams_of(model, clips, OUT / "world", processor.tokenizer.get_vocab())
    warm_up(model, features.frames, lessons, usual.warm, warm.path, frozen=frozen)

    def save(trained: FusedModel, out: Path) -> None:
        trained.half().save_pretrained(out)

    train_pass(
        model, processor, taken, usual.alignment, folder, OUT / "frames", frozen=frozen, save=save,
        log=lambda line: print(f"{variant.name}: {line}", flush=True),
    )  # fmt: skip
    warm.clear()
    print(f"{variant.name}: {time.time() - started:.0f} s", flush=True)
    return folder


def join(first: Path, second: Path) -> Path:
    """Ensemble E of two variants."""
    folder = OUT / "models" / f"ensemble-of-{first.name}-{second.name}"
    parts: list[Any] = []
    for own in (first, second):
        parts += [FusedModel.from_pretrained(own), FusedProcessor.from_pretrained(own)]
    model, processor = ensemble(*parts)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def ask(engine: Engine, run: Path, conversations: Sequence[Any]) -> list[Completion]:
    """Greedy replies; those that the run holds are not asked for again."""
    return RunDirectory(run).run_batched(engine, conversations, SAMPLING, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--per-template", type=int, default=30)
    parser.add_argument("--warm-steps", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=2000, help="through the LLM")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="these variants alone, separated by commas")
    options = parser.parse_args()
    started = time.time()
    require_data(options.threads)
    rows = load_rows(OUT / "targets" / "targets.jsonl", Target)
    wanted = options.only.split(",") if options.only else [variant.name for variant in VARIANTS]
    folders = {variant.name: train(variant, rows, options) for variant in VARIANTS if variant.name in wanted}
    if {"ca", "perceiver"} <= set(folders):
        folders["ensemble"] = join(folders["ca"], folders["perceiver"])
    n = options.per_template * len(TEMPLATES)
    items = [world_item(options.split, options.seed, k) for k in range(n)]
    examples = [world_example(item, render(item.scene)) for item in items]
    conversations = [example.conversation() for example in examples]
    runs = OUT / f"asked-{options.split}{options.seed}-n{n}-{world_version()[:8]}"
    said: dict[str, list[Completion]] = {}
    for name, folder in folders.items():
        said[name] = ask(load_local(str(folder), threads=options.threads), runs / name, conversations)
        print(f"{name} asked, {time.time() - started:.0f} s", flush=True)
    texts = [oracle_conversation(e, scene_surrogate(i.scene)) for e, i in zip(examples, items, strict=True)]
    pocket = load_local("pocket", threads=options.threads)
    said["oracle"] = ask(pocket, runs / "oracle", texts)
    said["shipped"] = ask(pocket, runs / "shipped", conversations)
    report(options, started, examples, said)


def report(
    options: argparse.Namespace, started: float, examples: Sequence[Example], said: dict[str, list[Completion]]
) -> None:
    """Grades all replies and writes the claims."""
    command = (
        f"python bench/alignment.py --seed {options.seed} --per-template {options.per_template} "
        f"--warm-steps {options.warm_steps} --steps {options.steps}{f' --only {options.only}' if options.only else ''}"
    )
    claims = Claims(command, spent(OUT / "models", started), options.seed, options.split, model_key("pocket"))
    records: dict[str, list[Record]] = {
        name: [make_record(*pair) for pair in zip(examples, replies, strict=True)] for name, replies in said.items()
    }
    correct = {name: right(own) for name, own in records.items()}

    def accuracy(name: str, title: str, goal: str | None = None) -> None:
        claims.put(f"alignment.accuracy.{title}", wilson(int(sum(correct[name])), len(examples)), goal)
        for modality in MODALITIES:
            own = [ok for ok, e in zip(correct[name], examples, strict=True) if e.groups["modality"] == modality]
            claims.put(f"alignment.accuracy.{title}.{modality}", wilson(int(sum(own)), len(own)))

    for name in ("ground_truth", "raw", "rephrased", "concat", "ca", "perceiver", "ensemble", "align", "shipped"):
        if name in correct:
            accuracy(name, name)
    if {"rephrased", "raw"} <= set(correct):
        gain = paired_bootstrap(correct["raw"], correct["rephrased"])
        claims.put("alignment.rephrased_over_raw", gain, ">= -0.01")
    if {"concat", "speech", "events"} <= set(correct):
        best = max(("speech", "events"), key=lambda name: sum(correct[name]))
        accuracy(best, "single")
        for name in ("speech", "events"):
            accuracy(name, f"single_{name}")
        # Side by side, which is fixed beforehand, against the single ear that is better here.
        for name, title, goal in (
            ("concat", "", ">= 0.05"), ("ca", ".ca", None), ("perceiver", ".perceiver", None),
            ("ensemble", ".ensemble", None),
        ):  # fmt: skip
            if name in correct:
                gain = paired_bootstrap(correct[best], correct[name])
                claims.put(f"alignment.fusion_gain_over_best_single{title}", gain, goal)
    if {"concat", "align"} <= set(correct):
        claims.put("alignment.align_over_linear", paired_bootstrap(correct["concat"], correct["align"]))
    clean = [k for k, e in enumerate(examples) if _is_clean(e)]
    oracle = [correct["oracle"][k] for k in clean]
    for name, title, goal in (("rephrased", "", "<= 0.06"), ("shipped", ".shipped", None)):
        if name in correct:
            gap = paired_bootstrap([correct[name][k] for k in clean], oracle)
            claims.put(f"alignment.gap_to_text_oracle{title}", gap, goal)
    goals = {"raw": "> 0.2", "rephrased": "<= 0.01"}
    templates = [example.groups["template"] for example in examples]
    for name, goal in {**goals, "concat": None, "align": None, "shipped": None}.items():
        if name in said:
            # Over templates: a wording makes all replies leak, or none.
            leaks = rate([bool(leak(reply.text)) for reply in said[name]], templates)
            claims.put(f"alignment.reply_leak.{name}", leaks, goal)
    if options.split == "test":
        claims.write()


def _is_clean(example: Example) -> bool:
    snr = example.groups.get("snr_db", "")
    return snr == "clean" or float(snr) >= CLEAN_DB


if __name__ == "__main__":
    main()
