"""Which durable marks were cleared, on the disk before the bytes behind them go.

Responsible for: `Journal`, a file to which evictions are appended: one sync for many blocks of many
objects, where each object's marks would need one of their own.

Rules:
- it is written by who holds the lock of evictors alone;
- after a restart of the machine every mark it names is cleared: also one that was set again since,
  which costs a download;
- it is emptied when the marks themselves are on the disk.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from splitpipe.cache import files
from splitpipe.cache.folder import Layout
from splitpipe.cache.marks import MarkFile
from splitpipe.errors import FormatError

__all__ = ["Journal"]

_ENTRY: Final = struct.Struct("<16sQQ")
_MOST_NBYTES: Final = 1 << 20


class Journal:
    """The file of one cache.

    Args:
        layout: of the cache.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = os.path.join(layout.root, "evicted")

    def write(self, entries: Sequence[tuple[bytes, int, int]]) -> None:
        """Note evictions: digest, first block and count; they are on the disk afterwards."""
        data = b"".join(_ENTRY.pack(*entry) for entry in entries)
        with files.translated("note what is thrown out", self._path):
            descriptor = files.open_file(self._path, os.O_RDWR | os.O_CREAT)
            try:
                end = os.fstat(descriptor).st_size
                if end >= _MOST_NBYTES:
                    self._settle(self._read(descriptor))
                    os.ftruncate(descriptor, 0)
                    end = 0
                # A part of an entry is what somebody died in: nothing was punched for it.
                files.write_at(descriptor, data, end - end % _ENTRY.size)
                files.sync(descriptor)
            finally:
                files.close(descriptor)

    def replay(self) -> None:
        """Clear the marks that are named; after a restart, with nobody else there."""
        try:
            descriptor = files.open_file(self._path)
        except FileNotFoundError:
            return
        try:
            named = self._read(descriptor)
            for digest, ranges in named.items():
                with suppress(FileNotFoundError, FormatError):
                    marks = MarkFile(self._layout.marks(digest))
                    for first, count in ranges:
                        marks.marks[first : first + count] = 0
            self._settle(named)
            os.ftruncate(descriptor, 0)
        finally:
            files.close(descriptor)

    def _read(self, descriptor: int) -> dict[bytes, list[tuple[int, int]]]:
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        whole = len(data) - len(data) % _ENTRY.size
        named = defaultdict(list)
        for digest, first, count in _ENTRY.iter_unpack(data[:whole]):
            named[digest].append((first, count))
        return named

    def _settle(self, digests: Iterable[bytes]) -> None:
        """Have the marks of objects on the disk."""
        for digest in digests:
            with suppress(FileNotFoundError):
                descriptor = files.open_file(self._layout.marks(digest))
                try:
                    files.sync(descriptor)
                finally:
                    files.close(descriptor)
