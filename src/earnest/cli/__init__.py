"""The command line: one file per verb.

Exit codes: 0 done; 1 below an asked threshold, or a request that `ask` made has failed; 2 an error to be mended
(one message); 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from earnest.cli.ask import ask
from earnest.cli.audit import audit
from earnest.cli.check import check
from earnest.cli.demo import demo
from earnest.cli.make import make
from earnest.cli.train import train

app = typer.Typer(
    name="earnest",
    help="Audio language models that listen, and say so when they can't: ask one, audit one, build one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(ask)
app.command()(audit)
app.command()(check)
app.command()(demo)
app.command()(train)
app.add_typer(make, name="make")


def _version(asked: bool) -> None:
    if asked:
        from earnest import __version__

        typer.echo(f"earnest {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options that belong to no verb."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of the process if None.

    Raises:
        SystemExit: always, with the exit code.
    """
    from earnest.errors import EarnestError

    try:
        app(args=arguments)
    except EarnestError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:
        # A file or folder of the user's that cannot be written or read; its name is part of the message.
        typer.echo(f"error: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
        raise SystemExit(2) from None
