"""What the commands share: where a dataset is, how it is opened, and how far something is.

Responsible for: arguments and options that several commands have, opening a dataset of any format
with its progress on a bar, and printing a result for machines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

import splitpipe as sp
from splitpipe.cli.live import live_bar

__all__ = [
    "AsJson",
    "Bar",
    "Bins",
    "Compression",
    "Dictionary",
    "Directory",
    "FormatName",
    "IndexDir",
    "Options",
    "Overwrite",
    "Target",
    "Where",
    "Workers",
    "compression_of",
    "opened",
    "options_of",
    "progress",
    "say_json",
]

Where = Annotated[
    Path, typer.Argument(help="A dataset's directory, or data of another format (docs/formats.md).")
]
Directory = Annotated[Path, typer.Argument(help="The dataset's directory.")]
Target = Annotated[Path, typer.Argument(help="The directory to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="The format, where it is not recognised.")
]
IndexDir = Annotated[
    Path | None,
    typer.Option("--index-dir", help="Where the index of another format is kept."),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--option", help="NAME=VALUE, an option of the format; VALUE is JSON or text."
    ),
]
Workers = Annotated[
    int, typer.Option("-w", "--workers", min=0, help="Processes that work; 0 is this one alone.")
]
Bins = Annotated[int | None, typer.Option(min=1, help="How many bins share the records.")]
Compression = Annotated[
    str | None,
    typer.Option(help="zstd, or zstd:LEVEL, for every column that gains by it; or none."),
]
Dictionary = Annotated[
    bool, typer.Option("--dictionary", help="Train a dictionary, which small values gain by.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the dataset that is there.")]


_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


class Bar:
    """Shows how far something is: made by `progress`.

    Args:
        what: the word before the bar, until `show_step` says another.
        bar: what it is shown on, if anybody looks.
    """

    def __init__(self, what: str, bar: Progress | None) -> None:
        self._what = what
        self._bar = bar
        self._task = None if bar is None else bar.add_task(what, total=None)

    def show(self, done: int, total: int | None) -> None:
        """``done`` of ``total`` are done."""
        self.show_step(self._what, done, total)

    def show_step(self, what: str, done: int, total: int | None) -> None:
        """The same, of a job of several steps."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what, completed=done, total=total)


@contextmanager
def progress(what: str) -> Iterator[Bar]:
    """Show how far something is, where there is a terminal to show it on."""
    with live_bar(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        yield Bar(what, bar)


def opened(
    path: Path,
    form: str | None,
    index_dir: Path | None,
    options: Mapping[str, Any],
    bar: Bar,
) -> sp.Dataset:
    """Open any dataset; building an index shows on the bar.

    Raises:
        FormatError: also where the format has no such option.
    """
    try:
        if form == "raw":
            return sp.open_raw(_address(path), index_dir=index_dir, **options)
        return sp.open_dataset(path, format=form, index_dir=index_dir, progress=bar.show, **options)
    except TypeError as error:
        if not options:
            raise
        raise sp.FormatError(str(error)) from error


def _address(path: Path) -> str:
    """What was typed: of the two slashes of a url, a path keeps one."""
    return _URL.sub(r"\1://", str(path))


def options_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """Options of a format as a command line says them.

    Example:
        >>> options_of(["broken=skip", "validate=true", 'columns=["a", "b"]'])
        {'broken': 'skip', 'validate': True, 'columns': ['a', 'b']}
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, is_there, value = text.partition("=")
        if not is_there or not name.isidentifier():
            raise sp.FormatError(f"--option must be NAME=VALUE, not {text!r}")
        if name in ("format", "index_dir", "progress", "verify"):
            raise sp.FormatError(f"--option {name}= is not an option of a format")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def compression_of(text: str | None, *, dictionary: bool) -> str | sp.Zstd | None:
    """A compression as a command line says it.

    Example:
        >>> compression_of("zstd:19", dictionary=True), compression_of("none", dictionary=False)
        (Zstd(level=19, dictionary=True), 'none')
    """
    name, _, level = (text or "").partition(":")
    if name != "zstd":
        if dictionary:
            raise sp.FormatError("--dictionary needs --compression zstd")
        return text
    try:
        return sp.Zstd(int(level), dictionary) if level else sp.Zstd(dictionary=dictionary)
    except ValueError as error:
        if isinstance(error, sp.FormatError):
            raise
        raise sp.FormatError(f"--compression: a level is a number, not {level!r}") from None


def say_json(document: Any) -> None:
    """Print a result as one line of JSON that every reader takes."""
    print(json.dumps(document, allow_nan=False))
