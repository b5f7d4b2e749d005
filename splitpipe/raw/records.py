"""Samples whose columns are files that a table names.

Responsible for: `RawRecords`, the `Records` of a table some of whose columns are fetched, compared
with what the table says of them, and decoded, when a sample is read; and `Fetched`, what is known
of such a column.

Rules:
- only columns that are asked for are fetched; the table alone answers for the others;
- a sample is what its row says, or an error that names the sample, its row, its column and its url:
  never another sample, never a part of one. A cell without a path or url is a missing value;
- whatever is read ahead is bounded, and given up when nobody wants it any more;
- some rows of it are the same records over fewer rows of the table: a view reads ahead as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.formats.chunks import column_of
from splitpipe.raw.failing import Failing
from splitpipe.raw.fetching import Fetcher, checked
from splitpipe.raw.locations import Location, Rules
from splitpipe.raw.tables import Table
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import Batch, Catalog, Order, Rows, Unreadable, given_array, records_of
from splitpipe.storage.layout import BinLayout
from splitpipe.views import Selection, subset
from splitpipe.views.catalogs import SelectedCatalog
from splitpipe.views.outcomes import raised

__all__ = ["Fetched", "RawRecords"]

_BLOCK = 256
"""Rows of the table that are read at once."""

_UNKNOWN = 8
"""Samples that are fetched ahead before it is known how large they are."""

_HELD_NBYTES = 64 << 20
"""Bytes of files that are held ahead of whoever reads, about."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A column whose values are files.

    Attributes:
        source: the column of the table that says where they lie.
        field: what a sample has.
        decode: makes that of a file's bytes; ``None``: the bytes themselves.
        size, md5, sha256: columns of the table that say what the bytes are.
    """

    source: str
    field: Field
    decode: Callable[[bytes], Any] | None = None
    size: str | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of the table that have to be read for it."""
        sums = (self.size, self.md5, self.sha256)
        return (self.source, *(name for name in sums if name is not None))


@dataclass(slots=True)
class _Cell:
    """A value that is under way.

    Attributes:
        row: the row of the table.
        name: of the column.
        text: what the table says of where it lies.
        said: what the table says of its bytes.
        task: reads it; ``None``: it is missing.
        error: why it cannot be read.
    """

    row: int
    name: str
    text: str
    said: Mapping[str, Any]
    task: Future[bytes] | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Coming:
    """A sample that is under way: its row here, what the table gives, what is fetched."""

    row: int
    given: Mapping[str, Any]
    cells: Sequence[_Cell] = ()
    error: Exception | None = None

    def cancel(self) -> None:
        for cell in self.cells:
            if cell.task is not None:
                cell.task.cancel()


