"""Adapters that peft saved (LoRA and the like): put on a model, as it is loaded or for a while."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from earnest.completion import content_key
from earnest.engines.weights import adapter_state, folder_key
from earnest.errors import ModelError, needs_extra
from earnest.files import write_json

CONFIG = "adapter_config.json"
ADAPTER_FILES = (CONFIG, "adapter_model.safetensors")
"""What peft needs of a folder that a training wrote."""
EARS = "ears.json"
"""Specs of ears that come with adapters of a fused model, in their folder or the one above (`added_ears.py`)."""


def require_peft() -> None:
    """Checks that adapters can be put on and trained.

    Raises:
        ModelError: peft is not installed.
    """
    with needs_extra("train"):
        import peft  # noqa: F401  # pyright: ignore[reportUnusedImport]


def adapter_key(folder: Path) -> str:
    """Content hash of an adapter [32 hex digits], of the ears that come with it included.

    Raises:
        ModelError: the folder is no adapter.
    """
    ears = ears_of(folder)
    if not (folder / CONFIG).is_file() and ears != folder:
        raise ModelError(f"{folder} has no {CONFIG}: give the folder of an adapter that peft saved")
    return folder_key(folder) if ears in (None, folder) else content_key([folder_key(folder), folder_key(ears)])


def ears_of(folder: Path) -> Path | None:
    """Where the ears that come with an adapter lie: in its own folder or, for several, in the one above; or nowhere."""
    return next((own for own in (folder, folder.parent) if (own / EARS).is_file()), None)


def adapters_in(folder: Path, alone: str) -> dict[str, Path]:
    """Name to folder of each adapter below a folder, or of the folder itself as `alone`; empty if there is none."""
    if (folder / CONFIG).is_file():
        return {alone: folder}
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))}


def copy_adapter(folder: Path, to: Path, strength: float = 1.0, dtype: str | None = None) -> None:
    """Copies what peft needs of an adapter; what lies at `to` is replaced.

    Args:
        folder: where a training saved it.
        to: the copy's folder.
        strength: of the copy: the dial at which it was chosen is written into its alpha.
        dtype: of the copy's weights, such as "float16"; None leaves them as they are.
    """
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for file in ADAPTER_FILES:
        shutil.copyfile(folder / file, to / file)
    if dtype is not None:
        import torch
        from safetensors.torch import load_file, save_file

        weights = load_file(to / ADAPTER_FILES[1])
        kind = getattr(torch, dtype)
        save_file({name: own.to(kind) for name, own in weights.items()}, to / ADAPTER_FILES[1], {"format": "pt"})
    if strength != 1:
        config = json.loads((to / CONFIG).read_text("utf-8"))
        write_json(to / CONFIG, {**config, "lora_alpha": config["lora_alpha"] * strength})


def put_on(model: Any, folder: Path) -> Any:
    """Puts an adapter into a model, in place; its base weights stay as they are.

    Returns:
        peft's wrapper, whose `unload` takes it off.

    Raises:
        ModelError: peft is missing, the folder is no adapter, or it was trained on another architecture; the model
            is then as it was.
    """
    adapter_key(folder)
    with needs_extra("train"):
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict, load_peft_weights
        from safetensors import SafetensorError

    def unfit(why: object) -> ModelError:
        return ModelError(f"the adapter {folder} does not fit this model: {why}")

    with warnings.catch_warnings():
        # What does not fit is an error below; what peft still asks of transformers is no user's concern.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            config: Any = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            worn: Any = PeftModel(model, config)
        except (ValueError, TypeError, KeyError) as error:
            raise unfit(error) from error
        try:
            worn.load_adapter(str(folder), "default")
            # Without a look at the hub for the base model's embeddings.
            held = set(get_peft_model_state_dict(worn, save_embedding_layers=False))
            saved = set(load_peft_weights(str(folder), device="cpu"))
        except (ValueError, RuntimeError, OSError, SafetensorError) as error:
            worn.unload()
            raise unfit(error) from error
    if held != saved:
        worn.unload()
        odd = sorted(held ^ saved)
        raise unfit(f"{len(odd)} weights differ, such as {odd[0]}")
    return worn


def chained(folders: Sequence[Path], to: Path) -> None:
    """One LoRA adapter that does what several do, each trained on top of those before it; replaces what lies at `to`.

    Matrices stand side by side: B [A_1; A_2] with B = [s_1 B_1, s_2 B_2], so that W + s_1 B_1 A_1 + s_2 B_2 A_2 is what
    a model gets.

    Raises:
        ModelError: they do not change the same matrices.
    """
    import torch
    from safetensors.torch import load_file, save_file

    configs = [json.loads((folder / CONFIG).read_text("utf-8")) for folder in folders]
    weights = [load_file(folder / ADAPTER_FILES[1]) for folder in folders]
    if odd := sorted(set().union(*weights) - set.intersection(*(set(own) for own in weights))):
        raise ModelError(f"{', '.join(map(str, folders))} change different matrices, such as {odd[0]}: chain like ones")
    scales = [float(config["lora_alpha"]) / float(config["r"]) for config in configs]
    joined: dict[str, Any] = {}
    for name in weights[0]:
        if ".lora_A." in name:
            joined[name] = torch.cat([own[name] for own in weights], dim=0)
        else:
            joined[name] = torch.cat([scale * own[name] for scale, own in zip(scales, weights, strict=True)], dim=1)
    rank = sum(int(config["r"]) for config in configs)
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    save_file(joined, to / ADAPTER_FILES[1], metadata={"format": "pt"})
    write_json(to / CONFIG, {**configs[0], "r": rank, "lora_alpha": rank})


@contextmanager
def dialled(model: Any, folder: Path, strength: float = 1.0) -> Generator[None]:
    """The adapter dial: within it a model wears an adapter, `strength` times as strong as it was trained.

    Afterwards the model is bit for bit what it was.

    Raises:
        ModelError: as `put_on`; the strength is no number; or the model wears an adapter already.
    """
    if not math.isfinite(strength):
        raise ModelError(f"the strength of an adapter is {strength}: give a number, 1 for what was trained")
    require_bare(model)
    with flags_restored(model):
        worn = put_on(model, folder)
        try:
            from peft.tuners.lora import LoraLayer

            layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
            if strength != 1 and not layers:
                raise ModelError(f"{folder} is no LoRA: give a strength of 1, only those can be dialled")
            for layer in layers:
                layer.scale_layer(strength)
            worn.eval()
            yield
        finally:
            worn.unload()


def require_bare(model: Any) -> None:
    """Checks that a model wears no adapter.

    Raises:
        ModelError: it does.
    """
    if adapter_state(model):
        raise ModelError("the model wears an adapter already: load it without one to put on or to train another")


@contextmanager
def flags_restored(model: Any) -> Generator[None]:
    """Afterwards every parameter is trained, and every module in training mode, as before: peft changes both."""
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    training = {name: module.training for name, module in model.named_modules()}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])
        for name, module in model.named_modules():
            module.training = training[name]
