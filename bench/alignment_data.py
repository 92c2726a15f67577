"""Pocket's alignment data, by the commands that a user would give: `python bench/alignment_data.py`.

World, surrogates, questions, and the frozen LLM's own replies, rephrased by itself (R) and by another model. Then
10,000 rows once more, killed by SIGKILL three times on the way: what comes out must be the same, nothing lost or
doubled. Everything resumes. Writes `alignment.nll.*`, `alignment.leak_reduction` and `alignment.resume.*` claims.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from foreign_rephraser import train_foreign
from results import ROOT, Claims, spent

from earnest.completion import content_key
from earnest.engines.load import model_key
from earnest.files import read_json_lines
from earnest.finding import Metric
from earnest.run import read_metrics
from earnest.statistics import wilson
from earnest.world.dataset import world_version

CLIPS, DATA_SEED = 16000, 40
OUT = ROOT / "runs" / f"pocket-alignment-{content_key([model_key('pocket'), world_version(), CLIPS, DATA_SEED])[:8]}"
"""Another pocket, another world and other clips have another folder: nothing in it can be of earlier ones."""
ROWS_KILLED = 10_000
SCORED = 6000
KILLS = 3


def earnest(*arguments: object) -> None:
    """One command, as a user would give it."""
    subprocess.run([sys.executable, "-m", "earnest", *map(str, arguments)], check=True, cwd=ROOT)


def require_data(threads: int) -> None:
    """Makes the data that the other benchmarks of alignment stand on, unless it is there."""
    if not (OUT / "targets" / "findings.json").exists():
        started = time.time()
        make_data(threads)
        spent(OUT, started)


def make_data(threads: int) -> Path:
    """World, surrogates, questions, targets, or what is missing of them; returns the folder of the targets."""
    world, asked, targets = OUT / "world", OUT / "questions", OUT / "targets"
    earnest("make", "world", world, "-n", CLIPS, "--split", "train", "--seed", DATA_SEED)
    earnest("make", "surrogates", OUT / "surrogates", "--corpus", f"world={world}")
    earnest("make", "questions", asked, "--data", OUT / "surrogates" / "surrogates.jsonl", "--world", "--per-clip", 5)
    foreign = train_foreign(OUT / "foreign", threads=threads)
    rows = ("--data", asked / "questions.jsonl", "--model", "pocket", "--threads", threads, "--batch-size", 256)
    earnest("make", "rephrase", targets, *rows, "--only-leaking", "--score", 0)
    earnest("make", "rephrase", OUT / "foreign-targets", *rows, "--only-leaking", "--rephraser", foreign, "--words",
            "pocket", "--score", 0, "--limit", 6000)  # fmt: skip
    earnest("make", "rephrase", targets, *rows, "--only-leaking", "--score", SCORED, "--against",
            f"foreign_rephrase={OUT / 'foreign-targets'}")  # fmt: skip
    return targets


def kill_and_resume(targets: Path, threads: int) -> tuple[int, int, int]:
    """Rows that are missing, doubled or different after three kills on the way."""
    out = OUT / "killed"
    command = [
        sys.executable, "-m", "earnest", "make", "rephrase", str(out), "--data",
        str(OUT / "questions" / "questions.jsonl"), "--model", "pocket", "--only-leaking", "--score", "0",
        "--limit", str(ROWS_KILLED), "--threads", str(threads), "--batch-size", "256",
    ]  # fmt: skip
    completions = out / "completions.jsonl"
    shutil.rmtree(out, ignore_errors=True)
    kills = 0
    for kill in range(KILLS):
        wanted = (kill + 1) * ROWS_KILLED // (KILLS + 1)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and _lines(completions) < wanted:
            time.sleep(0.2)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"killed at {_lines(completions)} completions", flush=True)
    assert kills == KILLS, f"it was killed {kills} times only"
    subprocess.run(command, check=True, cwd=ROOT)
    wanted_rows = {row["id"]: row for name in ("targets", "rejected") for row in _rows(targets, name)}
    ours = [row for name in ("targets", "rejected") for row in _rows(out, name)]
    counts = Counter(row["id"] for row in ours)
    keys = Counter(row["key"] for row in read_json_lines(completions))
    asked = [row["id"] for row in read_json_lines(OUT / "questions" / "questions.jsonl")[:ROWS_KILLED]]
    missing = sum(name not in counts for name in asked)
    doubled = sum(count > 1 for count in [*counts.values(), *keys.values()])
    differ = sum(row.get("target") != wanted_rows[row["id"]].get("target") for row in ours)
    return missing, doubled, differ


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    path = folder / f"{name}.jsonl"
    return read_json_lines(path) if path.exists() else []


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    started = time.time()
    targets = make_data(options.threads)
    missing, doubled, differ = kill_and_resume(targets, options.threads)
    print(f"{missing} rows missing, {doubled} doubled, {differ} different after {KILLS} kills")
    claims = Claims("python bench/alignment_data.py", spent(OUT, started), DATA_SEED, "train", model_key("pocket"))
    metrics = {name.removeprefix("alignment."): metric for name, metric in read_metrics(targets).items()}
    claims.put("alignment.leak_rate.raw", metrics["leak.raw_of_all"])
    claims.put("alignment.leak_rate.edits", metrics["leak.edits"])
    claims.put("alignment.leak_reduction", metrics["leak_reduction"], ">= 0.95")
    claims.put("alignment.nll_ratio", metrics["nll_same.ratio"], "0.9..1.1")
    for name in ("raw", "rephrased", "ground_truth", "foreign_rephrase"):
        claims.put(f"alignment.nll.{name}", metrics[f"nll.{name}"])
    for name in ("ground_truth", "foreign_rephrase"):
        claims.put(f"alignment.nll_ratio_to.{name}", metrics[f"nll_ratio.{name}"], "<= 1")
    for name in ("edit_distance", "length_ratio"):
        claims.put(f"alignment.{name}", metrics[f"{name}.rephrased"])
    claims.put("alignment.cut", metrics["cut"])
    card = json.loads((targets / "card.json").read_text("utf-8"))
    claims.put("alignment.rejected", wilson(card["rejected"], card["rows"]))
    wrong = missing + doubled + differ
    claims.put("alignment.resume.wrong_rows", Metric(wrong, wrong, wrong, ROWS_KILLED, "counted", "rows"), "0..0")
    claims.write()


if __name__ == "__main__":
    main()
