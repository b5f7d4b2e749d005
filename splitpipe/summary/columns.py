"""What is noted of the values of a column.

Responsible for: `Column`, which takes values block by block, whatever their kind, and the
`ColumnSummary` that it ends in.

Rules:
- blocks of numbers are looked at as arrays, never one by one;
- memory is bounded: of texts the short ones are counted, until there are too many different ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from splitpipe.schema import Field
from splitpipe.summary.numbers import Histogram, Numbers

__all__ = ["Column", "ColumnSummary"]

_DISTINCT: Final = 10_000
_COMMON: Final = 5
_MEMBERS: Final = 20
_SHORT: Final = 80
_MEDIA: Final = ("image", "audio", "video")
# First bytes, where they stand, and what they are of.
_MAGIC: Final = (
    (b"\x89PNG", 0, "png"),
    (b"\xff\xd8\xff", 0, "jpeg"),
    (b"GIF8", 0, "gif"),
    (b"BM", 0, "bmp"),
    (b"II*\x00", 0, "tiff"),
    (b"MM\x00*", 0, "tiff"),
    (b"WEBP", 8, "webp"),
    (b"WAVE", 8, "wav"),
    (b"AVI ", 8, "avi"),
    (b"ftyp", 4, "mp4"),
    (b"fLaC", 0, "flac"),
    (b"OggS", 0, "ogg"),
    (b"ID3", 0, "mp3"),
    (b"\xff\xfb", 0, "mp3"),
    (b"\x1aE\xdf\xa3", 0, "matroska"),
)
_JSON_KINDS: Final = {
    dict: "object",
    list: "array",
    tuple: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
}


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """What one column is like.

    Attributes:
        name, type: of the column.
        values: how many were looked at and were there.
        missing: how many were looked at and were missing.
        nbytes: sizes of the values in bytes: of numbers and arrays as they lie in memory, of text
            in UTF-8, of JSON as text, of pickled values zero.
        numbers: the values of scalars, or the elements of arrays: booleans as 0 and 1, complex
            numbers as their magnitudes, times as what they are stored as, in ``unit``. ``None``
            for other types.
        unit: of times and durations, as numpy names it; of times it counts from 1970.
        shapes: shapes of arrays and how often they came, the commonest first.
        common: short texts, kinds of JSON values, formats of media, and how often each came, the
            commonest first; empty for texts that are all different, or too many to count.
        members: of JSON objects, names and how often they came, the commonest first.
    """

    name: str
    type: str
    values: int
    missing: int
    nbytes: Histogram
    numbers: Histogram | None = None
    unit: str | None = None
    shapes: tuple[tuple[tuple[int, ...], int], ...] = ()
    common: tuple[tuple[str, int], ...] = ()
    members: tuple[tuple[str, int], ...] = ()


class Column:
    """What was seen of one column so far.

    Args:
        name: of the column.
        field: its type.

    Example:
        >>> column = Column("n", Field.parse("int64"))
        >>> column.add(np.arange(3)), column.add([7, None])
        (24, 8)
        >>> found = column.summary()
        >>> found.values, found.missing, found.numbers.most
        (4, 1, 7)
    """

    def __init__(self, name: str, field: Field) -> None:
        self._name = name
        self._field = field
        self._missing = 0
        self._sizes = Numbers()
        self._numbers = Numbers()
        self._shapes: Counter[tuple[int, ...]] = Counter()
        self._common: Counter[str] = Counter()
        self._members: Counter[str] = Counter()
        self._many = False

    def add(self, values: Sequence[Any] | np.ndarray[Any, Any]) -> int:
        """Look at values, as `Records.read` gives them; return how many bytes they have."""
        if isinstance(values, np.ndarray):
            return self._add_arrays(values)
        there = [value for value in values if value is not None]
        self._missing += len(values) - len(there)
        if not there:
            return 0
        kind = self._field.kind
        if kind == "scalar":
            return self._add_arrays(np.array(there, dtype=self._field.numpy_dtype))
        if kind == "ndarray" or isinstance(there[0], np.ndarray):
            return self._add_each([np.asarray(value) for value in there])
        return self._add_sizes(self._looked_at(kind, there))

    def _add_arrays(self, values: np.ndarray[Any, Any]) -> int:
        """Values of one shape, side by side."""
        count = len(values)
        if self._field.kind != "scalar":
            self._shapes[values.shape[1:]] += count
        self._numbers.add(values)
        one = values.nbytes // count if count else 0
        self._sizes.add(np.full(count, one, dtype=np.int64))
        return int(values.nbytes)

    def _add_each(self, values: list[np.ndarray[Any, Any]]) -> int:
        self._shapes.update(value.shape for value in values)
        if len({value.dtype for value in values}) == 1 and values[0].dtype.kind in "biufcmM":
            self._numbers.add(np.concatenate([value.reshape(-1) for value in values]))
        return self._add_sizes([value.nbytes for value in values])

    def _add_sizes(self, sizes: Iterable[int]) -> int:
        found = np.array(list(sizes), dtype=np.int64)
        self._sizes.add(found)
        return int(found.sum())

    def _looked_at(self, kind: str, values: list[Any]) -> list[int]:
        """Note what there is to note; the sizes."""
        if kind == "str":
            self._count(value for value in values if len(value) <= _SHORT)
            return [_utf8(value) for value in values]
        if kind == "json":
            self._count(_JSON_KINDS.get(type(value), "null") for value in values)
            for value in values:
                if isinstance(value, dict):
                    self._members.update(map(str, value))
            if len(self._members) > _DISTINCT:
                # Names that are data: a few thousand common ones stay.
                self._members = Counter(dict(self._members.most_common(_DISTINCT // 2)))
            return [_utf8(json.dumps(value, ensure_ascii=False)) for value in values]
        if kind in _MEDIA:
            self._count(_media_format(bytes(value[:16])) for value in values)
        sized = (bytes, bytearray, memoryview)
        return [memoryview(v).nbytes if isinstance(v, sized) else 0 for v in values]

    def _count(self, texts: Iterable[str]) -> None:
        if self._many:
            return
        self._common.update(texts)
        if len(self._common) > _DISTINCT:
            self._many = True
            self._common.clear()

    def summary(self) -> ColumnSummary:
        """What was seen."""
        common = tuple(self._common.most_common(_COMMON))
        if self._field.kind == "str" and common and common[0][1] == 1:
            common = ()
        numeric = self._field.kind in ("scalar", "ndarray")
        return ColumnSummary(
            self._name,
            self._field.description,
            self._sizes.count,
            self._missing,
            self._sizes.histogram(),
            self._numbers.histogram() if numeric else None,
            _unit(self._field) if numeric else None,
            tuple(self._shapes.most_common(_COMMON)),
            common,
            tuple(self._members.most_common(_MEMBERS)),
        )


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _unit(field: Field) -> str | None:
    dtype = field.numpy_dtype
    return np.datetime_data(dtype)[0] if dtype.kind in "mM" else None


def _media_format(start: bytes) -> str:
    for magic, at, name in _MAGIC:
        if start[at : at + len(magic)] == magic:
            return name
    return "other"
