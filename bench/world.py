"""How fast the world makes audio on one core, speech included: `python bench/world.py`.

Items of the validation split are planned, rendered and written as FLAC by one process that starts with nothing cached:
speaking the words of its voices is part of the time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from results import Claim, machine, write_claim

from earnest.files import read_json_lines
from earnest.world.dataset import make_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        make_world(folder, options.items, split="validation", seed=options.seed, workers=1)
        seconds = time.perf_counter() - started
        rows = read_json_lines(Path(folder) / "scenes.jsonl")
        audio_s = sum(row["duration_s"] for row in rows)
    claim = Claim(
        "world.times_real_time", round(audio_s / seconds, 1), None, None, options.items, "x", options.seed,
        "validation", f"python bench/world.py --items {options.items} --seed {options.seed}", round(seconds, 1),
        machine(), None, ">= 500",
        f"{audio_s:.0f} s of audio in {seconds:.1f} s, one process on one core: planning, speaking, mixing, FLAC",
    )  # fmt: skip
    write_claim(claim)
    print(claim.text, claim.note)


if __name__ == "__main__":
    main()
