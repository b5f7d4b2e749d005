"""The rows of one file of a column set, opened when they are wanted.

Responsible for: `FilePart`, the `Records` of one file of CSV, JSON Lines or Parquet that a snapshot
pins; `Openings`, which keeps a bounded number of them open; and copies of remote files.

Rules:
- how many rows a file has, and what they are, stands in the snapshot: what happens to a file later
  changes no number and no order. A file that is gone, or is another one, is an error at each of its
  rows, which names the file and the column set;
- whether it is the same file is asked before every read, so that one that is rewritten while it is
  read is seen;
- indices and copies lie in folders of the server's own, never beside the data.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy.typing as npt

from splitpipe.errors import CorruptRecord, DatasetChanged, FormatError, SplitpipeError
from splitpipe.formats import recognise
from splitpipe.schema import Schema
from splitpipe.server.catalog.columns import header_of
from splitpipe.server.catalog.copies import copied
from splitpipe.server.catalog.listing import FileEntry, entry_of
from splitpipe.server.catalog.locations import Locations
from splitpipe.storage.base import Batch, Catalog, Order, Records, Rows, iterate_blocks
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.stores import told_url

__all__ = ["FilePart", "Openings", "Reading", "open_file"]

MOST_OPEN: Final = 64
_DECODED_NBYTES: Final = 256 << 20
"""Decoded columns of Parquet that all open files together keep."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a column set are read.

    Attributes:
        name: of the column set, for messages.
        format: of the files.
        place: where they lie: a folder, a file, or a url.
        remote: whether that is a url.
        schema: the columns.
        locations: what may be read.
        indices: the folder of indices.
    """

    name: str
    format: str
    place: str
    remote: bool
    schema: Schema
    locations: Locations
    indices: str

    def path_of(self, entry: FileEntry) -> str:
        """Where a file of the set lies."""
        return os.path.join(self.place, entry.name) if entry.name else self.place


def open_file(reading: Reading, entry: FileEntry, *, decoded_nbytes: int) -> Records:
    """The rows of one file, opened.

    Raises:
        DatasetChanged: it is not what it was.
        FormatError: it is damaged, or has other columns.
        StorageError: it cannot be read.
    """
    path = local_path(reading, entry)
    options: dict[str, Any] = {"schema": reading.schema}
    try:
        if reading.format == "parquet":
            options = {"cache_nbytes": decoded_nbytes}
        elif reading.format == "csv":
            names, plain = header_of(path)
            options = options if plain else {**options, "names": names}
        records = recognise(
            [path], format=reading.format, index_dir=reading.indices, workers=1, **options
        )
    except FormatError as error:
        where = told_url(reading.path_of(entry))
        raise type(error)(f"{where} of column set {reading.name!r}: {error}") from error
    try:
        return _fitting(records, reading, entry)
    except BaseException:
        records.close()
        raise


def local_path(reading: Reading, entry: FileEntry) -> str:
    """The path of a file, copied here where it is remote; it is what the entry says.

    Raises:
        DatasetChanged, StorageError: it is not.
    """
    path = reading.path_of(entry)
    if reading.remote:
        return copied(path, entry, reading.locations)
    now = entry_of(reading.locations.inside(path), entry.name, reading.locations)
    if not now.same_as(entry):
        raise changed(reading, entry)
    return path


def changed(reading: Reading, entry: FileEntry) -> DatasetChanged:
    """The error of a file that is another one than the snapshot says."""
    return DatasetChanged(
        errno.ESTALE,
        f"a file of column set {reading.name!r} was changed since: sync the column set, and begin "
        "another iteration",
        told_url(reading.path_of(entry)),
    )


def _fitting(records: Records, reading: Reading, entry: FileEntry) -> Records:
    """Records of the columns that were wanted, if they have them."""
    found, wanted = records.schema, reading.schema
    path = told_url(reading.path_of(entry))
    for name, field in wanted.items():
        if name not in found:
            raise FormatError(
                f"{path} of column set {reading.name!r} has no column {name!r}; its columns: "
                f"{', '.join(found)}"
            )
        if found[name] != field:
            raise FormatError(
                f"{path} of column set {reading.name!r} has a column {name!r} of type "
                f"{found[name].description}, not {field.description}: write it anew, or put it "
                "into a column set of its own"
            )
    if entry.rows is not None and len(records) != entry.rows:
        raise changed(reading, entry)
    return records


class Openings:
    """Keeps the files that were read last open.

    What is dropped is never closed, so that whoever reads from it can finish.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[Any, ...], Records] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, reading: Reading, entry: FileEntry, files_: int) -> Records:
        """An open file, opened unless it is; one of `files_` that may be open together."""
        key = (reading.place, entry.name, *reading.schema)
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        share = _DECODED_NBYTES // max(1, min(files_, MOST_OPEN))
        opened = open_file(reading, entry, decoded_nbytes=share)
        with self._lock:
            self._open[key] = opened
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return opened

    def close(self) -> None:
        """Close all of them; a second call does nothing."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def __reduce__(self) -> Any:
        return Openings, ()


class FilePart:
    """The rows of one file of a column set.

    Args:
        reading: how it is read.
        entry: the file, with its rows.
        openings: shared by the parts of a set.
        files_: how many files the set has.
    """

    catalog: Catalog | None = None

    def __init__(self, reading: Reading, entry: FileEntry, openings: Openings, files_: int) -> None:
        assert entry.rows is not None
        self.schema = reading.schema
        self._reading = reading
        self._entry = entry
        self._openings = openings
        self._files = files_
        self._some: dict[frozenset[str], Reading] = {}

    def __len__(self) -> int:
        return self._entry.rows or 0

    def _opened(self, columns: Sequence[str]) -> Records:
        reading = self._reading
        if reading.format != "parquet" and len(columns) < len(self.schema):
            # Of a row of text, only what is wanted is made a value.
            reading = self._some.get(frozenset(columns), reading)
            if reading is self._reading:
                wanted = [name for name in self.schema if name in columns]
                reading = replace(reading, schema=self.schema.select(wanted))
                self._some[frozenset(columns)] = reading
        try:
            records = self._openings.get(reading, self._entry, self._files)
            if not self._reading.remote:
                local_path(self._reading, self._entry)
            return records
        except SplitpipeError as error:
            raise self._named(error) from error

    def _named(self, error: SplitpipeError) -> SplitpipeError:
        """An error with the file and the column set in it."""
        text = str(error)
        if repr(self._reading.name) in text:
            return error
        if isinstance(error, CorruptRecord | FormatError):
            return type(error)(f"column set {self._reading.name!r}: {text}")
        error.add_note(f"of column set {self._reading.name!r}")
        return error

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `Records.read`."""
        if not columns:
            return {}
        records = self._opened(columns)
        try:
            return records.read(rows, columns, out)
        except SplitpipeError as error:
            raise self._named(error) from error

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `Records.iterate`."""
        return iterate_blocks(self, order, start, stop)

    def layout(self) -> BinLayout:
        """A file is a bin: that is known without opening it."""
        return BinLayout([Segment(0, len(self), 0, 1)]) if len(self) else BinLayout([])

    def close(self) -> None:
        """See `Records.close`: files are the set's."""

    def __reduce__(self) -> Any:
        return FilePart, (self._reading, self._entry, self._openings, self._files)

    def __repr__(self) -> str:
        return f"{told_url(self._reading.path_of(self._entry))} ({len(self)} rows)"
