"""``splitpipe head``: the first records of a dataset.

Responsible for: showing a record so that a terminal survives it and a program can read it.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Annotated, Any

import numpy as np
import typer

from splitpipe.cli.sources import (
    FormatName,
    IndexDir,
    Options,
    Where,
    opened,
    options_of,
    progress,
)
from splitpipe.dataset import Dataset

__all__ = ["as_json", "as_line", "head"]

WIDTH = 100
"""Characters of a value that are shown to people."""


def head(
    path: Where,
    count: Annotated[int, typer.Option("-n", "--count", min=0, help="How many records.")] = 10,
    start: Annotated[
        int, typer.Option("-s", "--start", min=0, help="The first of them, counted from 0.")
    ] = 0,
    as_lines_of_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with the whole record.")
    ] = False,
    form: FormatName = None,
    index_dir: IndexDir = None,
    options: Options = None,
) -> None:
    """Show the first records of a dataset."""
    show = as_json if as_lines_of_json else as_line
    given = options_of(options)
    with progress("indexing") as bar:
        dataset = opened(path, form, index_dir, given, bar)
    with dataset:
        for index in range(start, min(start + count, len(dataset))):
            print(show(index, dataset[index], *_named(dataset, index)))


def _named(dataset: Dataset, index: int) -> tuple[str | None, dict[str, Any]]:
    """The key and the metadata of a record."""
    if dataset.records.catalog is None:
        return None, {}
    return dataset.keys([index])[0], dataset.meta(index)


def as_line(
    index: int, record: Any, key: str | None = None, meta: dict[str, Any] | None = None
) -> str:
    r"""A record: its number, key and metadata, and each value's size and beginning.

    Example:
        >>> as_line(3, b"two\nlines")
        '3  9 bytes  two\\nlines'
        >>> print(as_line(4, {"text": "ab", "ids": np.arange(3)}))
        4  text: ab
           ids: int64(3,) 0 1 2
    """
    named = [f"key {_escaped(key)}"] if key is not None else []
    if meta:
        named.append("meta " + _shown(meta))
    if isinstance(record, dict):
        lines = [f"{name}: {_shown(value)}".rstrip() for name, value in record.items()]
    else:
        lines = [_shown(record).rstrip()]
    indent = " " * (len(str(index)) + 2)
    return f"{index}  " + f"\n{indent}".join([*named, *(lines or ["{}"])])


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


def as_json(
    index: int, record: Any, key: str | None = None, meta: dict[str, Any] | None = None
) -> str:
    r"""A record as JSON: ``text`` when it is UTF-8, ``base64`` when it is not; nothing is lost.

    Example:
        >>> as_json(0, b"\xff")
        '{"index": 0, "nbytes": 1, "base64": "/w=="}'
        >>> as_json(1, {"n": 2, "x": None}, "a", {"lang": "en"})
        '{"index": 1, "key": "a", "meta": {"lang": "en"}, "record": {"n": 2, "x": null}}'
    """
    shown: dict[str, Any] = {"index": index}
    if key is not None:
        shown["key"] = key
    if meta:
        shown["meta"] = _jsonable(meta)
    if isinstance(record, bytes):
        shown.update(_bytes(record))
    elif isinstance(record, str):
        shown["text"] = record
    else:
        shown["record"] = _jsonable(record)
    return json.dumps(shown, allow_nan=False)


def _bytes(value: bytes) -> dict[str, Any]:
    try:
        return {"nbytes": len(value), "text": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"nbytes": len(value), "base64": base64.b64encode(value).decode("ascii")}


def _jsonable(value: Any) -> Any:
    """A value as every reader of JSON takes it: NaN and infinities are strings."""
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, np.ndarray):
        values = value.astype(str) if value.dtype.kind in "mMc" else value
        shown = values.tolist()
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            shown = _jsonable(shown)
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": shown}
    if isinstance(value, np.generic):
        return str(value) if value.dtype.kind in "mMc" else _jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
