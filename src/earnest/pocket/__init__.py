"""Pocket: the shipped small model and the stages that train it from nothing.

`weights_path()` is a folder like any other: `earnest.load("pocket")` reads it by transformers' own loading code.
"""

from __future__ import annotations

import json
from pathlib import Path

from earnest.errors import ModelError

IDK_CARD, HARDENED_CARD, SAFETY_CARD = "idk.json", "hardened.json", "safety.json"
RELISTENING_CARD = "relistening.json"

SAFETY = ("rrs", "sft", "sft_no_twins")
RELISTENING = ("sft", "grpo")


def weights_path() -> Path:
    """The folder of the shipped weights.

    Raises:
        ModelError: the package was installed without them.
    """
    folder = Path(__file__).parent / "weights"
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} holds no weights; `make pocket` trains and ships them (45 minutes and more)")
    return folder


def idk_folder() -> Path:
    """Where the shipped adapters of IDK fine-tuning lie, if they are there."""
    return weights_path() / "idk"


def idk_adapters(k: str = "chosen") -> Path | None:
    """The folder of the shipped adapters of IDK fine-tuning, one for each modality; None if none are shipped.

    Args:
        k: "chosen" on validation, or "k5", the paper's.

    Raises:
        ModelError: they were trained on other weights.
    """
    return _adapters(idk_folder(), IDK_CARD, k, "recipes/pocket/reliability.toml")


def hardened_folder() -> Path:
    """Where the shipped adapters of faithfulness hardening lie, if they are there."""
    return weights_path() / "hardened"


def hardened_adapter(name: str = "hardened") -> Path | None:
    """The folder of the shipped adapter of faithfulness hardening; None if none is shipped.

    Args:
        name: "hardened", or "clean_only", its control.

    Raises:
        ModelError: it was trained on other weights.
    """
    return _adapters(hardened_folder(), HARDENED_CARD, name, "recipes/pocket/faithfulness.toml")


def safety_folder() -> Path:
    """Where the shipped adapters of safety lie, if they are there."""
    return weights_path() / "safety"


def safety_adapters() -> dict[str, Path] | None:
    """Method to the folder of its shipped adapter: "rrs", "sft" and "sft_no_twins"; None if none are shipped.

    Raises:
        ModelError: they were trained on other weights.
    """
    found = {name: _adapters(safety_folder(), SAFETY_CARD, name, "recipes/pocket/safety.toml") for name in SAFETY}
    there = {name: folder for name, folder in found.items() if folder is not None}
    return there or None


def relistening_folder() -> Path:
    """Where the shipped scan and adapters of re-listening lie, if they do; given as an adapter it is the scan."""
    return weights_path() / "relistening"


def relistening_adapters() -> dict[str, Path] | None:
    """Stage to the folder of its shipped adapter, "sft" and "grpo", each with the scan; None if none are shipped.

    Raises:
        ModelError: they were trained on other weights.
    """
    recipe = "recipes/pocket/relisten-rl.toml"
    found = {name: _adapters(relistening_folder(), RELISTENING_CARD, name, recipe) for name in RELISTENING}
    there = {name: folder for name, folder in found.items() if folder is not None}
    return there or None


def _adapters(folder: Path, card: str, name: str, recipe: str) -> Path | None:
    """A folder of shipped adapters, if they are for the shipped weights."""
    if not (folder / card).is_file():
        return None
    from earnest.engines.weights import folder_key

    if json.loads((folder / card).read_text("utf-8"))["key"] != folder_key(weights_path()):
        raise ModelError(f"the adapters in {folder} are for other weights: earnest train {recipe}")
    return folder / name
