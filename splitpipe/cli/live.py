"""A bar that moves, where somebody looks.

Responsible for: the one way in which commands begin and end such a bar. Where there is no terminal
there is none, and the command decides what it says instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TextColumn

__all__ = ["live_bar"]


@contextmanager
def live_bar(*columns: ProgressColumn, console: Console | None = None) -> Iterator[Progress | None]:
    """A bar as long as the block runs, or None where nobody would see it.

    Args:
        columns: what it shows behind the description.
        console: where it is shown, and stays; else on stderr, and it vanishes at the end.
    """
    # Not what rich thinks a terminal is: colours that were asked for are no reader.
    if not (sys.stderr.isatty() if console is None else console.is_terminal):
        yield None
        return
    shown = console or Console(stderr=True)
    text = TextColumn("{task.description}")
    with Progress(text, *columns, console=shown, transient=console is None) as bar:
        yield bar
