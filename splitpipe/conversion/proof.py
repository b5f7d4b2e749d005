"""Whether a copy is what its source is.

Responsible for: `Compare`, which compares a block of two datasets in a worker, and `differs`, which
compares the values of one column.

Rules:
- values are compared as readers get them, not as they are stored: what a codec would lose is found;
- equal means the same bits: NaN equals the same NaN, 0.0 does not equal -0.0, and 1 does not equal
  1.0 or True; JSON is equal if it is written alike: a tuple is a list, and the name 1 is "1".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from splitpipe.codecs import Reading, codec
from splitpipe.conversion.blocks import Reader, Rowset, name_of
from splitpipe.schema import Field
from splitpipe.storage.base import Rows, Values

__all__ = ["Compare", "Compared", "differs"]

_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Compared:
    """What came out for a block.

    Attributes:
        count: how many records are equal.
        difference: what differs first, in words; ``None`` if nothing does.
    """

    count: int
    difference: str | None = None


class Compare:
    """Compares blocks of two datasets; travels to workers.

    Args:
        source: what was copied.
        copy: what came of it.
    """

    def __init__(self, source: Reader, copy: Reader) -> None:
        self._source = source
        self._copy = copy

    def __call__(self, start: int) -> Compared:
        """Compare the block that begins with row ``start``."""
        return self.rows(self._source.rows(start))

    def rows(self, rows: Rows) -> Compared:
        """Compare records at some rows.

        Raises:
            CorruptRecord: one of them cannot be read.
        """
        mine, theirs = self._source.read(rows), self._copy.read(rows)
        schema = self._source.dataset.schema
        places: list[tuple[int, str, Any, Any]] = []
        for name, field in schema.items():
            wanted, found = mine.values[name], theirs.values[name]
            at = differs(field, wanted, found)
            if at is not None:
                places.append((at, f"column {name!r}", wanted[at], found[at]))
        places += _catalog(mine, theirs)
        if not places:
            return Compared(len(rows))
        at, what, one, other = min(places, key=lambda place: place[0])
        return Compared(
            at,
            f"{what} of record {rows[at]} of {name_of(self._copy.dataset)} is {_short(other)}, "
            f"in {name_of(self._source.dataset)} it is {_short(one)}",
        )

    def __reduce__(self) -> Any:
        return Compare, (self._source, self._copy)


def _catalog(mine: Rowset, theirs: Rowset) -> list[tuple[int, str, Any, Any]]:
    """Where keys and metadata differ first."""
    found = []
    pairs: list[tuple[str, Sequence[Any] | None, Sequence[Any] | None, Callable[[Any], Any]]] = [
        ("the key", mine.keys, theirs.keys, lambda key: key),
        ("the metadata", mine.metas, theirs.metas, _json),
    ]
    for what, wanted, there, form in pairs:
        if wanted is None:
            continue
        ours = [None] * len(wanted) if there is None else there
        at = _first(wanted, ours, form)
        if at is not None:
            found.append((at, what, wanted[at], ours[at]))
    return found


def differs(field: Field, wanted: Values, found: Values) -> int | None:
    """Where two lists of values of a column differ first; ``None`` if they do not.

    Example:
        >>> differs(Field("scalar", "float64"), [0.0, None], [-0.0, None])
        0
        >>> differs(Field("json"), [(1, {2: float("nan")})], [[1, {"2": float("nan")}]])
    """
    if isinstance(wanted, np.ndarray) and isinstance(found, np.ndarray):
        if _same_arrays(wanted, found):
            return None
    elif field.kind in ("str", "bytes") and wanted == found:
        return None  # in one loop of C
    return _first(wanted, found, _FORMS.get(field.kind, bytes), field)


def _first(
    wanted: Sequence[Any] | Values,
    found: Sequence[Any] | Values,
    form: Callable[[Any], Any],
    field: Field | None = None,
) -> int | None:
    for at, (one, other) in enumerate(zip(wanted, found, strict=True)):
        if one is None or other is None:
            if one is not other:
                return at
        elif field is not None and field.kind in ("scalar", "ndarray"):
            dtype = field.numpy_dtype
            if not _same_arrays(_as_array(one, dtype), _as_array(other, dtype)):
                return at
        elif form(one) != form(other):
            return at
    return None


def _as_array(value: Any, dtype: np.dtype[Any]) -> Any:
    """A value as an array; what Python's own numbers and lists are of, the column says."""
    return np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, dtype)


def _same_arrays(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As bytes, which NaN and the sign of zero do not escape.
    return bool(np.array_equal(_bits(one), _bits(other)))


def _bits(array: Any) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pickled(value: Any) -> bytes:
    # Once through: what objects share among each other is then what a reader's objects share.
    packer = codec(Field("pickle"), reading=Reading(allow_pickle=True))
    return packer.encode(packer.decode(packer.encode(value)))


_FORMS: Final[dict[str, Callable[[Any], Any]]] = {"str": str, "json": _json, "pickle": _pickled}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
