"""One loader for every model: by name, from a folder, from the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from earnest.errors import ModelError

if TYPE_CHECKING:
    import torch

    from earnest.engines.local import LocalEngine
    from earnest.engines.server import ServerEngine

KNOWN = (
    "'pocket', a folder with config.json and *.safetensors, a hub id ORG/NAME, hf/ORG/NAME, server:URL#MODEL, or "
    "openai/MODEL"
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load(
    name: str,
    *,
    batch_size: int = 64,
    device: str | None = None,
    dtype: str | None = None,
    threads: int = 2,
    adapter: Path | str | None = None,
    base_url: str | None = None,
    max_connections: int = 16,
    wants_logprobs: bool = False,
) -> LocalEngine | ServerEngine:
    """Loads a model as an engine.

    Args:
        name: `pocket`, a folder, a hub id, `hf/ORG/NAME`, `server:URL#MODEL`, or `openai/MODEL`.
        batch_size: most requests at once.
        device: where it runs; None: a GPU if there is one, else the CPU.
        dtype: of the weights, such as "bfloat16"; None: float32 on the CPU, the checkpoint's own elsewhere.
        threads: of torch on the CPU, at most as many as there are cores. The setting is the process's.
        adapter: folder of an adapter that peft saved, put on top of the weights.
        base_url: of the server of `openai/MODEL`; None: OPENAI_BASE_URL, else OpenAI's own.
        max_connections: requests that a server gets at a time.
        wants_logprobs: ask a server for the log-probability of each new token, which some refuse.

    Raises:
        ModelError: an unknown name, a folder that is no model, an architecture without a family, or an adapter that
            does not fit.
    """
    from earnest.engines.server import ServerEngine, served_model

    if served := served_model(name, base_url):
        _refuse_adapter(name, adapter)
        return ServerEngine(*served, name=name, max_connections=max_connections, wants_logprobs=wants_logprobs)
    return load_local(name, batch_size=batch_size, device=device, dtype=dtype, threads=threads, adapter=adapter)


def load_local(
    name: str,
    *,
    batch_size: int = 64,
    device: str | None = None,
    dtype: str | None = None,
    threads: int = 2,
    adapter: Path | str | None = None,
) -> LocalEngine:
    """Loads a model that runs in this process; see `load`.

    Raises:
        ModelError: as `load`, and the name of a served model.
    """
    folder = find_folder(name)
    from earnest.engines.families.family import find_family

    family = find_family(_model_type(folder))
    key = model_key(name, adapter=adapter)

    import torch

    from earnest.engines.local import LocalEngine

    if threads < 1:
        raise ModelError(f"threads is {threads}: it must be at least 1")
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    chosen = usable_device(device or (own_gpu() if torch.cuda.is_available() else "cpu"))
    kind = getattr(torch, dtype, None) if dtype else torch.float32 if chosen.type == "cpu" else "auto"
    if not (kind == "auto" or (isinstance(kind, torch.dtype) and kind.is_floating_point)):
        raise ModelError(f"unknown dtype {dtype!r}: take float32, bfloat16 or float16")
    with quiet():
        loaded = family.load(folder, chosen, kind, None if adapter is None else Path(adapter))
    return LocalEngine(loaded, name=name, key=key, batch_size=batch_size)


def require_loadable(name: str) -> None:
    """Checks, without loading it, that a model of this process is of an architecture that is known.

    Raises:
        ModelError: as `load_local`.
    """
    from earnest.engines.families.family import find_family

    find_family(_model_type(find_folder(name)))


def usable_device(name: str) -> torch.device:
    """A device by its name.

    Raises:
        ModelError: no such device, or a GPU that torch does not find here.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}: take cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= (gpus := torch.cuda.device_count()):
        there = "none; take cpu" if not gpus else f"cuda:0 to cuda:{gpus - 1}"
        raise ModelError(f"the device is {name!r}, and of GPUs torch finds here: {there}")
    return device


def own_gpu() -> str:
    """The GPU of this process: under torchrun each has one."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank else "cuda"


def find_folder(name: str) -> Path:
    """The local folder of a model; hub models are downloaded first.

    Raises:
        ModelError: the name is of no known form, or the hub does not have it.
    """
    if name == "pocket":
        from earnest.pocket import weights_path

        return Path(weights_path())
    from earnest.engines.server import served_model

    if served_model(name) is not None:
        raise ModelError(f"{name!r} is behind a server and has no folder: name a model that runs in this process")
    if Path(name).is_dir():
        return Path(name)
    hub_id = name.removeprefix("hf/")
    if not HUB_ID.fullmatch(hub_id):
        raise ModelError(f"no model called {name!r}: known are {KNOWN}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"{name!r} is no folder here, and the hub gave no {hub_id!r} ({error}): known are {KNOWN}"
        ) from error


def model_key(name: str, base_url: str | None = None, adapter: Path | str | None = None) -> str:
    """Content key of a model, without loading it; raises as `load` does."""
    from earnest.completion import content_key
    from earnest.engines.lora import adapter_key
    from earnest.engines.server import served_key, served_model
    from earnest.engines.weights import folder_key

    if served := served_model(name, base_url):
        _refuse_adapter(name, adapter)
        return served_key(*served)
    key = folder_key(find_folder(name))
    return key if adapter is None else content_key([key, adapter_key(Path(adapter))])


def _refuse_adapter(name: str, adapter: Path | str | None) -> None:
    if adapter is not None:
        raise ModelError(f"{name} is behind a server, which takes no adapter from here: let it load {adapter} itself")


@contextmanager
def quiet() -> Generator[None]:
    """Without transformers' progress bars, which belong to whoever has the terminal; also as a decorator."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _model_type(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{folder} has no config.json: give a folder written by save_pretrained; known are {KNOWN}")
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"])
    except (json.JSONDecodeError, KeyError) as error:
        raise ModelError(f"{config} names no model_type: give a folder written by save_pretrained") from error
