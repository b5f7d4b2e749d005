"""The kernel in Python: what the one in C means, and what runs where that was not built.

Responsible for: `Column`, which locates, copies and verifies records of one column whose files
are mapped already.

Rules:
- it only ever decides "all is well": what is not plainly right is handed back, for somebody who
  looks step by step and knows what to say;
- nothing is allocated before an entry was compared with the committed size of its bin;
- a record is verified as it is returned, after it was copied;
- attaching and detaching bins, closing, and reading may meet in several threads: whoever is
  reading keeps what he reads from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitpipe.storage.format import (
    ENTRY,
    ENTRY_DTYPE,
    ENTRY_NBYTES,
    FILE_HEADER_NBYTES,
    OFFSET_FACTOR,
    RECORD_HEADER_NBYTES,
    ROW_FACTOR,
    places,
)
from splitpipe.storage.native.probe import would_wait

__all__ = ["BY_RUNS", "COLD", "NAME", "Column", "crc32c", "permuted"]

Rows = npt.NDArray[np.int64]

NAME = "python"
# What `Column.gather` says of a batch that the disk would have to be asked for.
COLD = -1
# Whether neighbours are better read in runs than record by record: a call for a checksum costs
# 100 ns here.
BY_RUNS = True
# ``permuted(out, start, size, bits, keys)`` fills an int64 array with positions of a
# `KeyedPermutation`; none here, where numpy does as well what is defined there.
permuted: Callable[[Rows, int, int, int, tuple[int, ...]], None] | None = None

_extend = google_crc32c.extend
_unpack = ENTRY.unpack_from
# Batches smaller than this are not probed: announcing them gains nothing.
_WORTH_PROBING = 4
# Records that are held at once while iterating.
_LIST_NBYTES = 16 << 20
_FIRST = FILE_HEADER_NBYTES + RECORD_HEADER_NBYTES


def crc32c(data: Any, start: int = 0) -> int:
    """CRC32C of bytes, continued from the checksum of what came before.

    Args:
        data: any contiguous buffer.
        start: the checksum so far.

    Example:
        >>> hex(crc32c(b"123456789")), crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
        ('0xe3069283', True)
    """
    return int(_extend(start, data if isinstance(data, bytes) else bytes(data)))


class Column:
    """Records of one column, by row.

    Args:
        entries: the index entries of all rows, ``format.ENTRY_NBYTES`` each.
        sizes: committed size of every bin's file.
        seeds: start values of the record checksums, one a bin.
        verify: whether records are compared with their checksums.

    Attributes:
        probes: how many records of a batch `gather` looks for in memory before it reads. Set it to
            3 where the disk had to be asked; it goes back to 1 by itself.
    """

    __slots__ = (
        "_entries",
        "_maps",
        "_opened",
        "_seed_table",
        "_seeds",
        "_sizes",
        "_table",
        "_trust",
        "probes",
    )

    def __init__(
        self, entries: memoryview, sizes: Sequence[int], seeds: Sequence[int], *, verify: bool
    ) -> None:
        self._entries = entries
        self._table: npt.NDArray[Any] = np.frombuffer(entries, dtype=ENTRY_DTYPE)
        self._sizes = np.array(sizes, dtype=np.uint64)
        self._seeds = list(seeds)
        self._seed_table = np.array(seeds, dtype=np.uint64)
        self._maps: list[Any] = [None] * len(self._seeds)
        self._opened: list[Any] = [None] * len(self._seeds)
        self._trust = not verify
        self.probes = 3

    def attach(self, number: int, mapped: Any, descriptor: Any = None) -> None:
        """Read bin ``number`` from a map of exactly its committed size.

        Args:
            number: the bin.
            mapped: its map.
            descriptor: an object whose ``number`` is an open descriptor of the same file.
        """
        if len(mapped) != self._sizes[number]:
            raise ValueError("the map must have the committed size of its bin")
        self._opened[number] = descriptor
        self._maps[number] = mapped

    def detach(self, number: int) -> None:
        """Forget a bin's map; whoever is reading from it keeps it until he is done."""
        self._maps[number] = None
        self._opened[number] = None

    def get(self, row: int) -> bytes | None:
        """One record; ``None`` means: look closer. Negative rows count from the end."""
        try:
            offset, length, number, crc = _unpack(self._entries, ENTRY_NBYTES * row)
            record: bytes = self._maps[number][offset : offset + length]
            # An entry found from the end fails: the checksum is for the true row.
            mixed = (offset * OFFSET_FACTOR + row * ROW_FACTOR) >> 32 & 0xFFFFFFFF
            if len(record) == length and (
                _extend(self._seeds[number] ^ mixed, record) == crc
                or (self._trust and row >= 0 and offset >= _FIRST)
            ):
                return record
        except Exception:
            pass
        return None

    def decoded(
        self, make: Callable[[], Callable[[bytes], Any]], limit: int
    ) -> Callable[[int], Any]:
        """A short way from a row to the value that a function makes of its record.

        Args:
            make: gives such a function, for one caller at a time; it is used again.
            limit: records that are empty, or whose first byte is this or more, are not for it.

        Returns:
            A function of a row as for `get`; ``None`` means: look closer, also where the function
            raised.
        """
        get, idle = self.get, list[Callable[[bytes], Any]]()

        def value(row: int) -> Any:
            try:
                record: Any = get(row)
                if record[0] >= limit:
                    return None
                function = idle.pop() if idle else make()
                made = function(record)
            except Exception:
                return None
            idle.append(function)
            return made

        return value

    def take(self, indices: Any) -> list[bytes] | None:
        """Records by indices that nobody looked at; ``None`` means: look closer.

        Converting a list of integers is most of the work here, and numpy does it as well for the
        caller: this kernel always asks for that.
        """
        return None

    def gather(self, rows: Rows, nbytes: int | None = None) -> list[bytes] | int:
        """Records of rows.

        Args:
            rows: int64 array of shape (n,).
            nbytes: stop before the records together have more bytes than this; the first one is
                always taken.

        Returns:
            The records in order; or the place of one that was not plainly right, or that of one
            before it; or `COLD` when a probed record would have to come from the disk.
        """
        if rows.ndim != 1 or rows.dtype != np.int64:
            raise TypeError("rows must be a flat array of int64")
        if len(rows) and not len(self._table):
            return 0
        rows = rows if nbytes is None else self._within(rows, nbytes)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self._table):
            return 0
        entries = self._table.take(rows)
        if len(rows) >= _WORTH_PROBING and self._is_cold(entries):
            return COLD
        records = self._copied(entries)
        if records is None:
            return 0
        if self._trust:
            return records
        seeds = self._seed_table.take(entries["bin"])
        starts = seeds ^ places(entries["offset"], rows)
        if list(map(_extend, starts.tolist(), records)) == entries["crc"].tolist():
            return records
        return 0

    def _copied(self, entries: npt.NDArray[Any]) -> list[bytes] | None:
        """What lies where the entries say, or ``None`` where that is nowhere."""
        offsets, lengths, numbers = entries["offset"], entries["length"], entries["bin"]
        if not len(entries):
            return []
        if int(numbers.max()) >= len(self._maps):
            return None
        sizes = self._sizes.take(numbers)
        inside = (offsets >= _FIRST) & (offsets <= sizes) & (lengths <= sizes - offsets)
        if not inside.all():
            return None
        maps = self._maps
        try:
            return [
                maps[number][start:stop]
                for number, start, stop in zip(
                    numbers.tolist(), offsets.tolist(), (offsets + lengths).tolist(), strict=True
                )
            ]
        except TypeError:
            # A bin is not mapped.
            return None

    def _within(self, rows: Rows, nbytes: int) -> Rows:
        """The first rows, as many as have at most ``nbytes`` together, or one."""
        totals = np.cumsum(self._table["length"].take(rows, mode="clip").astype(np.float64))
        return rows[: max(1, int(np.searchsorted(totals, nbytes, side="right")))]

    def _is_cold(self, entries: npt.NDArray[Any]) -> bool:
        """Whether one of a few records, spread over the batch, is not in memory."""
        last, probes = len(entries) - 1, self.probes
        for probe in range(1, probes + 1):
            offset, length, number, _ = entries[last * probe // (probes + 1)].item()
            if number >= len(self._opened) or offset + length > self._sizes[number]:
                return False
            opened = self._opened[number]
            # The middle: the ends may share a page with a neighbour that was read before.
            if opened is not None and length and would_wait(opened.number, offset + length // 2):
                return True
        self.probes = min(probes, 1)
        return False

    def fetch(self, rows: Rows, helpers: int) -> list[bytes] | int:
        """Records that are not in memory: as `gather`, without probing, past the maps.

        This kernel leaves it to ``cold``: system calls are no faster from here.

        Args:
            rows: int64 array of shape (n,).
            helpers: how many threads read beside the caller.
        """
        return 0

    def iterate(
        self, blocks: Iterable[Rows], read_some: Callable[[Rows], list[bytes]]
    ) -> Iterator[bytes]:
        """Records of rows, one after the other, for one thread.

        Args:
            blocks: int64 arrays of shape (n,).
            read_some: reads what is not plainly right, or not in memory: given the rows that are
                left of a block, it returns the records of the first of them, at least one, or
                raises.
        """
        for block in blocks:
            rows = block
            while len(rows):
                records: Any = self.gather(rows, _LIST_NBYTES)
                if not isinstance(records, list):
                    records = read_some(rows)
                    if not isinstance(records, list) or not 0 < len(records) <= len(rows):
                        raise ValueError("a list of one record or more was to be given")
                rows = rows[len(records) :]
                yield from records

    def gather_into(self, rows: Rows, out: Any) -> bool:
        """Records of one length straight into the rows of an array.

        Args:
            rows: int64 array of shape (n,), checked.
            out: C-contiguous, writable, ``n`` rows of as many bytes as every record has.

        Returns:
            False when something was not plainly right; ``out`` then holds anything.
        """
        records = self.gather(rows)
        if isinstance(records, int):
            return False
        flat = memoryview(out.reshape(-1).view(np.uint8)) if out.nbytes else memoryview(bytearray())
        size = len(flat) // len(rows) if len(rows) else 0
        if any(len(record) != size for record in records) or size * len(rows) != len(flat):
            return False
        at = 0
        for record in records:
            flat[at : at + size] = record
            at += size
        return True

    def close(self) -> None:
        """Let go of everything; every row is one to look closer at from now on."""
        self._maps = [None] * len(self._maps)
        self._opened = [None] * len(self._maps)
        self._entries = memoryview(b"")
        self._table = np.empty(0, dtype=ENTRY_DTYPE)
