"""Adapters that peft saved (LoRA and the like), put on a model as it is loaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from earnest.engines.weights import folder_key
from earnest.errors import ModelError, needs_extra

CONFIG = "adapter_config.json"


def adapter_key(folder: Path) -> str:
    """Content hash of an adapter [32 hex digits].

    Raises:
        ModelError: the folder is no adapter.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} has no {CONFIG}: give the folder of an adapter that peft saved")
    return folder_key(folder)


def put_on(model: Any, folder: Path) -> None:
    """Puts an adapter into a model, in place; its base weights stay as they are.

    Raises:
        ModelError: peft is missing, the folder is no adapter, or it was trained on another architecture.
    """
    adapter_key(folder)
    with needs_extra("train"):
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    with warnings.catch_warnings():
        # What does not fit is an error below.
        warnings.simplefilter("ignore", UserWarning)
        try:
            worn: Any = PeftModel.from_pretrained(model, folder)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the adapter {folder} does not fit this model: {error}") from error
        held, saved = set(get_peft_model_state_dict(worn)), set(load_peft_weights(str(folder), device="cpu"))
    if held != saved:
        odd = sorted(held ^ saved)
        raise ModelError(f"the adapter {folder} does not fit this model: {len(odd)} weights differ, such as {odd[0]}")
