"""Which weights a model has: content keys from files and from memory, and a stamp that tells of training."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from earnest.errors import ModelError

TEXT_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
"""Files beside the weights that change an answer: config, tokenizer, processor, chat template."""
NOTES = ("training.json", "stage.json", "relistening.json")
"""What recipes note beside a model (settings, seconds): it changes no answer."""


def folder_key(folder: Path) -> str:
    """Content hash of a model folder [32 hex digits]: the bytes of its weights, config, tokenizer and template.

    Cached as long as no file changes its size or time.

    Raises:
        ModelError: the folder holds no safetensors.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no *.safetensors: save the model with save_pretrained")
    files = {path for pattern in ("*.safetensors", *TEXT_FILES) for path in folder.glob(pattern)}
    files = {path for path in files if path.name not in NOTES}
    stats = [(path, path.stat()) for path in sorted(files)]
    return _files_key(tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats))


@lru_cache(maxsize=64)
def _files_key(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        path = Path(name)
        with path.open("rb") as stream:
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def state_key(model: Any) -> str:
    """Content hash of the weights in memory [32 hex digits]."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


Stamp = tuple[int, int, tuple[float, ...], str]


def weights_stamp(model: Any) -> Stamp:
    """Changes whenever the model may answer otherwise than before.

    Returns:
        Number of weights, how often they were written in place (as optimisers and `load_state_dict` do), the first
        element of each (adapters are merged behind the counter's back), and `adapter_state`.
    """
    import torch

    parameters = [parameter.detach() for parameter in model.parameters()]
    # Gathered where the weights are and fetched at once: one by one, a GPU would be waited for at each.
    device = parameters[0].device
    firsts = torch.stack([p.flatten()[0].to(device, torch.float32) for p in parameters if p.numel()])
    writes = sum(parameter._version for parameter in parameters)
    return len(parameters), writes, tuple(firsts.tolist()), adapter_state(model)


def adapter_state(model: Any) -> str:
    """Which adapters of peft are on, merged and how strong; empty for a model without any."""
    found: list[str] = []
    for name, module in model.named_modules():
        held: dict[str, Any] = vars(module)
        if "_disable_adapters" in held:
            scaling = sorted(held.get("scaling", {}).items())
            on = (held["_disable_adapters"], held.get("_active_adapter"), held.get("merged_adapters"), scaling)
            found.append(f"{name}: {on}")
    return "\n".join(found)
