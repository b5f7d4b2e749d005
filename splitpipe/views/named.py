"""One value a record, by name: what records are joined, grouped and cut by.

Responsible for: `named_values`, which finds a name among the columns, the keys and the metadata of
a dataset, and reads it in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.storage.base import Records, Rows, Values

__all__ = ["named_values"]

_BLOCK = 8192
_KINDS = ("scalar", "str", "bytes")


def named_values(records: Records, name: str, what: str) -> Values:
    """The values of a column, of the keys (``"key"``) or of a name in the metadata.

    Args:
        records: the dataset.
        name: a column goes before metadata of the same name.
        what: what they are for, for messages.

    Returns:
        An array for a column of numbers or dates without missing values, else a list.

    Raises:
        FormatError: there is no such name, or its values cannot be compared.

    Example:
        >>> from splitpipe.schema import Schema
        >>> from splitpipe.storage.base import MemoryRecords
        >>> records = MemoryRecords(Schema({"n": "int64"}), {"n": [3, 1]})
        >>> named_values(records, "n", "split by")
        array([3, 1])
    """
    if name in records.schema:
        field = records.schema[name]
        if field.kind not in _KINDS:
            raise FormatError(
                f"cannot {what} column {name!r}, which is {field!r}: its values have no order and "
                f"no equality; use a column of {', '.join(_KINDS)}"
            )
        parts = [records.read(rows, [name])[name] for rows in _blocks(len(records))]
        if parts and all(isinstance(part, np.ndarray) for part in parts):
            return np.concatenate(parts)
        return [value for part in parts for value in part]
    if records.catalog is None:
        raise FormatError(
            f"cannot {what} {name!r}: there is no such column, and no catalog with keys and "
            f"metadata; columns: {', '.join(records.schema)}"
        )
    if name == "key":
        catalog = records.catalog
        return [key for rows in _blocks(len(records)) for key in catalog.keys(rows)]
    return _of_metadata(records, name, what)


def _of_metadata(records: Records, name: str, what: str) -> list[Any]:
    assert records.catalog is not None
    found: list[Any] = []
    names: set[str] = set()
    for rows in _blocks(len(records)):
        metas = records.catalog.meta(rows)
        found.extend(meta.get(name) for meta in metas)
        names.update(*metas)
    if name not in names and found:
        raise FormatError(
            f"cannot {what} {name!r}: it is no column ({', '.join(records.schema)}) and in the "
            f"metadata of no record ({', '.join(sorted(names)) or 'there is none'})"
        )
    for row, value in enumerate(found):
        if isinstance(value, dict | list):
            raise FormatError(
                f"cannot {what} metadata {name!r}: it is a {type(value).__name__} in record {row}"
            )
    return found


def _blocks(count: int) -> Iterator[Rows]:
    for start in range(0, count, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count), dtype=np.int64)
