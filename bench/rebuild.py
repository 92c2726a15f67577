"""How long pocket takes to rebuild from nothing: `make pocket && python bench/rebuild.py`.

Reads the wall-clock seconds that each stage wrote into the card beside the shipped weights.
"""

from __future__ import annotations

import json

from results import Claim, machine, shipped_key, write_claim

from earnest.pocket import weights_path
from earnest.pocket.ship import CARD


def main() -> None:
    card = json.loads((weights_path() / CARD).read_text())
    minutes = sum(stage["seconds"] for stage in card.values()) / 60
    parts = ", ".join(f"{name} {stage['seconds'] / 60:.1f}" for name, stage in card.items())
    claim = Claim(
        "pocket.rebuild_minutes", round(minutes, 1), None, None, 1, "min", card["text-llm"]["settings"]["seed"],
        "train", "make pocket && python bench/rebuild.py", round(60 * minutes, 1), machine(), shipped_key(),
        "<= 60", f"wall clock of the stages, one after the other: {parts}",
    )  # fmt: skip
    write_claim(claim)
    print(claim.text, parts)


if __name__ == "__main__":
    main()
