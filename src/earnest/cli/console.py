"""What the verbs share: a console, a progress bar that is silent where nobody looks, the command as text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)
_errors = Console(stderr=True)


@contextmanager
def progress(title: str) -> Generator[Callable[[int, int], None]]:
    """A progress bar on standard error; nothing at all where that is no terminal.

    Yields:
        A function to be called with (done, total).
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_errors, transient=True, disable=not _errors.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def long(hours: float) -> str:
    """A length in hours, shorter ones in minutes or seconds."""
    if hours >= 1:
        return f"{hours:.2f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"


def command_line() -> str:
    """The command that is running, as one would type it."""
    return shlex.join(["earnest", *sys.argv[1:]])
