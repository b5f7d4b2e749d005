"""``splitpipe head``: the first records of a dataset.

Responsible for: showing a record so that a terminal survives it and a program can read it.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

import numpy as np
import typer

from splitpipe.cli.sources import Bar, FormatName, IndexDir, Where, opened

__all__ = ["as_json", "as_line", "head"]

WIDTH = 100
"""Characters of a value that are shown to people."""


def head(
    path: Where,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="How many records.")] = 10,
    as_lines_of_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with the whole record.")
    ] = False,
    form: FormatName = None,
    index_dir: IndexDir = None,
) -> None:
    """Show the first records of a dataset."""
    show = as_json if as_lines_of_json else as_line
    with Bar("indexing") as bar, opened(path, form, index_dir, bar) as dataset:
        for index in range(min(count, len(dataset))):
            print(show(index, dataset[index]))


def as_line(index: int, record: Any) -> str:
    r"""A record: its number, and each value's size and beginning, a line a column.

    Example:
        >>> as_line(3, b"two\nlines")
        '3  9 bytes  two\\nlines'
        >>> print(as_line(4, {"text": "ab", "ids": np.arange(3)}))
        4  text: ab
           ids: int64(3,) 0 1 2
    """
    if not isinstance(record, dict):
        return f"{index}  {_shown(record)}".rstrip()
    indent = " " * (len(str(index)) + 2)
    lines = [f"{name}: {_shown(value)}".rstrip() for name, value in record.items()]
    return f"{index}  " + f"\n{indent}".join(lines or ["{}"])


def _shown(value: Any) -> str:
    """How a value begins, on one line."""
    if value is None:
        return "(missing)"
    if isinstance(value, bytes):
        text = value[: 4 * WIDTH].decode("utf-8", "backslashreplace")
        return f"{len(value)} bytes  " + _escaped(text, more=len(value) > 4 * WIDTH)
    if isinstance(value, str):
        return _escaped(value)
    if isinstance(value, np.ndarray):
        first = " ".join(str(item) for item in value.reshape(-1)[:16].tolist())
        return f"{value.dtype}{value.shape} " + _escaped(first, more=value.size > 16)
    return _escaped(json.dumps(value, ensure_ascii=False, default=str))


def _escaped(text: str, *, more: bool = False) -> str:
    start = text[: WIDTH + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return shown[:WIDTH] + "..." if more or len(shown) > WIDTH else shown


def as_json(index: int, record: Any) -> str:
    r"""A record as JSON: ``text`` when it is UTF-8, ``base64`` when it is not; nothing is lost.

    Example:
        >>> as_json(0, b"\xff")
        '{"index": 0, "nbytes": 1, "base64": "/w=="}'
        >>> as_json(1, {"n": 2, "x": None})
        '{"index": 1, "record": {"n": 2, "x": null}}'
    """
    if isinstance(record, bytes):
        return json.dumps({"index": index, **_bytes(record)})
    if isinstance(record, str):
        return json.dumps({"index": index, "text": record})
    return json.dumps({"index": index, "record": _jsonable(record)})


def _bytes(value: bytes) -> dict[str, Any]:
    try:
        return {"nbytes": len(value), "text": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"nbytes": len(value), "base64": base64.b64encode(value).decode("ascii")}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, np.ndarray):
        values = value.astype(str) if value.dtype.kind in "mMc" else value
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": values.tolist()}
    if isinstance(value, np.generic):
        return str(value) if value.dtype.kind in "mMc" else value.item()
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
