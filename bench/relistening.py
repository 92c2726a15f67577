"""Measures what going back to the audio is worth, on pocket's held-out long scenes: `python bench/relistening.py`.

The audit's conditions for the shipped adapters of SFT and GRPO, the controls for the last one, and beside them pocket
as it is shipped, which hears the whole clip at the finer rate in a single pass. Writes `relistening.*` claims. The run
directory is kept, so that a killed measurement goes on.

With `--forms` instead: the paper's order, SFT on the tags alone and then GRPO (`recipes/pocket/relisten-tags.toml`,
trained here if it is not yet), on the same questions. Writes `relistening.tags.*`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from results import ROOT, Claims, adapters_key, spent

from earnest.accuracy import outcomes_of
from earnest.completion import Sampling
from earnest.engines.load import load_local
from earnest.example import Example, load_manifest
from earnest.finding import Finding, Metric
from earnest.grading import Outcome
from earnest.pocket import RELISTENING_CARD, relistening_adapters, relistening_folder
from earnest.prompts import Prompt
from earnest.relistening.audit import BUDGET_ITEMS, BUDGETS_S, Extent, audit, spread
from earnest.relistening.long_scenes import make_long
from earnest.relistening.loop import WORDS, relisten
from earnest.relistening.summary import CONTROLS, SINGLE
from earnest.run import RunDirectory, run_folder
from earnest.statistics import bootstrap, paired_bootstrap, wilson
from earnest.training import recipes
from earnest.world.dataset import world_version

SPLIT = "test"
TAGS = ROOT / "recipes" / "pocket" / "relisten-tags.toml"
MODALITIES = ("sound", "music", "speech")
SAMPLING = Sampling(max_new_tokens=96)
LATENCY_ITEMS = 61
"""Questions that are asked one by one; the first is not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default=SPLIT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=1020)
    parser.add_argument("--forms", action="store_true", help="the paper's order of training")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    started = time.time()
    adapters = relistening_adapters()
    if adapters is None:
        raise SystemExit("no adapters are shipped: earnest train recipes/pocket/relisten-rl.toml")
    key = adapters_key(relistening_folder())
    name = f"bench-relistening-{options.split}{options.seed}-n{options.scenes}-{world_version()}"
    out = run_folder("pocket", key, name)
    examples = load_manifest(
        make_long(out / "scenes", options.scenes, split=options.split, seed=options.seed, workers=2)
    )
    if options.forms:
        recipes.run(TAGS, log=lambda line: print(line, flush=True))
        folder = recipes.load(TAGS).out
        adapters = {name: folder / f"relistening-{name}" / "adapter" for name in adapters}
        # With the scan that they were trained on.
        engine = load_local(str(folder / "scan"), threads=options.threads)
    else:
        engine = load_local("pocket", threads=options.threads, adapter=relistening_folder())
    finding = audit(
        engine,
        examples,
        out / ("forms" if options.forms else "audit"),
        words=Prompt.load("relistening", WORDS["pocket"]),
        adapters=adapters,
        extent=Extent(controls=not options.forms, every_stage=True, budgets_s=() if options.forms else BUDGETS_S),
        sampling=SAMPLING,
        seed=options.seed,
        progress=lambda done, total: print(f"{done}/{total} {time.time() - started:.0f} s", flush=True),
    )
    command = f"python bench/relistening.py --seed {options.seed} --scenes {options.scenes}"
    if options.forms:
        claims = Claims(f"{command} --forms", spent(out / "forms", started), options.seed, options.split, key)
        for name in ("ours_sft", "ours_grpo", SINGLE):
            claims.put(f"relistening.tags.accuracy.{name}", finding.metrics[f"accuracy.{name}"])
        claims.put("relistening.tags.grpo_gain_over_sft", finding.metrics["gain_over_last_stage"])
        claims.put("relistening.tags.hit_rate", finding.metrics["hit_rate"])
        claims.put("relistening.tags.well_formed", finding.metrics["well_formed"])
        if options.split == SPLIT:
            claims.write()
        return
    plain = outcomes_of(
        load_local("pocket", threads=options.threads), examples, RunDirectory(out / "plain"), SAMPLING, 64
    )
    right = [float(plain[example.id] is Outcome.CORRECT) for example in examples]
    answered = {item["id"]: float(item["outcome"] == Outcome.CORRECT) for item in finding.records}
    ours = [answered[example.id] for example in examples]
    latency = _latency(spread(examples, LATENCY_ITEMS), list(adapters.values())[-1], options.threads)
    seconds = spent(out, started)
    claims = Claims(command, seconds, options.seed, options.split, key)
    _put(claims, finding, min(BUDGET_ITEMS, len(examples)))
    guessed = [1 / len(example.choices) for example in examples if example.choices]
    claims.put("relistening.chance", bootstrap(guessed, seed=options.seed))
    claims.put("relistening.accuracy.usual_rate", wilson(int(sum(right)), len(right)))
    claims.put("relistening.gain_over_usual_rate", paired_bootstrap(right, ours, seed=options.seed))
    claims.put("relistening.latency", latency)
    card = json.loads((relistening_folder() / RELISTENING_CARD).read_text("utf-8"))
    by_stage = card["seconds"]
    for name, stages, goal in (
        ("train_minutes", ("relistening-sft", "relistening-grpo"), "<= 45"),
        ("train_minutes_in_all", tuple(by_stage), None),
    ):
        minutes = sum(by_stage[stage] for stage in stages) / 60
        claims.put(f"relistening.{name}", Metric(minutes, minutes, minutes, 1, "single reading", "min"), goal)
    if options.split == SPLIT:
        claims.write()


