"""How long pocket takes to rebuild from nothing: `python bench/rebuild.py`.

Claims the wall-clock minutes of the recipe's stages, from the card that `make pocket` left beside the weights. With
`--train` it measures them again: it runs the recipe in a temporary folder, which leaves the shipped weights alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from results import Claim, machine, shipped_key, write_claim

from earnest.pocket import weights_path
from earnest.pocket.ship import CARD
from earnest.training import recipes

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train from nothing first (45 minutes and more)")
    card = json.loads((weights_path() / CARD).read_text())
    spent: dict[str, float] = {name: stage["seconds"] for name, stage in card.items()}
    command = "python bench/rebuild.py"
    if parser.parse_args().train:
        command += " --train"
        with tempfile.TemporaryDirectory() as folder:
            spent = recipes.run(ROOT / "recipes" / "pocket" / "base.toml", out=Path(folder))
    minutes = sum(spent.values()) / 60
    parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in spent.items())
    notes: dict[str, str] = json.loads((ROOT / "bench" / "notes.json").read_text())
    name = "pocket.rebuild_minutes"
    claim = Claim(
        name, round(minutes, 1), None, None, 1, "min", card["text-llm"]["settings"]["seed"],
        "train", command, round(60 * minutes, 1), machine(), shipped_key(),
        "<= 60", f"wall clock of the stages, one after the other: {parts}. {notes.get(name, '')}".strip(),
    )  # fmt: skip
    write_claim(claim)
    print(claim.text, parts)


if __name__ == "__main__":
    main()
