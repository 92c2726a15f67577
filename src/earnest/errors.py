"""Every error that a user can cause, as a tree.

All of them are `ValueError`s whose text names the value, the limit and the remedy:

    EarnestError
    ├── AudioError        a clip that cannot be read, cropped or edited
    ├── ConversationError a message form that cannot be understood
    ├── ManifestError     faults of a data file, all of them at once, with their lines
    ├── ModelError        an unknown model, or one that cannot do what is asked of it
    └── RecipeError       a run file with unknown or missing keys
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class EarnestError(ValueError):
    """Base of all errors that a user can cause and mend."""


class AudioError(EarnestError):
    """A clip that cannot be read, cropped or edited."""


class ConversationError(EarnestError):
    """A message form that cannot be understood."""


class ManifestError(EarnestError):
    """Faults of a data file: `faults` holds one sentence each, with the line number."""

    def __init__(self, path: str, faults: list[str]) -> None:
        self.path = path
        self.faults = faults
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{path}: {len(faults)} fault(s), nothing was run\n{lines}")


class ModelError(EarnestError):
    """An unknown model, or one that cannot do what is asked of it."""


class RecipeError(EarnestError):
    """A run file with unknown, missing or contradictory keys."""


@contextmanager
def needs_extra(name: str) -> Generator[None]:
    """Names the extra of earnest that brings what an import does not find.

    Raises:
        ModelError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ModelError(f"{error}: install it with pip install 'earnest[{name}]'") from error
