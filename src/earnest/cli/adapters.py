"""Adapters that an audit holds against the model: those that the user names, or pocket's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from earnest.cli.console import console


def adapters_of(
    model: str,
    base_url: str | None,
    folder: Path | None,
    *,
    bare: bool,
    option: str,
    concern: str,
    own: Callable[[], dict[str, Path] | None],
) -> dict[str, Path]:
    """Name to folder of each adapter; empty if there is none to hold against the model.

    Args:
        model: what the user called it.
        base_url: of its server.
        folder: that the user named: of an adapter, or of several.
        bare: whether the model wears no adapter from the start; only then pocket's own fit.
        option: that names the folder, for errors.
        concern: in words, for a note.
        own: pocket's.

    Raises:
        ModelError: what is named cannot be used; nothing is loaded yet.
    """
    from earnest.engines.lora import adapters_in, require_peft
    from earnest.engines.server import served_model
    from earnest.errors import ModelError

    if folder and served_model(model, base_url):
        raise ModelError(f"{model} is behind a server, which takes no adapter from here: leave out {option}")
    if folder:
        found = adapters_in(folder, folder.name)
        if not found:
            raise ModelError(f"{folder} holds no adapter: give the folder of one that peft saved, or one with several")
        require_peft()
        return found
    found = (own() or {}) if model == "pocket" and bare else {}
    if found:
        try:
            require_peft()
        except ModelError as error:
            console.print(f"pocket's adapters of {concern} are left out: {error}", markup=False)
            return {}
    return found
