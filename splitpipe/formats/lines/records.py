"""Records that lie one by one in files: read by place, decoded one at a time.

Responsible for: `IndexedRecords`, the `Records` of every format whose index says where each record
lies; the layout of such sources for binwise orders; and saying which file, line and byte a record
that cannot be decoded has.

Rules:
- a record is decoded when it is read, and refused if it is broken: never replaced;
- pickled, they are the source, the options and the index's identity: whoever opens them again gets
  the same rows or an error that says that the source changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.base import Indexing, Source
from splitpipe.formats.files import compressed
from splitpipe.formats.files.sources import OpenFile, Places, Readable, SourceFiles, read_places
from splitpipe.formats.indexing.build import Scanner
from splitpipe.formats.indexing.index import Index
from splitpipe.formats.indexing.kept import open_index
from splitpipe.formats.lines.finding import where
from splitpipe.formats.recognise import load
from splitpipe.schema import Field, Schema
from splitpipe.storage.base import (
    Batch,
    Catalog,
    Order,
    Rows,
    given_array,
    missing_in_out,
    records_of,
)
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Decoder", "IndexedRecords", "Opening"]

_BINS = 64
_FEW = 4
_BLOCK_RECORDS = 1024
_BLOCK_NBYTES = 4 << 20
_SMALLEST_BIN_NBYTES = 1 << 20
_LARGEST_BIN_NBYTES = 64 << 20


class Decoder(Protocol):
    """Bytes of one record -> its values."""

    @property
    def schema(self) -> Schema:
        """What records are made of."""

    def decode(self, data: bytes) -> Any:
        """The value, of a schema that is bare; else the values by column.

        Of these, one that is absent or ``None`` is missing.

        Raises:
            ValueError: the bytes are no record.
        """


@dataclass(frozen=True, slots=True)
class Opening:
    """How some records were opened, to be opened again in another process.

    Attributes:
        format: the format's name.
        source: where they lie.
        indexing: where their index is kept.
        options: of the format.
    """

    format: str
    source: Source
    indexing: Indexing
    options: Mapping[str, Any]


class IndexedRecords:
    """Records that an index finds in files.

    Args:
        opening: how to open them again.
        paths: the files, absolute, in order.
        scanner: finds the records.
        decoder: reads one.

    Attributes:
        schema: the columns of a record.
        catalog: ``None``: there are no keys.
        index: where each record lies.
        skipped: how many broken records were left out.
    """

    def __init__(
        self, opening: Opening, paths: Sequence[str], scanner: Scanner, decoder: Decoder
    ) -> None:
        self.schema: Schema = decoder.schema
        self.catalog: Catalog | None = None
        self.index: Index = open_index(scanner, opening.source, paths, opening.indexing)
        self._opening = opening
        self._decode = decoder.decode
        self._blocks = compressed.BlockCache()
        self._files = SourceFiles(
            paths, [one.known_by for one in self.index.files], within=self._within
        )

    def _within(self, number: int, file: OpenFile) -> Readable:
        kind = self.index.files[number].notes.get("compression")
        if kind is None:
            return file
        return compressed.expanded_file(kind, file, self.index.blob(number), self._blocks)

    @property
    def skipped(self) -> int:
        """How many broken records were left out."""
        return self.index.skipped

    def __len__(self) -> int:
        return int(self.index.rows)

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `splitpipe.storage.base.Records.read`."""
        values = self._decoded(rows)
        batch: Batch = {}
        for name in columns:
            array = given_array(self.schema, name, len(rows), out)
            one = values if self.schema.bare else [each.get(name) for each in values]
            batch[name] = _column(self.schema[name], one, name, rows, array)
        return batch

    def _decoded(self, rows: Rows) -> list[Any]:
        if len(rows) <= _FEW:
            # Arrays of a few values would cost more than the reading.
            return [self._decoded_one(row) for row in rows.tolist()]
        places = Places(*self.index.extents(rows))
        decode = self._decode
        values: list[Any] = []
        for data in read_places(self._files, places):
            try:
                values.append(decode(data))
            except (ValueError, RecursionError) as error:
                at = len(values)
                raise self._broken(
                    int(places.numbers[at]), int(places.offsets[at]), error
                ) from error
        return values

    def _decoded_one(self, row: int) -> Any:
        number, offset, length = self.index.extent(row)
        data = self._files.open(number).read(offset, length)
        try:
            return self._decode(data)
        except (ValueError, RecursionError) as error:
            raise self._broken(number, offset, error) from error

    def _broken(self, number: int, offset: int, error: Exception) -> FormatError:
        file = OpenFile(self._files.paths[number])
        try:
            self._files.compare(number, file)
        except FormatError as changed:
            return changed
        return CorruptRecord(
            f"{where(file, offset)}: {error}; mend it, or leave such records out with broken='skip'"
        )

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `splitpipe.storage.base.Records.iterate`."""
        names = tuple(self.schema)
        for rows in self._blocks_of(order, start, stop):
            if self.schema.bare:
                yield from self._decoded(rows)
            else:
                yield from records_of(self.schema, self.read(rows, names))

    def _blocks_of(self, order: Order, start: int, stop: int) -> Iterator[Rows]:
        """Rows in blocks of at most `_BLOCK_NBYTES` of source, or one record."""
        count = 16
        at = start
        while at < stop:
            rows = order.indices(at, min(stop, at + count))
            lengths = self.index.extents(rows)[2]
            fitting = int(np.searchsorted(np.cumsum(lengths), _BLOCK_NBYTES, side="right"))
            rows = rows[: max(1, fitting)]
            yield rows
            at += len(rows)
            count = min(_BLOCK_RECORDS, 4 * len(rows))

    def layout(self) -> BinLayout:
        """Stretches of neighbours: parts of large files, several small files together."""
        sizes = [file.known_by.size for file in self.index.files]
        most = min(max(sum(sizes) // _BINS, _SMALLEST_BIN_NBYTES), _LARGEST_BIN_NBYTES)
        bounds = [0]
        held = 0
        for file, size in zip(self.index.files, sizes, strict=True):
            stop = file.first_row + file.rows
            cuts = min(size // most, file.rows)
            bounds += [file.first_row + file.rows * cut // cuts for cut in range(1, cuts)]
            held = held + size if cuts < 2 else size // cuts
            if held >= most:
                bounds.append(stop)
                held = 0
        bounds.append(len(self))
        kept = sorted(set(bounds))
        return BinLayout(
            [
                Segment(first, last - first, number, 1)
                for number, (first, last) in enumerate(pairwise(kept))
            ]
        )

    def close(self) -> None:
        """Let go of the files; a second call does nothing."""
        self._files.close()
        self.index.close()

    def __reduce__(self) -> Any:
        opening = self._opening
        again = Opening(
            opening.format,
            Source(opening.source.paths, opening.source.folder),
            Indexing(opening.indexing.index_dir),
            dict(opening.options),
        )
        return _reopen, (again, self.index.identity)

    def __repr__(self) -> str:
        source = self._opening.source
        place = source.paths[0] if len(source.paths) == 1 else f"{len(source.paths)} files"
        return f"IndexedRecords({self._opening.format}: {place}, {len(self)} records)"


def _column(
    field: Field, values: list[Any], name: str, rows: Rows, given: npt.NDArray[Any] | None
) -> list[Any] | npt.NDArray[Any]:
    """The values of a column as `Records.read` gives them."""
    missing = next((at for at, value in enumerate(values) if value is None), None)
    if not field.stackable:
        return values
    if missing is not None:
        if given is not None:
            raise missing_in_out(name, int(rows[missing]))
        return values
    shape = (len(values), *field.fixed_shape)
    target = np.empty(shape, field.numpy_dtype) if given is None else given
    for at, value in enumerate(values):
        target[at] = value
    return target


def _reopen(opening: Opening, identity: bytes) -> IndexedRecords:
    records = load(opening.format).open(opening.source, opening.indexing, **opening.options)
    assert isinstance(records, IndexedRecords)
    if records.index.identity != identity:
        place = opening.source.paths[0]
        raise FormatError(
            f"{place} is not what it was when this dataset was pickled: its files changed since; "
            "open it again"
        )
    return records
