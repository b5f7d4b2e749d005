"""Iterating over records: how much is read ahead, and by which of the reader's ways.

Responsible for: cutting a range of rows, or of positions of an order, into blocks of bounded
bytes, and announcing the next block while the present one is handed out where the data is not
in memory yet.

Rules:
- small records are the kernel's to iterate over; where a checksum costs a call, they are read in
  whole runs instead (stripes, or bins of a binwise order);
- large records that are in memory are read one by one, at the moment they are asked for: the
  memory of the one before is used again, hot in the cache, which is twice as fast as a list;
- a block that is read and the next one that is announced hold at most `BLOCK_NBYTES` each, or
  one record.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import numpy as np

from splitpipe.storage.reader import ColumnReader, Rows

__all__ = ["ordered", "rows"]

BLOCK_NBYTES = 16 << 20
_BLOCK_RECORDS = 2048
# Where the kernel iterates, a block is nothing but numbers of rows.
_BLOCK_ROWS = 8192
# Records of at least this size, on average, are read one by one.
_LARGE_NBYTES = 8192


class Order(Protocol):
    """What is needed of an order here."""

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``."""


def rows(reader: ColumnReader, start: int, stop: int) -> Iterator[bytes]:
    """Records of consecutive rows."""
    if reader.bins.mean_nbytes >= _LARGE_NBYTES:
        return _large(reader, _consecutive(start, stop))
    if not reader.by_runs:
        # Nothing of ours stands between the kernel and the caller.
        return reader.iterate(_consecutive(start, stop, _BLOCK_ROWS), BLOCK_NBYTES)
    # Lists are chained, not yielded from: that costs 10 ns a record instead of 30. Only lists: what
    # is chained must not raise, or the chain would go on behind it when it is asked again.
    return chain.from_iterable(_rows(reader, start, stop))


def ordered(reader: ColumnReader, order: Order, start: int, stop: int) -> Iterator[bytes]:
    """Records at consecutive positions of an order."""
    if reader.bins.mean_nbytes >= _LARGE_NBYTES:
        return _large(reader, _positions(order, start, stop))
    if not reader.by_runs:
        return reader.iterate(_positions(order, start, stop, _BLOCK_ROWS), BLOCK_NBYTES)
    return chain.from_iterable(_ordered(reader, order, start, stop))


def _consecutive(start: int, stop: int, size: int = _BLOCK_RECORDS) -> Iterator[Rows]:
    for at in range(start, stop, size):
        yield np.arange(at, min(stop, at + size), dtype=np.int64)


def _positions(order: Order, start: int, stop: int, size: int = _BLOCK_RECORDS) -> Iterator[Rows]:
    for at in range(start, stop, size):
        yield order.indices(at, min(stop, at + size))


def _rows(reader: ColumnReader, start: int, stop: int) -> Iterator[list[bytes]]:
    row = start
    while row < stop:
        records = reader.read_run(row, stop)
        if records is not None:
            yield records
            row += len(records)
            continue
        end = min(stop, reader.next_run(row))
        yield from _blocks(reader, _consecutive(row, end))
        row = end


def _ordered(reader: ColumnReader, order: Order, start: int, stop: int) -> Iterator[list[bytes]]:
    groups = getattr(order, "bin_groups", None)
    if groups is None or order.layout != reader.layout:  # type: ignore[attr-defined]
        yield from _blocks(reader, _positions(order, start, stop))
        return
    for group in groups(start, stop):
        loaded = reader.load_bins(group.members) if group.whole else None
        if loaded is None:
            yield from _blocks(reader, _positions(order, group.start, group.stop))
            continue
        places = group.places
        for at in range(0, len(places), _BLOCK_RECORDS):
            yield loaded.take(places[at : at + _BLOCK_RECORDS])


def _blocks(reader: ColumnReader, blocks: Iterator[Rows]) -> Iterator[list[bytes]]:
    """Records of blocks of rows."""
    for block in blocks:
        at = 0
        while at < len(block):
            records = reader.read_ahead(block[at:], BLOCK_NBYTES)
            yield records
            at += len(records)


def _large(reader: ColumnReader, blocks: Iterator[Rows]) -> Iterator[bytes]:
    """Records of blocks of rows, cut to a bounded number of bytes and announced one ahead."""
    pieces = (piece for block in blocks for piece in _cut(reader, block))
    present = next(pieces, None)
    while present is not None:
        following = next(pieces, None)
        if reader.announce(present):
            if following is not None:
                reader.announce(following)
            yield from reader.read_many(present)
        else:
            yield from reader.read_each(present)
        present = following


def _cut(reader: ColumnReader, block: Rows) -> Iterator[Rows]:
    """Parts of a block that hold at most `BLOCK_NBYTES`, or one record."""
    totals = np.cumsum(reader.raw_lengths(block))
    if totals[-1] <= BLOCK_NBYTES:
        yield block
        return
    start = 0
    while start < len(block):
        before = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, before + BLOCK_NBYTES, side="right")))
        yield block[start:stop]
        start = stop
