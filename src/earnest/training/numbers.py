"""Checks of a stage's numbers: they are made when a recipe is read, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from earnest.errors import RecipeError


def at_least(settings: object, least: float, *names: str) -> None:
    """Checks that attributes of these names are not below a limit.

    Raises:
        RecipeError: one is.
    """
    for name in names:
        if not getattr(settings, name) >= least:
            raise RecipeError(f"{name} is {getattr(settings, name)}: it must be at least {least:g}")


def above_zero(settings: object, *names: str) -> None:
    """Checks that attributes of these names are above 0.

    Raises:
        RecipeError: one is not.
    """
    for name in names:
        if not getattr(settings, name) > 0:
            raise RecipeError(f"{name} is {getattr(settings, name)}: it must be above 0")


def one_of(settings: object, name: str, known: Iterable[str]) -> None:
    """Checks that an attribute is one of what is known.

    Raises:
        RecipeError: it is not.
    """
    if (value := getattr(settings, name)) not in (every := tuple(known)):
        raise RecipeError(f"{name} is {value!r}: give one of {', '.join(every)}")


def equal_parts(settings: object) -> None:
    """Checks that `batch_size` can be cut into `accumulate` equal parts.

    Raises:
        RecipeError: it cannot.
    """
    batch_size, parts = (getattr(settings, name) for name in ("batch_size", "accumulate"))
    if batch_size % parts:
        raise RecipeError(f"a batch_size of {batch_size} cannot be cut into {parts} equal parts: change one")


def require_manifest(settings: object, name: str) -> None:
    """Checks that a manifest, if one is named, is there; the world stands for none.

    Raises:
        RecipeError: it is not.
    """
    if (file := getattr(settings, name)) and not Path(file).is_file():
        raise RecipeError(f"{name} = {file!r} is no file: name a manifest, or leave it out for the world")


def manifest_or_number(settings: object, manifest: str, number: str) -> None:
    """Checks that either a manifest is named, which is there, or how much of the world is taken.

    Args:
        settings: with both.
        manifest: name of the attribute with the file; empty for the world.
        number: name of the attribute with how much; 0 for a manifest, which is taken whole.

    Raises:
        RecipeError: both or neither is given, or the file is not there.
    """
    require_manifest(settings, manifest)
    file, count = getattr(settings, manifest), getattr(settings, number)
    if bool(file) == (count > 0):
        raise RecipeError(f"{manifest} is {file!r} and its {number} {count}: give one of them")
