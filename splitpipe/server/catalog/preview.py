"""Records for people to look at.

Responsible for: `preview`, some records in values of JSON, each bounded; and `media`, one value as
bytes.

Rules:
- a value that is long is cut and says how long it is; bytes are told by type and size, never sent
  along; numbers that JSON or a browser would change are text;
- one value is in memory at a time where values may be large;
- a record that cannot be read does not hide the others: it says what is wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from splitpipe.errors import InvalidRequest, NotFound
from splitpipe.schema import Field
from splitpipe.server.catalog.media import NEEDED, PLAIN, sniffed
from splitpipe.server.catalog.snapshot import SnapshotDataset
from splitpipe.storage.base import Records

__all__ = ["MOST_ROWS", "media", "preview", "shown"]

MOST_ROWS: Final = 1000
_LONGEST_TEXT: Final = 2000
_MOST_NUMBERS: Final = 16
_LARGEST_INTEGER: Final = 1 << 53  # beyond it, numbers of a browser have gaps
_MEDIA: Final = ("image", "audio", "video")

Json = dict[str, Any]


def preview(
    dataset: SnapshotDataset, *, offset: int, limit: int, columns: Sequence[str] | None = None
) -> Json:
    """Some records in values of JSON.

    Args:
        dataset: what is looked at.
        offset: the first record.
        limit: how many, at most `MOST_ROWS`.
        columns: which; all unless said.

    Returns:
        ``total``, ``offset``, ``columns`` (name, type, description) and ``rows``, each with ``row``
        and either ``values`` by column or ``error``. A value is what JSON says it is, or an object
        with ``kind``: ``text`` (cut: ``text``, ``length``), ``number`` (``text``), ``json``
        (``text``, ``length``), ``array`` (``dtype``, ``shape``, ``head``), or ``image``, ``audio``,
        ``video`` and ``bytes`` (``mime``, ``nbytes``).

    Raises:
        InvalidRequest: the bounds cannot be.
        FormatError: there is no such column.
    """
    if offset < 0 or not 0 <= limit <= MOST_ROWS:
        raise InvalidRequest(f"offset is 0 or more, and limit 0 to {MOST_ROWS}")
    schema = dataset.schema
    names = tuple(schema) if columns is None else schema.checked_names(columns)
    rows: list[Json] = []
    for row in range(offset, min(offset + limit, len(dataset))):
        try:
            values = {
                name: shown(schema[name], _value(dataset.records, row, name)) for name in names
            }
            rows.append({"row": row, "values": values})
        except Exception as error:
            rows.append({"row": row, "error": f"{type(error).__name__}: {error}"[:_LONGEST_TEXT]})
    return {
        "total": len(dataset),
        "offset": offset,
        "columns": [
            {"name": name, **schema[name].to_json(), "description": schema[name].description}
            for name in names
        ],
        "rows": rows,
    }


def media(dataset: SnapshotDataset, row: int, column: str) -> tuple[str, bytes]:
    """The bytes of one value, and their MIME type as a browser may be told.

    Raises:
        NotFound: there is no such record, or its value is missing.
        InvalidRequest: the column holds no bytes.
        FormatError: there is no such column.
    """
    (name,) = dataset.schema.checked_names([column])
    if not 0 <= row < len(dataset):
        raise NotFound(f"there is no record {row}: there are {len(dataset)}")
    value = _value(dataset.records, row, name)
    if value is None:
        raise NotFound(f"the value of column {name!r} is missing in record {row}")
    if isinstance(value, str):
        return PLAIN, value.encode("utf-8", "surrogatepass")
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidRequest(
            f"column {name!r} is {dataset.schema[name].description}: it holds no bytes"
        )
    data = bytes(value)
    return sniffed(data[:NEEDED]), data


def _value(records: Records, row: int, name: str) -> Any:
    return records.read(np.array([row], dtype=np.int64), [name])[name][0]


def shown(field: Field, value: Any) -> Any:
    """A value of a column as JSON that is safe to show.

    Example:
        >>> shown(Field("str"), "short"), shown(Field("bytes"), b"GIF89a")["mime"]
        ('short', 'image/gif')
        >>> shown(Field.parse("float64"), float("nan")), shown(Field.parse("int64"), 2**60)["text"]
        ({'kind': 'number', 'text': 'nan'}, '1152921504606846976')
    """
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return _of_bytes(field, value)
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    if isinstance(value, bool | int | float):
        return _of_number(value)
    if field.kind == "json":
        text = json.dumps(value, ensure_ascii=False, default=str)
        return {"kind": "json", "text": _clean(text[:_LONGEST_TEXT]), "length": len(text)}
    return {"kind": "number", "text": str(value)[:_LONGEST_TEXT]}


def _of_bytes(field: Field, value: bytes | bytearray | memoryview) -> Json:
    mime = sniffed(bytes(value[:NEEDED]))
    kind = mime.partition("/")[0]
    if kind not in _MEDIA:
        kind = "bytes"
    return {"kind": kind, "mime": mime, "nbytes": memoryview(value).nbytes}


def _of_array(value: np.ndarray[Any, Any]) -> Json:
    head = [_of_number(one) for one in _numbers(value.reshape(-1)[:_MOST_NUMBERS])]
    return {"kind": "array", "dtype": str(value.dtype), "shape": [*value.shape], "head": head}


def _numbers(values: np.ndarray[Any, Any]) -> list[Any]:
    return values.tolist() if values.dtype.kind in "biuf" else [str(one) for one in values]


def _of_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    exact = math.isfinite(value) if isinstance(value, float) else abs(value) <= _LARGEST_INTEGER
    return value if exact else {"kind": "number", "text": repr(value)}


def _of_text(value: str) -> Any:
    if len(value) <= _LONGEST_TEXT:
        return _clean(value)
    return {"kind": "text", "text": _clean(value[:_LONGEST_TEXT]), "length": len(value)}


def _clean(text: str) -> str:
    """Text that UTF-8 can say: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
