"""``splitpipe verify``: does splitpipe keep its promises on a user's own graph?

Responsible for: the table of what was found, and the exit code: 0 when no promise is broken, 1 when
one is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import splitpipe as sp
from splitpipe.cli.console import make_console
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.cli.target import load_object
from splitpipe.errors import FormatError
from splitpipe.verification import Verification
from splitpipe.verification.verifying import CHECKS, ITEMS

__all__ = ["PipelineName", "pipelines_of", "verify"]

PipelineName = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:NAME",
        help="A pipeline, a dict of them, or a function that makes one; PATH/FILE.py:NAME as well.",
    ),
]
_COLOURS = {"kept": "green", "broken": "bold red", "not checked": "yellow"}


def verify(
    target: PipelineName,
    items: Annotated[
        int, typer.Option("-n", "--items", min=1, help="Items to compare of every epoch, at most.")
    ] = ITEMS,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to compare.")] = 2,
    seconds: Annotated[float, typer.Option(min=1, help="How long it may take.")] = 45.0,
    check: Annotated[
        list[str] | None,
        typer.Option("-c", "--check", help=f"Only this check: {', '.join(CHECKS)}."),
    ] = None,
    workers: Annotated[
        int, typer.Option("-w", "--workers", min=2, help="The most that a stage is given.")
    ] = 3,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Instead of the graph's own; several are tried in turn."),
    ] = None,
    start_method: Annotated[
        str | None, typer.Option("--start-method", help="Of worker processes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove on your own pipeline that its stream is exact, resumable and leaves nothing behind."""
    found: dict[str, Verification] = {}
    with Console(stderr=True).status("loading") if sys.stderr.isatty() else _Quiet() as status:
        for name, pipeline in pipelines_of(target).items():
            for drawn in seed or (None,):
                found[_called(name, drawn)] = sp.verify(
                    pipeline,
                    items=items,
                    epochs=epochs,
                    seconds=seconds,
                    checks=check or CHECKS,
                    workers=workers,
                    seed=drawn,
                    start_method=start_method,
                    progress=lambda what, name=name: status.update(f"{name} {what}"),  # type: ignore[misc]
                )
    if as_json:
        ok = all(one.ok for one in found.values())
        say_json({"ok": ok, "pipelines": {name: one.to_json() for name, one in found.items()}})
    else:
        console = make_console()
        for name, one in found.items():
            _print(console, name, one)
    if not all(one.ok for one in found.values()):
        sys.exit(1)


def pipelines_of(target: str) -> dict[str, sp.Pipeline]:
    """Return the pipelines that a command line names, by name; of one alone that is empty.

    Raises:
        FormatError: there is nothing of this name, or it is no pipeline.
    """
    found = load_object(target, "pipeline")
    if callable(found) and not isinstance(found, sp.Pipeline):
        found = found()
    made = dict(found) if isinstance(found, Mapping) else {"": found}
    for value in made.values():
        if not isinstance(value, sp.Pipeline):
            raise FormatError(
                f"{target} is a {type(value).__name__}, not a pipeline, a dict of pipelines or a "
                "function that makes one"
            )
    return {str(name): value for name, value in made.items()}


class _Quiet:
    """Where there is no terminal to show progress on."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: Any) -> None:
        """Show nothing."""


def _called(name: str, seed: int | None) -> str:
    return name if seed is None else f"{name} seed {seed}".strip()


def _print(console: Console, name: str, found: Verification) -> None:
    console.print(Text(f"{name}: {found.pipeline}" if name else found.pipeline, style="bold"))
    console.print(f"{found.extent}; {found.seconds:.1f} s")
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("promise", "outcome", "stage"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for check in found.checks:
        told = "\n".join(filter(None, (check.detail, check.advice)))
        outcome = Text(check.outcome, style=_COLOURS[check.outcome])
        table.add_row(check.name, outcome, Text(check.stage or ""), Text(told))
    console.print(table, soft_wrap=False)
    console.print(Text(found.verdict, style="green" if found.ok else "bold red"))
