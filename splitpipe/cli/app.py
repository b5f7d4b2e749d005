"""The commands put together, and what becomes of their errors.

Responsible for: the list of commands, the exit codes. What a command does stands in the
file of its name, which is imported only if it is that command, or the list, that is wanted.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import splitpipe
from splitpipe.errors import SplitpipeError

__all__ = ["assembled", "run"]

_COMMANDS = (
    "demo",
    "info",
    "head",
    "stats",
    "index",
    "plan",
    "top",
    "quarantine",
    "convert",
    "split",
    "tokenize",
    "check",
    "repair",
    "compact",
    "verify",
    "replay",
    "serve",
    "keys",
    "run",
)
"""Each is a function of this name in the file of its name; but for `run`, which is `run_job`."""
_GROUPS = ("cache", "client")


def assembled(only: str | None = None) -> typer.Typer:
    """The command line.

    Args:
        only: leave out all other commands than this one, and what they would import; None: nothing
            is left out.
    """
    app = typer.Typer(
        name="splitpipe",
        help="Records in bins on disk, generator stages in other processes, batches in a loop.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # a traceback is for bugs: let Python print it whole
    )
    app.callback()(_root)
    for name in _COMMANDS if only is None else (only,):
        if name in _COMMANDS:
            module = importlib.import_module(f"splitpipe.cli.{name}")
            command = getattr(module, "run_job" if name == "run" else name)
            app.command(name)(_ending_well(command))
    if only in (None, "cache"):
        app.add_typer(_cache())
    if only in (None, "client"):
        app.add_typer(_client())
    return app


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    Example:
        >>> run(["--version"])
        0.1.0
        0
    """
    first = arguments[0] if arguments else None
    # Each command imports what it needs, and some of them half of the library.
    app = assembled(first if first in (*_COMMANDS, *_GROUPS, "--version") else None)
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


def __getattr__(name: str) -> Any:
    """`app` is the whole of it, for who looks at commands and options."""
    if name == "app":
        return assembled()
    raise AttributeError(name)


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


def _cache() -> typer.Typer:
    from splitpipe.cli.cache import CACHE_COMMANDS

    cache = typer.Typer(
        name="cache", help="What this machine keeps of remote data.", no_args_is_help=True
    )
    for command in CACHE_COMMANDS:
        cache.command()(_ending_well(command))
    return cache


def _client() -> typer.Typer:
    from splitpipe.cli.client_datasets import COLUMN_SET_COMMANDS, DATASET_COMMANDS, TASK_COMMANDS
    from splitpipe.cli.client_runs import ITERATION_COMMANDS, MODULE_COMMANDS, TOKEN_COMMANDS

    client = typer.Typer(name="client", help="Ask a data service.", no_args_is_help=True)
    for noun, said, commands in (
        ("datasets", "What there is on the server.", DATASET_COMMANDS),
        ("column-sets", "What datasets are made of.", COLUMN_SET_COMMANDS),
        ("iterations", "What clients read.", ITERATION_COMMANDS),
        ("tasks", "What the server does in the background.", TASK_COMMANDS),
        ("modules", "Code that the operator placed there.", MODULE_COMMANDS),
        ("tokens", "Who may ask.", TOKEN_COMMANDS),
    ):
        group = typer.Typer(name=noun, help=said, no_args_is_help=True)
        for verb, command in commands.items():
            group.command(verb)(_ending_well(command))
        client.add_typer(group)
    return client


def _show_version(wanted: bool) -> None:
    if wanted:
        print(splitpipe.__version__)
        raise typer.Exit


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
