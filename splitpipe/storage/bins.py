"""The open files of one column: index and bins, mapped when first needed.

Responsible for: `BinFiles`: opening and checking the files of one snapshot, keeping a bounded
number of them mapped, and telling whether a range is in the page cache.

Rules:
- no lock and no seek position: two threads may open the same bin, one map wins, both work;
- a map is dropped, never closed, so that whoever is reading from it can finish;
- sizes are compared with the manifest before a file is mapped, and only the committed part is
  mapped: nothing past the last commit can be read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from splitpipe.errors import CorruptRecord
from splitpipe.storage import files
from splitpipe.storage.format import FILE_HEADER_NBYTES, FileId, check_file_header, file_name
from splitpipe.storage.manifest import Column, Manifest
from splitpipe.storage.memory import keep_freed_memory
from splitpipe.storage.native.probe import would_wait

__all__ = ["BinFiles", "map_file"]

# Records of this size and more, on average, make batches of a megabyte and more.
_LARGE_NBYTES = 4096
_ANNOUNCE = hasattr(os, "posix_fadvise")


class Attachable(Protocol):
    """Who is told which bins are mapped (``native.kernel.Column``)."""

    def attach(self, number: int, mapped: Any, descriptor: Any = None) -> None:
        """A bin was mapped."""

    def detach(self, number: int) -> None:
        """A bin's map was dropped."""


class BinFiles:
    """Maps and descriptors of the bins of one column.

    Args:
        directory: of the dataset.
        manifest: the snapshot.
        column: one of its columns.
        max_open: how many bins stay mapped at once.

    Attributes:
        kernel: who is told of every map, if anybody.
        maps: one place a bin: its map, or ``None`` while it is not mapped. Read it, do not
            write it.
        mean_nbytes: bytes of a record on average, with its header.
        sizes: committed size of every bin, a uint64 array.
    """

    __slots__ = (
        "_column",
        "_directory",
        "_manifest",
        "_max_open",
        "_opened",
        "kernel",
        "maps",
        "mean_nbytes",
        "sizes",
    )

    def __init__(
        self, directory: str, manifest: Manifest, column: Column, *, max_open: int
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._column = column
        self._max_open = max(1, max_open)
        self.kernel: Attachable | None = None
        self.maps: list[mmap.mmap | None] = [None] * len(column.bin_sizes)
        self.mean_nbytes = sum(column.bin_sizes) / max(1, column.layout.rows)
        self.sizes = np.array(column.bin_sizes, dtype=np.uint64)
        self._opened: OrderedDict[int, _OpenBin] = OrderedDict()

    def identity(self, number: int) -> FileId:
        """What the file of bin ``number`` is."""
        return self._manifest.file_id("bin", self._column, number)

    def path(self, number: int) -> str:
        """Where bin ``number`` lies."""
        return os.path.join(self._directory, file_name(self.identity(number)))

    def size(self, number: int) -> int:
        """Committed size of bin ``number``; 0 for a bin that does not exist."""
        sizes = self._column.bin_sizes
        return sizes[number] if number < len(sizes) else 0

    def map(self, number: int) -> mmap.mmap:
        """The map of a bin, opened if it is not open.

        Raises:
            StorageError: the file is missing or cannot be read.
            FormatError: it is too short, or not the file it should be.
            CorruptRecord: no commit put anything into it.
        """
        known = self.maps[number]
        return known if known is not None else self._open(number).mapped

    def _open(self, number: int) -> _OpenBin:
        if not self._opened and self.mean_nbytes > _LARGE_NBYTES:
            keep_freed_memory()
        path = self.path(number)
        if not self.size(number):
            raise CorruptRecord(
                f"no commit has put a record into {path}: the index entry that leads there is "
                "damaged; restore the index from a copy, or try `splitpipe repair`"
            )
        opened = _OpenBin(files.open_file(path, os.O_RDONLY, advice=_MISSING))
        opened.mapped = map_file(path, self.size(number), self.identity(number), opened.number)
        while len(self._opened) >= self._max_open:
            try:
                oldest, _ = self._opened.popitem(last=False)
            except KeyError:  # another thread was faster
                break
            self.maps[oldest] = None
            if self.kernel is not None:
                self.kernel.detach(oldest)
        self._opened[number] = opened
        self.maps[number] = opened.mapped
        if self.kernel is not None:
            self.kernel.attach(number, opened.mapped, opened)
        return opened

    def forget(self, number: int) -> None:
        """Map a bin anew when it is needed next: another file has its name now."""
        self.maps[number] = None
        self._opened.pop(number, None)
        if self.kernel is not None:
            self.kernel.detach(number)

    def fits(self, count: int) -> bool:
        """Whether this many bins may be mapped at once."""
        return count <= self._max_open

    def map_all(self, numbers: Iterable[int]) -> None:
        """Map several bins, no more than `fits`, so that all are mapped at the end."""
        numbers = list(numbers)
        # Twice: mapping one of them the first time may drop another that was mapped before.
        for number in (*numbers, *numbers):
            self.map(number)

    def descriptor(self, number: int) -> _OpenBin:
        """A bin whose attribute ``number`` is an open descriptor, for reads past the map."""
        return self._opened.get(number) or self._open(number)

    def is_cold(self, number: int, offset: int) -> bool:
        """Whether the byte at ``offset`` would have to come from the disk; False if unknown."""
        return would_wait(self.descriptor(number).number, offset)

    def announce(self, number: int, offset: int, length: int) -> None:
        """Tell the system that a range will be read soon, so that it fetches it now."""
        if _ANNOUNCE:
            with contextlib.suppress(OSError):
                os.posix_fadvise(
                    self.descriptor(number).number, offset, length, os.POSIX_FADV_WILLNEED
                )

    def close(self) -> None:
        """Let go of all files."""
        self.maps[:] = [None] * len(self.maps)
        self._opened.clear()


class _OpenBin:
    """A bin's descriptor and map; the descriptor is closed when nobody refers to this any more."""

    __slots__ = ("mapped", "number")

    mapped: mmap.mmap

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(
        self,
        ending: Callable[[], bool] = sys.is_finalizing,
        close: Callable[[int], None] = files.close,
    ) -> None:
        # When the interpreter ends, modules may be gone before this, and descriptors go anyway.
        if not ending():
            close(self.number)


_MISSING = (
    "the manifest names this file: restore it from a copy, or open the dataset again if it was "
    "overwritten meanwhile"
)


def map_file(path: str, size: int, identity: FileId, descriptor: int | None = None) -> mmap.mmap:
    """Map the committed part of a file after looking at its size and header.

    Args:
        path: the file.
        size: its committed size in bytes.
        identity: what it must be.
        descriptor: an open descriptor of it, which is left open; else ``path`` is opened.
    """
    own = files.open_file(path, os.O_RDONLY, advice=_MISSING) if descriptor is None else descriptor
    try:
        files.check_size(own, size, path)
        with files.translated("map", path):
            mapped = mmap.mmap(own, size, access=mmap.ACCESS_READ)
    finally:
        if descriptor is None:
            files.close(own)
    check_file_header(mapped[:FILE_HEADER_NBYTES], identity, path)
    return mapped
