"""Datasets end to end.

Responsible for: `Concat`, and `concat`, which says whether datasets fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import FormatError
from splitpipe.schema import Schema
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Records,
    Rows,
    Values,
    given_array,
    iterate_blocks,
    missing_in_out,
    records_of,
)
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.views.catalogs import ChainedCatalog
from splitpipe.views.following import follow, followers
from splitpipe.views.outcomes import Plain, offers, outcomes, raised
from splitpipe.views.subset import iterate_rows, one

__all__ = ["Concat", "concat"]


def concat(parts: Sequence[Records]) -> Concat:
    """Datasets end to end, all of the same columns.

    Raises:
        FormatError: there is none, or columns differ; the message names the first that does.

    Example:
        >>> from splitpipe.storage.base import MemoryRecords
        >>> one = MemoryRecords(Schema("int64"), {"data": [1, 2]})
        >>> both = concat([one, one])
        >>> both.read(np.array([3, 0]), ["data"])
        {'data': array([2, 1])}
    """
    flat: list[Records] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Concat) else [part])
    if not flat:
        raise FormatError("there is nothing to put end to end: give at least one dataset")
    schema = flat[0].schema
    for number, part in enumerate(flat):
        _check(schema, part.schema, number)
    return (Onward if any(map(offers, flat)) else Concat)(tuple(flat))


def _check(first: Schema, other: Schema, number: int) -> None:
    """Raise unless records of both look alike; how they are stored does not matter."""
    if first.bare != other.bare:
        kinds = [
            f"dicts of {', '.join(s)}" if not s.bare else "plain values" for s in (first, other)
        ]
        raise FormatError(f"records of part 0 are {kinds[0]}, those of part {number} {kinds[1]}")
    for names, here, there in ((first, 0, number), (other, number, 0)):
        for name in names:
            if name not in first or name not in other:
                raise FormatError(
                    f"part {here} has a column {name!r}, part {there} has none: select() the "
                    "columns that all parts have"
                )
    for name, field in first.items():
        if replace(field, compression=None) != replace(other[name], compression=None):
            raise FormatError(
                f"column {name!r} is {field!r} in part 0 and {other[name]!r} in part {number}"
            )


class Concat:
    """Datasets end to end.

    Args:
        parts: of the same columns.
    """

    def __init__(self, parts: tuple[Records, ...]) -> None:
        self.parts = parts
        self.schema: Schema = parts[0].schema
        self._starts = np.array([0, *accumulate(map(len, parts))], dtype=np.int64)
        self.catalog: Catalog | None = None
        catalogs = [part.catalog for part in parts]
        if all(catalog is not None for catalog in catalogs):
            self.catalog = ChainedCatalog(
                [catalog for catalog in catalogs if catalog is not None], self._starts.tolist()
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def get(self, row: int) -> Any:
        """One record, which is faster than `read` for it alone."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return one(self.parts[number], row - int(self._starts[number]))

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        # Parts without rows own no position: the last of equal starts is the one that has some.
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        owners = distinct(owner).tolist()
        if len(owners) == 1:
            number: int = owners[0]
            local: Rows = rows - self._starts[number]
            return self.parts[number].read(local, columns, out)
        pieces: list[tuple[Rows, Batch]] = []
        for number in owners:
            places = np.flatnonzero(owner == number)
            local = rows[places] - self._starts[number]
            pieces.append((places, self.parts[number].read(local, columns)))
        return {name: self._merged(name, rows, pieces, out) for name in columns}

    def _merged(
        self,
        name: str,
        rows: Rows,
        pieces: list[tuple[Rows, Batch]],
        out: Mapping[str, npt.NDArray[Any]] | None,
    ) -> Values:
        given = given_array(self.schema, name, len(rows), out)
        parts = [(places, batch[name]) for places, batch in pieces]
        if self.schema[name].stackable and all(isinstance(v, np.ndarray) for _, v in parts):
            field = self.schema[name]
            target = given
            if target is None:
                target = np.empty((len(rows), *field.fixed_shape), field.numpy_dtype)
            for places, values in parts:
                target[places] = values
            return target
        found: list[Any] = [None] * len(rows)
        for places, values in parts:
            singles = records_of(Schema({name: self.schema[name]}), {name: values})
            for place, record in zip(places.tolist(), singles, strict=True):
                found[place] = record[name]
        if given is not None:
            lost = next(place for place, value in enumerate(found) if value is None)
            raise missing_in_out(name, int(rows[lost]))
        return found

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`; parts that fetch what they give are told what comes."""
        told = followers(self.parts, self._starts.tolist(), order)
        after = None if not told else partial(follow, told)
        return iterate_blocks(self, order, start, stop, after)

    def iterate_rows(self, start: int, stop: int) -> Iterator[Any]:
        """Records ``start`` to ``stop - 1`` in row order: part after part."""
        for first, part in zip(self._starts.tolist(), self.parts, strict=False):
            begin, end = max(start - first, 0), min(stop - first, len(part))
            if begin < end:
                yield from iterate_rows(part, begin, end)

    def layout(self) -> BinLayout:
        """See `Records.layout`: the bins of all parts."""
        segments: list[Segment] = []
        rows = bins = 0
        for part in self.parts:
            for segment in part.layout().segments:
                segments.append(replace(segment, first_row=rows, first_bin=bins, tail=b""))
                rows += segment.rows
                bins += segment.bins
        return BinLayout(segments)

    def close(self) -> None:
        """See `Records.close`: the parts' files are the parts'."""

    def __reduce__(self) -> Any:
        return type(self), (self.parts,)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.parts[:3]))
        more = f", and {len(self.parts) - 3} more" if len(self.parts) > 3 else ""
        return f"[{shown}{more}]"


class Onward(Concat):
    """Datasets end to end of which some go on past a record that cannot be read."""

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`: the parts read ahead side by side."""
        return raised(self.outcomes(order, start, stop))

    def outcomes(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """As `iterate`, with an ``Unreadable`` in the place of a record that cannot be read."""
        parts = [part if offers(part) else _plain(part) for part in self.parts]
        return outcomes(parts, self._starts.tolist(), order, start, stop)


def _plain(part: Records) -> Plain:
    names = tuple(part.schema)
    return Plain(
        lambda rows: records_of(part.schema, part.read(rows, names)), lambda row: one(part, row)
    )
