"""The commands put together, and what becomes of their errors.

Responsible for: the list of commands, the exit codes. What a command does stands in the
file of its name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import splitpipe
from splitpipe.cli.check import check
from splitpipe.cli.compact import compact
from splitpipe.cli.convert import convert
from splitpipe.cli.demo import demo
from splitpipe.cli.head import head
from splitpipe.cli.index import index
from splitpipe.cli.info import info
from splitpipe.cli.repair import repair
from splitpipe.cli.split import split
from splitpipe.cli.stats import stats
from splitpipe.cli.tokenize import tokenize
from splitpipe.errors import SplitpipeError

__all__ = ["app", "run"]

app = typer.Typer(
    name="splitpipe",
    help="Records in bins on disk, generator stages in other processes, batches in a loop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback is for bugs: let Python print it whole
)
_READING: tuple[Callable[..., None], ...] = (demo, info, head, stats, index)
_WRITING: tuple[Callable[..., None], ...] = (convert, split, tokenize)
_CARING: tuple[Callable[..., None], ...] = (check, repair, compact)
for command in (*_READING, *_WRITING, *_CARING):
    app.command()(command)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    Example:
        >>> run(["--version"])
        0.1.0
        0
    """
    try:
        app(args=arguments, prog_name="splitpipe")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except SplitpipeError as error:
        print(f"splitpipe: {_one_message(error)}", file=sys.stderr)
        return 1
    return 0


def _show_version(wanted: bool) -> None:
    if wanted:
        print(splitpipe.__version__)
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    pass


def _one_message(error: SplitpipeError) -> str:
    """The message, with the notes that say where it happened; no traceback."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"  # without the number of the errno
    return "\n  ".join([text, *getattr(error, "__notes__", ())])
