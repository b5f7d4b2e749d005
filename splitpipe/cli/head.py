"""``splitpipe head``: the first records of a dataset.

Responsible for: showing a record so that a terminal survives it and a program can read it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated

import typer

import splitpipe as sp

__all__ = ["as_json", "as_line", "head"]

WIDTH = 100
"""Characters of a record that are shown to people."""


def head(
    directory: Annotated[Path, typer.Argument(help="The dataset's directory.")],
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="How many records.")] = 10,
    as_lines_of_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with the whole record.")
    ] = False,
) -> None:
    """Show the first records of a dataset."""
    show = as_json if as_lines_of_json else as_line
    with sp.open_dataset(directory) as dataset:
        for index in range(min(count, len(dataset))):
            print(show(index, dataset[index]))


def as_line(index: int, record: bytes) -> str:
    r"""A record on one line: its number, its size, and how it begins.

    Example:
        >>> as_line(3, b"two\nlines")
        '3  9 bytes  two\\nlines'
    """
    text = record[: 4 * WIDTH].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(shown) > WIDTH or len(record) > 4 * WIDTH:
        shown = shown[:WIDTH] + "..."
    return f"{index}  {len(record)} bytes  {shown}".rstrip()


def as_json(index: int, record: bytes) -> str:
    r"""A record as JSON: ``text`` when it is UTF-8, ``base64`` when it is not; nothing is lost.

    Example:
        >>> as_json(0, b"\xff")
        '{"index": 0, "nbytes": 1, "base64": "/w=="}'
    """
    content = {"index": index, "nbytes": len(record)}
    try:
        return json.dumps({**content, "text": record.decode("utf-8")})
    except UnicodeDecodeError:
        return json.dumps({**content, "base64": base64.b64encode(record).decode("ascii")})
