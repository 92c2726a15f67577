"""Words that are asked with, as data files: each version has an id, which stands in the results."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from earnest.errors import RecipeError


@dataclass(frozen=True)
class Prompt:
    """The words of a method.

    Attributes:
        id: of this version; a changed text gets a new one.
        texts: name to text.
    """

    id: str
    texts: dict[str, str]

    @staticmethod
    def load(concern: str, name: str) -> Prompt:
        """Reads `earnest/CONCERN/prompts/NAME.toml`.

        Raises:
            RecipeError: there is none of this name.
        """
        folder = files(f"earnest.{concern}") / "prompts"
        file = folder / f"{name}.toml"
        if not file.is_file():
            known = ", ".join(sorted(path.name.removesuffix(".toml") for path in folder.iterdir()))
            raise RecipeError(f"no prompt {name!r}: known are {known}")
        row = tomllib.loads(file.read_text("utf-8"))
        texts = {key: str(value).strip() for key, value in row.items() if key not in ("id", "about")}
        return Prompt(str(row["id"]), texts)


def filled(text: str, **values: str) -> str:
    """A text with each `{name}` in its place, in one pass: what is put in may hold such marks itself."""
    marks = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({marks})\}}", lambda mark: values[mark[1]], text)
