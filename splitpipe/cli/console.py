"""What a command shows while it works and when it is done.

Responsible for: the console, the progress of a run, the table of stages. On a terminal the progress
is a live bar; elsewhere (a log, a pipe) it is a plain line now and then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from splitpipe.cli.live import live_bar

__all__ = ["Meter", "StageStatistics", "make_console", "megabytes", "metered", "stage_table"]

LOG_WIDTH = 100
"""Columns where there is no terminal to ask."""


class StageStatistics(Protocol):
    """What a loader tells of one of its tasks."""

    @property
    def name(self) -> str: ...
    @property
    def workers(self) -> int: ...
    @property
    def items_in(self) -> int: ...
    @property
    def items_out(self) -> int: ...
    @property
    def busy_s(self) -> float: ...
    @property
    def wait_input_s(self) -> float: ...
    @property
    def wait_output_s(self) -> float: ...


def make_console() -> Console:
    """A console for stdout that leaves long lines whole, so that a path can be copied."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_WIDTH
    return console


class Meter:
    """Shows how far a run of known size is, and one changing note beside it: made by `metered`.

    Args:
        console: where it is shown.
        bar: what it is shown on, on a terminal.
        total_nbytes: the size of the whole run.
        lines: how many lines the run is given where there is no terminal.
    """

    def __init__(
        self, console: Console, bar: Progress | None, *, total_nbytes: int, lines: int = 10
    ) -> None:
        self._console = console
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=total_nbytes)
        self._total = total_nbytes
        self._every = max(1, total_nbytes // lines)
        self._done = 0
        self._next_line = self._every
        self._started = time.perf_counter()

    def advance(self, nbytes: int, note: str) -> None:
        """Another ``nbytes`` are done; ``note`` is what to say beside the bar."""
        self._done += nbytes
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=nbytes, description=note)
        elif self._done >= self._next_line:
            self._next_line += self._every
            speed = self._done / max(1e-9, time.perf_counter() - self._started)
            share = min(1.0, self._done / self._total)
            self._console.print(f"{share:4.0%}  {note}  {megabytes(speed)}/s")


@contextmanager
def metered(console: Console, *, total_nbytes: int) -> Iterator[Meter]:
    """Show how far a run of known size is: a bar on a terminal, else a line now and then."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with live_bar(*columns, console=console) as bar:
        yield Meter(console, bar, total_nbytes=total_nbytes)


def megabytes(nbytes: float) -> str:
    """A size for people, in decimal megabytes.

    Example:
        >>> megabytes(31_527_013)
        '31.5 MB'
    """
    return f"{nbytes / 1e6:.1f} MB"


def stage_table(stages: Iterable[StageStatistics], *, elapsed_s: float) -> Table:
    """One row a task of a loader: what went through it, and what its workers did meanwhile.

    Args:
        stages: the loader's statistics, in the order of the data.
        elapsed_s: how long the loader ran; rates are a second of this time.
    """
    table = Table(
        title="Where the time of each process went",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("stage", no_wrap=True)
    for heading in ("processes", "items\nin", "items\nout", "items/s", "busy"):
        table.add_column(heading, justify="right")
    for heading in ("waiting for\ninput", "waiting for\noutput"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in stages:
        table.add_row(
            stage.name,
            str(stage.workers) if stage.workers else "this one",
            f"{stage.items_in:,}",
            f"{stage.items_out:,}",
            f"{stage.items_out / max(1e-9, elapsed_s):,.0f}",
            f"{stage.busy_s:.1f} s",
            f"{stage.wait_input_s:.1f} s",
            f"{stage.wait_output_s:.1f} s",
        )
    return table
