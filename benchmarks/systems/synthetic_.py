"""A dataset of our own format, made of arrays instead of by a writer: ten times as fast.

Rules: follows ``docs/format.md``; what comes out passes `splitpipe.check_dataset` whole, which a
test asks for, so that nothing is measured that a writer could not have written.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

import splitpipe as sp
from splitpipe.storage.format import (
    ENTRY_DTYPE,
    FILE_HEADER_NBYTES,
    MANIFEST_NAME,
    RECORD_HEADER_DTYPE,
    RECORD_HEADER_NBYTES,
    RUN_RECORDS,
    file_header,
    file_name,
    index_seed,
    place,
    places,
    record_seed,
    run_seed,
)
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.manifest import Column, Manifest, encode

__all__ = ["SyntheticDataset", "make_dataset"]

BINS = 64
STRIPE_ROWS = BINS * RUN_RECORDS
# How many stripes are made at once.
AT_ONCE = 64
DATASET = b"made of arrays.."
_RECORD = np.dtype([*((n, RECORD_HEADER_DTYPE[n]) for n in RECORD_HEADER_DTYPE.names or ()),
                    ("payload", "<u4")])  # fmt: skip
_RUN_NBYTES = RUN_RECORDS * _RECORD.itemsize

Words = npt.NDArray[np.uint32]


def _tables() -> tuple[Words, Words]:
    """What the low and the high half of a word add to its CRC32C, which is linear in both."""
    empty = 0xFFFFFFFF  # as a start, it leaves the register at zero
    low, high = (
        np.array(
            [google_crc32c.extend(empty, (half << shift).to_bytes(4, "little")) for half in halves],
            dtype=np.uint32,
        )
        for shift, halves in ((0, range(1 << 16)), (16, range(1 << 16)))
    )
    return ~low, ~high


def _checksums(starts: Words, words: Words, tables: tuple[Words, Words]) -> Words:
    """``crc(start, word)`` for each pair."""
    mixed = ~starts ^ words
    low, high = tables
    return ~(low[mixed & 0xFFFF] ^ high[mixed >> 16])


def _manifest(stripes: int) -> Manifest:
    rows = stripes * STRIPE_ROWS
    size = FILE_HEADER_NBYTES + stripes * _RUN_NBYTES
    layout = BinLayout([Segment(0, rows, 0, BINS)])
    column = Column("data", sp.Field.parse("bytes"), 0, (size,) * BINS, layout)
    return Manifest(DATASET, 1, 1, rows, (column,))


class _Maker:
    """Makes stripe after stripe."""

    def __init__(self, bins: list[BinaryIO], index: BinaryIO, sums: BinaryIO) -> None:
        self._bins, self._index, self._sums = bins, index, sums
        self._tables = _tables()
        seeds = [record_seed(DATASET, 0, number) for number in range(BINS)]
        self._seeds = np.array(seeds, dtype=np.uint32)
        self._run_seeds = [run_seed(DATASET, 0, number) for number in range(BINS)]
        self._index_seed = index_seed(DATASET, 0)

    def make(self, first: int, stripes: int) -> None:
        """Write some stripes, from number `first` on."""
        rows = first * STRIPE_ROWS + np.arange(stripes * STRIPE_ROWS, dtype=np.int64)
        rows = rows.reshape(-1, BINS)  # a line is a round, a column a bin
        records = rows // BINS
        offsets = FILE_HEADER_NBYTES + records * _RECORD.itemsize + RECORD_HEADER_NBYTES
        mixed = places(offsets.view(np.uint64), rows)
        starts = self._seeds ^ mixed.astype(np.uint32)
        words = rows.astype(np.uint32)
        crcs = _checksums(starts, words, self._tables)
        entries = np.zeros(rows.shape, dtype=ENTRY_DTYPE)
        entries["offset"], entries["length"], entries["crc"] = offsets, 4, crcs
        entries["bin"] = np.arange(BINS)
        self._index.write(entries)
        made = np.zeros((BINS, len(rows)), dtype=_RECORD)  # a line is a bin
        made["crc"], made["length"], made["payload"] = crcs.T, 4, words.T
        made["row_low"], made["row_high"] = words.T, (rows >> 32).T
        for number, file in enumerate(self._bins):
            file.write(made[number])
        pages = memoryview(entries).cast("B")
        runs = memoryview(made).cast("B")
        for stripe in range(stripes):
            self._sum(first + stripe, stripe, pages, runs)

    def _sum(self, stripe: int, at: int, pages: memoryview, runs: memoryview) -> None:
        """Write the checksums of one stripe, which is number `at` of those in memory."""
        row = stripe * STRIPE_ROWS
        nbytes = STRIPE_ROWS * ENTRY_DTYPE.itemsize
        page = bytes(pages[at * nbytes : (at + 1) * nbytes])
        found = [google_crc32c.extend(place(self._index_seed, 0, row), page)]
        offset = FILE_HEADER_NBYTES + stripe * _RUN_NBYTES
        for number, seed in enumerate(self._run_seeds):
            begin = number * (len(runs) // BINS) + at * _RUN_NBYTES
            run = bytes(runs[begin : begin + _RUN_NBYTES])
            found.append(google_crc32c.extend(place(seed, offset, row + number), run))
        self._sums.write(np.array(found, dtype="<u4"))


def make_dataset(directory: Path, stripes: int) -> int:
    """Make a dataset of whole stripes; gives the number of records."""
    directory.mkdir(parents=True)
    manifest = _manifest(stripes)
    column = manifest.columns[0]
    with ExitStack() as stack:

        def created(kind: str, number: int = 0) -> BinaryIO:
            identity = manifest.file_id(kind, column, number)
            file = stack.enter_context((directory / file_name(identity)).open("wb"))
            file.write(file_header(identity))
            return file

        bins = [created("bin", number) for number in range(BINS)]
        maker = _Maker(bins, created("index"), created("sums"))
        for first in range(0, stripes, AT_ONCE):
            maker.make(first, min(AT_ONCE, stripes - first))
    (directory / MANIFEST_NAME).write_bytes(encode(manifest))
    return manifest.rows


class SyntheticDataset:
    """Made as above, opened as every dataset is."""

    def make(self, directory: Path, stripes: int) -> int:
        """See `make_dataset`."""
        return make_dataset(directory, stripes)

    def open(self, directory: Path) -> Any:
        """Checksums on."""
        return sp.open_dataset(directory)