class RawRecords:
    """The samples of a table.

    Args:
        table: says where files lie.
        fetched: the columns that are files, by their name in a sample.
        columns: all columns of a sample, in order.
        rules: what the table may name.
        fetcher: reads files.
        selection: the rows of the table that are samples; all of them unless given.
        ahead: samples that are fetched ahead of whoever reads.
        owner: whether closing this closes table and fetcher; views do not.
    """

    def __init__(
        self,
        table: Table,
        fetched: Mapping[str, Fetched],
        columns: Sequence[str],
        *,
        rules: Rules,
        fetcher: Fetcher,
        selection: Selection | None = None,
        ahead: int = 32,
        owner: bool = True,
    ) -> None:
        self.table = table
        self.fetched = {name: column for name, column in fetched.items() if name in columns}
        self.rules = rules
        self.fetcher = fetcher
        self.selection = selection
        self.schema = Schema(
            {
                name: fetched[name].field if name in fetched else table.records.schema[name]
                for name in columns
            }
        )
        self.catalog: Catalog | None = table.catalog
        if selection is not None:
            self.catalog = SelectedCatalog(table.catalog, selection)
        self._ahead = ahead
        self._owner = owner
        self._failing = Failing(table, rules)
        self._reached: tuple[Order | None, int] = None, 0
        self._mean: float | None = None  # bytes of a sample's files

    def __len__(self) -> int:
        return len(self.table.records) if self.selection is None else len(self.selection)

    @property
    def identity(self) -> str:
        """Stands for the samples and their order: a state of another table is refused by it."""
        return self.table.identity_of(self.selection)

    @property
    def together(self) -> int:
        """Samples whose files come at a time."""
        return self.fetcher.access.concurrency if self.fetched else 1

    def prefetch(self, rows: Rows) -> None:
        """Have the files of some rows come into the cache, if there is one; waits for none."""
        if self.fetcher.access.cache_dir is not None and self.fetched:
            self.fetcher.prefetch(list(self.locations(rows)))

    # -- views -----------------------------------------------------------------------------

    def selected(self, selection: Selection) -> RawRecords:
        """The same records over some of their rows."""
        rows = selection if self.selection is None else self.selection.then(selection)
        return self._viewed(tuple(self.schema), rows)

    def chosen(self, columns: Sequence[str]) -> RawRecords:
        """The same records with some of their columns; the others are not fetched."""
        return self._viewed(self.schema.checked_names(columns), self.selection)

    def _viewed(self, columns: Sequence[str], selection: Selection | None) -> RawRecords:
        return RawRecords(
            self.table,
            self.fetched,
            columns,
            rules=self.rules,
            fetcher=self.fetcher,
            selection=selection,
            ahead=self._ahead,
            owner=False,
        )

    # -- reading ---------------------------------------------------------------------------

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `splitpipe.storage.base.Records.read`: all files of a batch are fetched at once."""
        arrays = {name: given_array(self.schema, name, len(rows), out) for name in columns}
        plain = [name for name in columns if name not in self.fetched]
        batch: Batch = {}
        if plain:
            ours = {name: array for name, array in arrays.items() if array is not None}
            own = {name: ours[name] for name in plain if name in ours}
            batch = self.table.records.read(self.table_rows(rows), plain, own or None)
        names = [name for name in columns if name in self.fetched]
        coming = self._begun(rows, names)
        try:
            values = [self._values(one) for one in coming]
        finally:
            for one in coming:
                one.cancel()
        for name in names:
            column = [each[name] for each in values]
            batch[name] = column_of(self.schema, name, rows, column, arrays[name])
        return {name: batch[name] for name in columns}

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `splitpipe.storage.base.Records.iterate`."""
        return raised(self.outcomes(order, start, stop))

    def outcomes(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """As `iterate`, with an `Unreadable` in the place of a sample that cannot be read."""
        window: deque[_Coming] = deque()
        at = start
        try:
            while True:
                room = self._room()
                step = max(1, min(_BLOCK, room // 4))  # rows of the table are read together
                while at < stop and len(window) + step <= room:
                    end = min(stop, at + step)
                    window.extend(self._begun(order.indices(at, end), [*self.fetched], whole=True))
                    at = end
                    if at == stop:
                        self.ahead(order, stop)
                if not window:
                    return
                one = window.popleft()
                try:
                    values = self._values(one)
                except Exception as error:
                    yield Unreadable(one.row, error)
                    continue
                self._learn(sum(map(_size, one.cells)))
                del one
                yield {name: values[name] for name in self.schema}
                del values
        finally:
            for one in window:
                one.cancel()

    def _room(self) -> int:
        """Samples that may be under way: few before it is known how large they are."""
        if self._mean is None:
            return min(self._ahead, _UNKNOWN)
        return max(1, min(self._ahead, int(_HELD_NBYTES / max(self._mean, 1.0))))

    def _learn(self, nbytes: int) -> None:
        """Take note of the size of a sample's files."""
        mean = self._mean
        self._mean = float(nbytes) if mean is None else mean + (nbytes - mean) / 8

    def _begun(self, rows: Rows, names: Sequence[str], *, whole: bool = False) -> list[_Coming]:
        """Samples whose files are on their way.

        Args:
            rows: of these records.
            names: columns that are fetched.
            whole: whether the columns that the table gives are wanted as well.
        """
        plain = [name for name in self.schema if name not in self.fetched] if whole else []
        needed = dict.fromkeys([*plain, *(n for name in names for n in self.fetched[name].needs)])
        coming: list[_Coming] = []
        for row, given in zip(rows.tolist(), self._given(rows, tuple(needed)), strict=True):
            if isinstance(given, Exception):
                coming.append(_Coming(row, {}, error=given))
                continue
            place = self._table_row(row)
            cells = [self._cell(place, name, given) for name in names]
            coming.append(_Coming(row, {name: given[name] for name in plain}, cells))
        return coming

    def _given(self, rows: Rows, names: tuple[str, ...]) -> list[Any]:
        """What the table says of rows: a dict each, or why it cannot be read."""
        if not names:
            return [{} for _ in rows]
        records, schema = self.table.records, self.table.records.schema.select(names)
        places = self.table_rows(rows)
        try:
            return records_of(schema, records.read(places, names))
        except Exception as error:
            if len(rows) == 1:
                return [error]
            return [self._given(rows[at : at + 1], names)[0] for at in range(len(rows))]

    def _cell(self, row: int, name: str, given: Mapping[str, Any]) -> _Cell:
        """Begin to fetch one value."""
        column = self.fetched[name]
        text = given[column.source]
        said = {
            what: given[other]
            for what, other in (
                ("size", column.size),
                ("md5", column.md5),
                ("sha256", column.sha256),
            )
            if other is not None
        }
        cell = _Cell(row, name, text, said)
        if text is not None and text != "":
            try:
                cell.task = self.fetcher.start(self.rules.locate(text))
            except Exception as error:
                cell.error = error
        return cell

    def _values(self, one: _Coming) -> dict[str, Any]:
        """What a sample has, when it has come."""
        if one.error is not None:
            raise one.error
        return {**one.given, **{cell.name: self._value(one.row, cell) for cell in one.cells}}

    def _value(self, row: int, cell: _Cell) -> Any:
        column = self.fetched[cell.name]
        try:
            if cell.error is not None:
                raise cell.error
            if cell.task is None:
                return None
            data = checked(cell.task.result(), **cell.said)
            return data if column.decode is None else column.decode(data)
        except Exception as error:
            raise self._failing.told(error, row, cell.row, cell.name, cell.text) from error

    def ahead(self, order: Order, stop: int) -> None:
        """An order is read up to a position: have what is behind it come into the cache, where
        others will ask for it.
        """
        if self.fetcher.access.cache_dir is None or not self.fetched:
            return
        until = min(len(order), stop + self._ahead)
        known, reached = self._reached
        # Half of it again, and not every position anew with every claim.
        start = reached if known == order and stop <= reached else stop
        if until - start <= self._ahead // 2 and until < len(order):
            return
        self._reached = order, until
        self.prefetch(order.indices(start, until))

    def locations(self, rows: Rows) -> Iterator[Location]:
        """Where the files of rows lie; what cannot be said is left out."""
        names = tuple(dict.fromkeys(column.source for column in self.fetched.values()))
        for given in self._given(rows, names):
            if isinstance(given, Exception):
                continue
            for text in given.values():
                try:
                    if text:
                        yield self.rules.locate(text)
                except FormatError:
                    continue

    # -- rows and the rest -----------------------------------------------------------------

    def table_rows(self, rows: Rows) -> Rows:
        """The rows of the table that some rows are."""
        return rows if self.selection is None else self.selection.take(rows)

    def _table_row(self, row: int) -> int:
        return row if self.selection is None else int(self.selection.rows[row])

    def layout(self) -> BinLayout:
        """See `splitpipe.storage.base.Records.layout`: as the table's."""
        if self.selection is None:
            return self.table.records.layout()
        return subset(self.table.records, self.selection).layout()

    def close(self) -> None:
        """Let go of table, threads, connections and cache; a second call does nothing."""
        if self._owner:
            self.table.close()
            self.fetcher.close()

    def __reduce__(self) -> Any:
        return _again, (
            self.table,
            self.fetched,
            tuple(self.schema),
            self.rules,
            self.fetcher,
            self.selection,
            self._ahead,
        )

    def __fingerprint__(self) -> Any:
        """What decides the samples: not how files come."""
        return self.identity, self.schema.to_json(), self.fetched, self.rules.base

    def __repr__(self) -> str:
        names = ", ".join(self.fetched) or "nothing"
        return f"{len(self)} samples of {self.table.name}, {names} fetched"


def _again(
    table: Table,
    fetched: Mapping[str, Fetched],
    columns: Sequence[str],
    rules: Rules,
    fetcher: Fetcher,
    selection: Selection | None,
    ahead: int,
) -> RawRecords:
    return RawRecords(
        table, fetched, columns, rules=rules, fetcher=fetcher, selection=selection, ahead=ahead
    )


def _size(cell: _Cell) -> int:
    if cell.task is None or cell.task.cancelled() or cell.task.exception() is not None:
        return 0
    return len(cell.task.result())


def rows_of(values: Sequence[int]) -> Rows:
    """Row numbers as reading takes them."""
    return np.array(values, dtype=np.int64)
