"""Columns of two datasets side by side.

Responsible for: `Join`, and `join`, which finds for every record its partner.

Rules:
- records come in the order of the left dataset, each at most once: a value that several records of
  the right one have is refused, because a join would repeat records;
- a record without a value to compare has no partner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Records,
    Rows,
    given_array,
    iterate_blocks,
    missing_in_out,
    records_of,
)
from splitpipe.storage.layout import BinLayout
from splitpipe.views.catalogs import SelectedCatalog
from splitpipe.views.named import named_values
from splitpipe.views.selection import Selection
from splitpipe.views.subset import Subset

__all__ = ["Join", "join"]


def join(left: Records, right: Records, *, on: str, how: str, suffix: str) -> Join:
    """The columns of two datasets side by side, where they agree in one value.

    Args:
        left: gives the order.
        right: has every value at most once.
        on: a column of both, or a name in the metadata, or ``"key"`` for the keys.
        how: ``"inner"`` leaves out what has no partner, ``"left"`` keeps it with missing values.
        suffix: is put after a name of ``right`` that ``left`` has too.

    Raises:
        FormatError: ``on`` is not there, is there twice in ``right``, or names clash.

    Example:
        >>> from splitpipe.storage.base import MemoryRecords
        >>> a = MemoryRecords(Schema({"id": "int64", "x": "str"}), {"id": [1, 2], "x": ["a", "b"]})
        >>> b = MemoryRecords(Schema({"id": "int64", "y": "int64"}), {"id": [2, 3], "y": [7, 8]})
        >>> joined = join(a, b, on="id", how="inner", suffix="_right")
        >>> joined.read(np.array([0]), ["x", "y"])
        {'x': ['b'], 'y': array([7])}
    """
    if how not in ("inner", "left"):
        raise FormatError(f'how must be "inner" or "left", not {how!r}')
    names = _right_names(left.schema, right.schema, on, suffix)
    partners = _partners(named_values(left, on, "join on"), named_values(right, on, "join on"), on)
    if how == "inner":
        found = np.flatnonzero(partners >= 0).astype(np.int64)
        return Join(left, right, names, Selection(found), partners[found])
    return Join(left, right, names, Selection(range(len(left))), partners)


def _right_names(left: Schema, right: Schema, on: str, suffix: str) -> dict[str, str]:
    """What the columns of the right dataset are called: name here -> name there."""
    names: dict[str, str] = {}
    for name in right:
        if name == on and on in left:
            continue
        here = f"{name}{suffix}" if name in left else name
        if here in left or here in names:
            raise FormatError(
                f"both datasets have a column {name!r}, and {here!r} is taken: say another "
                "suffix=, or select() other columns first"
            )
        names[here] = name
    return names


def _partners(left: Any, right: Any, on: str) -> Rows:
    """For every value on the left the row on the right that has it, or -1."""
    if all(
        isinstance(values, np.ndarray) and values.dtype.kind in "iu" for values in (left, right)
    ):
        return _sorted_partners(left, right, on)
    rows: dict[Any, int] = {}
    for row, value in enumerate(_plain(right)):
        if value is None or value != value:
            continue
        if rows.setdefault(value, row) != row:
            raise _twice(on, value, rows[value], row)
    found = (rows.get(value, -1) if value is not None else -1 for value in _plain(left))
    return np.fromiter(found, dtype=np.int64, count=len(left))


def _sorted_partners(left: npt.NDArray[Any], right: npt.NDArray[Any], on: str) -> Rows:
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(same):
        at = int(same[0])
        raise _twice(on, ordered[at].item(), int(order[at]), int(order[at + 1]))
    if not len(right):
        return np.full(len(left), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(ordered, left), len(ordered) - 1)
    return np.where(ordered[places] == left, order[places], -1).astype(np.int64)


def _plain(values: Any) -> list[Any]:
    if not isinstance(values, np.ndarray):
        return list(values)
    return list(values) if values.dtype.kind in "mM" else values.tolist()


def _twice(on: str, value: Any, first: int, second: int) -> FormatError:
    return FormatError(
        f"{on} {value!r} is there twice in the right dataset (records {first} and {second}): a "
        "join takes one partner; join the other way round, or subset() the records that are meant"
    )


class Join:
    """Columns of two datasets side by side.

    Args:
        left: the one dataset.
        right: the other.
        names: the columns of ``right``: name here -> name there.
        selection: the rows of ``left``.
        partners: for each of them the row of ``right``, or -1.
    """

    def __init__(
        self,
        left: Records,
        right: Records,
        names: Mapping[str, str],
        selection: Selection,
        partners: Rows,
    ) -> None:
        self._left = left
        self._right = right
        self._names = dict(names)
        self._selection = selection
        self._partners = partners
        fields: dict[str, Field] = dict(left.schema)
        fields.update({here: right.schema[there] for here, there in names.items()})
        self.schema = Schema(fields)
        self.catalog: Catalog | None = None
        if left.catalog is not None:
            self.catalog = SelectedCatalog(left.catalog, selection)

    def __len__(self) -> int:
        return len(self._selection)

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        given = out or {}
        lefts = [name for name in columns if name not in self._names]
        rights = [name for name in columns if name in self._names]
        found: Batch = {}
        if lefts:
            found.update(self._left.read(self._selection.take(rows), lefts, _of(given, lefts)))
        if rights:
            found.update(self._read_right(rows, rights, _of(given, rights)))
        return {name: found[name] for name in columns}

    def _read_right(
        self, rows: Rows, columns: list[str], out: dict[str, npt.NDArray[Any]]
    ) -> Batch:
        partners = self._partners[rows]
        theirs = [self._names[name] for name in columns]
        places = np.flatnonzero(partners >= 0)
        if len(places) == len(rows):
            renamed = {self._names[name]: array for name, array in out.items()}
            batch = self._right.read(partners, theirs, renamed)
            return {name: batch[self._names[name]] for name in columns}
        lost = int(rows[np.flatnonzero(partners < 0)[0]])
        for name in columns:
            if given_array(self.schema, name, len(rows), out) is not None:
                raise missing_in_out(name, lost)
        schema = self._right.schema.select(theirs)
        records = records_of(schema, self._right.read(partners[places], theirs))
        found: dict[str, list[Any]] = {name: [None] * len(rows) for name in columns}
        for place, record in zip(places.tolist(), records, strict=True):
            for name in columns:
                found[name][place] = record[self._names[name]]
        return dict(found)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """See `Records.layout`: where the left dataset's rows lie."""
        return Subset(self._left, self._selection).layout()

    def close(self) -> None:
        """See `Records.close`: the datasets' files are theirs."""

    def __reduce__(self) -> Any:
        return _rejoined, (
            self._left,
            self._right,
            self._names,
            self._selection,
            # A selection has no rows below 0: who has no partner is 0 on the way.
            Selection(self._partners + 1),
        )

    def __repr__(self) -> str:
        return f"{len(self)} of {self._left!r} joined with {self._right!r}"


def _rejoined(
    left: Records, right: Records, names: dict[str, str], selection: Selection, partners: Selection
) -> Join:
    return Join(left, right, names, selection, partners.indices(0, len(partners)) - 1)


def _of(out: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    return {name: out[name] for name in names if name in out}
