"""How long pocket takes to rebuild from nothing: `python bench/rebuild.py --train`.

Runs the recipe in a fresh folder, ships the result and claims the wall-clock minutes of its stages. Without
`--train` it reads the card that the last shipping left beside the weights.
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
    parser.add_argument("--train", action="store_true", help="train from nothing first (about an hour)")
    if parser.parse_args().train:
        with tempfile.TemporaryDirectory() as folder:
            recipes.run(ROOT / "recipes" / "pocket" / "base.toml", out=Path(folder))
    card = json.loads((weights_path() / CARD).read_text())
    minutes = sum(stage["seconds"] for stage in card.values()) / 60
    parts = ", ".join(f"{name} {stage['seconds'] / 60:.1f}" for name, stage in card.items())
    claim = Claim(
        "pocket.rebuild_minutes", round(minutes, 1), None, None, 1, "min", card["text-llm"]["settings"]["seed"],
        "train", "python bench/rebuild.py --train", round(60 * minutes, 1), machine(), shipped_key(),
        "<= 60", f"wall clock of the stages, one after the other: {parts}",
    )  # fmt: skip
    write_claim(claim)
    print(claim.text, parts)


if __name__ == "__main__":
    main()