def _latency(examples: Sequence[Example], adapter: Path, threads: int) -> Metric:
    """Seconds from a question about a clip that the engine has not heard to its answer, asked one by one."""
    engine = load_local("pocket", threads=threads, adapter=relistening_folder())
    words = Prompt.load("relistening", WORDS["pocket"])
    waited: list[float] = []
    with engine.wearing(adapter):
        for example in examples:
            begun = time.perf_counter()
            relisten(engine.generate, engine.capabilities, [example], SAMPLING, words=words, fine=True)
            waited.append(time.perf_counter() - begun)
    # The first pays for what is set up once.
    return bootstrap(waited[1:], unit="s")


def _put(claims: Claims, finding: Finding, n_budget: int) -> None:
    metrics = finding.metrics

    def put(what: str, name: str, goal: str | None = None) -> None:
        if name in metrics:
            claims.put(f"relistening.{what}", metrics[name], goal)

    for what in (SINGLE, f"{SINGLE}_sft", "ours_sft", "ours_grpo", *CONTROLS, *(f"{name}_sft" for name in CONTROLS)):
        put(f"accuracy.{what}", f"accuracy.{what}")
        for modality in MODALITIES:
            put(f"accuracy.{what}.{modality}", f"accuracy.{what}.{modality}")
    put("gain_over_single", "gain_over_single", ">= 0.3")
    for modality in MODALITIES:
        put(f"gain_over_single.{modality}", f"gain_over_single.{modality}", ">= 0.1")
    put("gain_over_random_segment", "gain_over_random_segment", ">= 0.2")
    for control in CONTROLS:
        if control not in ("random_segment", "oracle_segment"):
            put(f"gain_over_{control}", f"gain_over_{control}")
    put("gap_to_oracle_segment", "gap_to_oracle_segment", "-0.05..0.05")
    put("grpo_gain_over_sft", "gain_over_last_stage", ">= 0.02, low > 0")
    put("well_formed", "well_formed", ">= 0.95")
    put("hit_rate", "hit_rate", ">= 0.9")
    for what in ("overlap", "segments", "turns", "heard_again_s", "seconds_per_answer"):
        put(what, what)
    for curve in (curve for curve in finding.curves if curve.x_label == "seconds allowed"):
        for budget_s, value, low, high in zip(curve.x, curve.y, curve.low, curve.high, strict=True):
            claims.put(
                f"relistening.budget.{budget_s:g}_s", Metric(value, low, high, n_budget, "wilson 95%", "fraction")
            )


if __name__ == "__main__":
    main()
