"""What commands that read any dataset have in common: their options, and the bar.

Responsible for: `Source`, the arguments that say what to open and how; `Bar`, which shows on stderr
how far a long job is: stdout is for the result, which a program may read.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import splitpipe as sp

__all__ = ["AsJson", "Bar", "FormatName", "IndexDir", "Target", "Where", "Workers", "opened"]

Where = Annotated[
    Path, typer.Argument(help="A dataset's directory, or data of another format (docs/formats.md).")
]
Target = Annotated[Path, typer.Argument(help="The directory to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="The format, where it is not recognised.")
]
IndexDir = Annotated[
    Path | None,
    typer.Option("--index-dir", help="Where the index of another format is kept."),
]
Workers = Annotated[
    int, typer.Option("-w", "--workers", min=0, help="Processes that work; 0 is this one alone.")
]


class Bar:
    """Shows how far something is, where there is a terminal to show it on.

    Args:
        what: the word before the bar, until `show` says another.
    """

    def __init__(self, what: str) -> None:
        self._console = Console(stderr=True)
        self._what = what
        self._resources = ExitStack()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = self._resources.enter_context(
                Progress(*columns, console=self._console, transient=True)
            )
            self._bar.add_task(self._what, total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def show(self, done: int, total: int | None) -> None:
        """``done`` of ``total`` are done."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def show_step(self, what: str, done: int, total: int) -> None:
        """The same, of a job of several steps."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=total)


def opened(
    path: Path, form: str | None, index_dir: Path | None, bar: Bar, **options: Any
) -> sp.Dataset:
    """Open any dataset; building an index shows on the bar."""
    return sp.open_dataset(path, format=form, index_dir=index_dir, progress=bar.show, **options)
