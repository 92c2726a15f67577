"""Measures what the reliability methods change on pocket, on the held-out split: `python bench/reliability.py`.

The audit itself, with the shipped adapters of IDK fine-tuning (K chosen on validation), and once more with those of
the paper's K = 5. Writes `reliability.*` claims. The run directory is kept, so that a killed measurement goes on.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from results import Claims, adapters_key, negated, spent

from earnest.completion import Sampling
from earnest.engines.load import load_local
from earnest.example import load_manifest
from earnest.finding import Finding, Metric
from earnest.pocket import idk_adapters, idk_folder
from earnest.reliability.audit import audit
from earnest.reliability.fine_tuned import find_adapters
from earnest.reliability.prompting import methods
from earnest.run import run_folder
from earnest.world.dataset import make_world, world_version
from earnest.world.questions import TEMPLATES

MODALITIES = ("sound", "music", "speech")
SPLIT = "test"
PROMPTED = ("idk_prompt", "mcot", "task_agent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default=SPLIT)
    parser.add_argument("--seed", type=int, default=2, help="1 was read when the recipe was made")
    parser.add_argument("--per-template", type=int, default=60)
    parser.add_argument("--control-items", type=int, default=150)
    parser.add_argument("--adapters", type=Path, default=None, help="instead of the shipped ones; writes no claim")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    started = time.time()
    engine = load_local("pocket", threads=options.threads)
    n = options.per_template * len(TEMPLATES)
    out = run_folder(
        "pocket", adapters_key(idk_folder()), f"bench-reliability-{options.split}{options.seed}-n{n}-{world_version()}"
    )
    examples = load_manifest(make_world(out / "world", n, split=options.split, seed=options.seed, workers=2))
    sampling = Sampling(max_new_tokens=160)

    def run(name: str, adapters: Path, control_items: int, chosen: int) -> Finding:
        return audit(
            engine,
            examples,
            out / name,
            chosen=methods("pocket")[:chosen],
            adapters=find_adapters(adapters),
            control_items=control_items,
            sampling=sampling,
            seed=options.seed,
            progress=lambda done, total: print(f"{name}: {done}/{total} {time.time() - started:.0f} s", flush=True),
        )

    shipped, papers = idk_adapters(), idk_adapters("k5")
    adapters = options.adapters or shipped
    if adapters is None or papers is None:
        raise SystemExit("no adapters are shipped: earnest train recipes/pocket/reliability.toml")
    found = run(adapters.name, adapters, options.control_items, 5).metrics
    beside = run("k5", papers, 0, 2).metrics if options.adapters is None else {}
    # A killed measurement goes on: its time is that of all parts.
    seconds = spent(out, started)
    command = f"python bench/reliability.py --seed {options.seed} --per-template {options.per_template}"
    command += f" --control-items {options.control_items}"

    claims = Claims(command, seconds, options.seed, options.split, adapters_key(idk_folder()))
    put = claims.put
    for kind in ("rgi_group", "rgi_total"):
        put(f"reliability.{kind}.total", found[f"idk_sft.{kind}"])
        for modality in MODALITIES:
            goal = ">= 0.4, low > 0.25" if kind == "rgi_group" else None
            put(f"reliability.{kind}.{modality}", found[f"idk_sft.{kind}.{modality}"], goal)
    put("reliability.rel_over_random_refusal", found["idk_sft.over_random_refusal_of_forced"], ">= 0.05")
    put("reliability.accuracy_lost", negated(found["idk_sft.accuracy_change"]), "<= 0.03")
    put("reliability.silence_abstention", found["idk_sft.abstention.silent"], ">= 0.95")
    put("reliability.silence_abstention_open", found["idk_sft.abstention.silent_open"])
    put("reliability.clean_abstention_on_known", found["idk_sft.abstention_on_known"], "<= 0.05")
    prompted = [found[f"{method}.rgi_group"].value for method in PROMPTED]
    best = max((value for value in prompted if not math.isnan(value)), default=-math.inf)
    for method in (*PROMPTED, "idk_sft"):
        goal = f"> {best:.4f}" if method == "idk_sft" else None
        put(f"reliability.method.{method}.rgi_group", found[f"{method}.rgi_group"], goal)
        put(f"reliability.method.{method}.rgi_total", found[f"{method}.rgi_total"])
        put(f"reliability.method.{method}.accuracy_lost", negated(found[f"{method}.accuracy_change"]))
    for one in MODALITIES:
        for other in MODALITIES:
            put(f"reliability.cross.{one}_to_{other}", found[f"cross.{one}_to_{other}"])
    across = [found[f"cross.{one}_to_{other}"].value for one in MODALITIES for other in MODALITIES if one != other]
    above = float(sum(value > 0 for value in across))
    put("reliability.cross.cells_above_0", Metric(above, above, above, len(across), "count", "of 6 off the diagonal"))
    for snr in ("-20", "-10", "0", "20"):
        put(f"reliability.abstention.snr_{snr}_db", found[f"idk_sft.abstention.snr_{snr}_db"])
    if beside:
        put("reliability.k5.rgi_group", beside["idk_sft.rgi_group"])
        put("reliability.k5.accuracy_lost", negated(beside["idk_sft.accuracy_change"]))
        put("reliability.k5.rel_over_random_refusal", beside["idk_sft.over_random_refusal_of_forced"])

    if options.adapters is None and options.split == SPLIT:
        claims.write()


if __name__ == "__main__":
    main()
