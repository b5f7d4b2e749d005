"""``splitpipe client``: what the page of a data service can do, at a terminal.

Responsible for: reaching a server, and showing what it says. The commands stand in
`client_datasets.py` and `client_runs.py`, what they take in `client_options.py`.

Rules:
- with ``--json`` the server's own answer is printed, as it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from splitpipe.cli.sources import say_json
from splitpipe.errors import FormatError, SplitpipeError, StorageError

if TYPE_CHECKING:
    from splitpipe.client import Client

__all__ = [
    "connected",
    "module_of",
    "object_of",
    "say",
    "say_one",
    "say_table",
    "when",
]

_SHOWN = 60


@contextmanager
def connected(url: str, token_file: Path | None) -> Iterator[Client]:
    """A client of the server, closed with the block.

    Raises:
        SplitpipeError: the extra [client] is missing, or the file cannot be read.
    """
    try:
        from splitpipe.client import connect
    except ModuleNotFoundError as error:
        raise SplitpipeError(
            f"a client needs {error.name}, which is not installed. Install the extra [client]: "
            "pip install 'splitpipe[client]'"
        ) from error
    token = os.environ.get("SPLITPIPE_TOKEN") or None
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{token_file} cannot be read: {error}") from error
    with connect(url, token=token, retry_s=5) as client:
        yield client


def object_of(text: str) -> dict[str, Any]:
    """The JSON object that an argument is, or that the file has which it names.

    Example:
        >>> object_of('{"dataset": "news"}')
        {'dataset': 'news'}
    """
    try:
        said = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        value = json.loads(said)
    except OSError as error:
        raise StorageError(f"{text[1:]} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FormatError(f"{text:.100} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f'{text:.100} is no object of JSON. Write {{"dataset": "news"}}')
    return value


def module_of(text: str) -> Any:
    """A module as an option has it: a name, or a name with its parameters as JSON.

    Example:
        >>> module_of("upper"), module_of('long_enough={"least": 10}')
        ('upper', ('long_enough', {'least': 10}))
    """
    name, equals, params = text.partition("=")
    return (name, object_of(params)) if equals else name


# -- showing


def say(value: Any, *, as_json: bool, text: str) -> None:
    """Print one sentence, or the answer."""
    if as_json:
        say_json(value)
    else:
        print(text)


def say_one(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one object: a line a member."""
    if as_json:
        say_json(value)
        return
    width = max(map(len, value), default=0)
    for name, member in value.items():
        shown = when(member) if name.endswith("_at") else _plain(member)
        print(f"{name:{width}}  {shown}")


def say_table(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, as_json: bool, nothing: str
) -> None:
    """Print a list of objects: a line each."""
    if as_json:
        say_json(list(rows))
        return
    if not rows:
        print(nothing)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = list(columns)
    for name in names:
        heading = name.removesuffix("_at").replace("_", " ")
        # What another command is given is never broken.
        table.add_column(heading, overflow="fold", no_wrap=name in ("id", "name"))
    for row in rows:
        cells = []
        for name in names:
            shown = when(row.get(name)) if name.endswith("_at") else _plain(row.get(name))
            cells.append(Text(shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"))
        table.add_row(*cells)
    Console(highlight=False).print(table)


def when(seconds: float | None) -> str:
    """A time for people, of this machine's zone."""
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _plain(value: Any) -> str:
    """A value on one line; what a terminal would obey is escaped."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
