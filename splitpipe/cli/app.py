"""The commands put together, and what becomes of their errors.

Responsible for: the list of commands, the exit codes. What a command does stands in the
file of its name.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import splitpipe
from splitpipe.cli.cache import CACHE_COMMANDS
from splitpipe.cli.check import check
from splitpipe.cli.compact import compact
from splitpipe.cli.convert import convert
from splitpipe.cli.demo import demo
from splitpipe.cli.head import head
from splitpipe.cli.index import index
from splitpipe.cli.info import info
from splitpipe.cli.plan import plan
from splitpipe.cli.quarantine import quarantine
from splitpipe.cli.repair import repair
from splitpipe.cli.replay import replay
from splitpipe.cli.run import run_job
from splitpipe.cli.split import split
from splitpipe.cli.stats import stats
from splitpipe.cli.tokenize import tokenize
from splitpipe.cli.top import top
from splitpipe.cli.verify import verify
from splitpipe.errors import SplitpipeError

__all__ = ["app", "run"]

app = typer.Typer(
    name="splitpipe",
    help="Records in bins on disk, generator stages in other processes, batches in a loop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback is for bugs: let Python print it whole
)
_READING: tuple[Callable[..., None], ...] = (
    demo,
    info,
    head,
    stats,
    index,
    plan,
    top,
    quarantine,
)
_WRITING: tuple[Callable[..., None], ...] = (convert, split, tokenize)
_CARING: tuple[Callable[..., None], ...] = (check, repair, compact)
_PROVING: tuple[Callable[..., None], ...] = (verify, replay)


def _ending_well(command: Callable[..., None]) -> Callable[..., None]:
    """A command that ends without a word when nobody reads any more, and with one on Ctrl-C."""

    @functools.wraps(command)
    def ended(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still to be flushed when the interpreter leaves goes nowhere.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
        except KeyboardInterrupt:
            print("splitpipe: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None

    return ended


for command in (*_READING, *_WRITING, *_CARING, *_PROVING):
    app.command()(_ending_well(command))
app.command("run")(_ending_well(run_job))
_cache = typer.Typer(
    name="cache", help="What this machine keeps of remote data.", no_args_is_help=True
)
for command in CACHE_COMMANDS:
    _cache.command()(_ending_well(command))
app.add_typer(_cache)


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
    """The message on one line; where a worker met it, and its traceback, are for programs."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"  # without the number of the errno
    return " ".join(text.split())
