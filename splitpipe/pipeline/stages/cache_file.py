"""One epoch of items in one file.

Responsible for: `CacheFile`, which is there or not, is written once and read any number of times.

A file is: a line that says what it is, and the fingerprint of the graph that made it; for every
item its length (u64), the CRC32C of its bytes (u32) and its bytes (see `plain_bytes`); at the end
a length of 2^64 - 1, the CRC32C of what follows, and the number of items (u64).

Rules:
- under its name there only ever is a file that is complete: it is written under another one,
  made durable, and renamed;
- one writer at a time, by a lock that ends with its process; whoever finds one at work does without
  a cache. What a killed writer left is overwritten by the next one;
- every byte is checked before it is used. A file that is damaged, or of another graph, is an error
  that names it; it is never made anew in silence.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Any, Final

import google_crc32c

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.pipeline.stages.plain_bytes import decode, encode
from splitpipe.storage import files

__all__ = ["CacheFile"]

_MAGIC: Final = "splitpipe cache 1"
_FRAME: Final = struct.Struct("<QI")
_COUNT: Final = struct.Struct("<Q")
_END: Final = 2**64 - 1
_BLOCK: Final = 1 << 20


class CacheFile:
    """The items of one epoch of one graph.

    Args:
        directory: is made when something is written.
        fingerprint: of the graph.
    """

    def __init__(self, directory: str, fingerprint: str) -> None:
        self._directory = os.path.abspath(directory)
        self._head = f"{_MAGIC} {fingerprint}\n".encode()
        self.path = os.path.join(self._directory, f"cache-{fingerprint}.items")

    @property
    def complete(self) -> bool:
        """Whether there is one."""
        return files.is_there(self.path)

    def read(self) -> Iterator[tuple[Any, int]]:
        """Yield every item, and how many bytes it takes.

        Raises:
            CorruptRecord: bytes are not those that were written.
            FormatError: it is the file of something else.
        """
        with files.opened(self.path, os.O_RDONLY, doing="open the cache") as descriptor:
            size = files.status(descriptor, self.path).st_size
            position = len(self._head)
            if files.read_at(descriptor, position, 0, self.path) != self._head:
                raise FormatError(f"{self.path} is no cache of this graph; {_REMEDY}")
            count = 0
            while True:
                frame = files.read_at(descriptor, _FRAME.size, position, self.path)
                if len(frame) < _FRAME.size:
                    raise self._damaged(count, "the file ends")
                length, crc = _FRAME.unpack(frame)
                position += _FRAME.size
                end = length == _END
                length = _COUNT.size if end else length
                if length > size - position:
                    raise self._damaged(count, "it would reach beyond the end of the file")
                data = bytearray(files.read_at(descriptor, length, position, self.path))
                position += length
                if len(data) != length or google_crc32c.value(bytes(data)) != crc:
                    raise self._damaged(count, "its checksum is wrong")
                if end:
                    if _COUNT.unpack(data) != (count,) or position != size:
                        raise self._damaged(count, "this is not where the file ends")
                    return
                yield decode(data), length
                del data
                count += 1

    def _damaged(self, number: int, why: str) -> CorruptRecord:
        return CorruptRecord(f"{self.path}: item {number}: {why}; {_REMEDY}")

    def writer(self) -> CacheWriter | None:
        """Return what writes the file; None where it is there, or someone is writing it already."""
        files.make_directory(self._directory)
        unfinished = f"{self.path}.unfinished"
        descriptor = files.open_file(unfinished, os.O_RDWR | os.O_CREAT, doing="write the cache")
        try:
            with files.translated("lock", unfinished):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return None
                mine = os.fstat(descriptor).st_ino
                same = files.is_there(unfinished) and os.stat(unfinished).st_ino == mine
                if not same or self.complete:  # whoever had it has just finished
                    if same:
                        files.unlink(unfinished)
                    return None
                os.ftruncate(descriptor, 0)
            writer = CacheWriter(descriptor, unfinished, self.path, self._head)
            descriptor = -1
            return writer
        finally:
            if descriptor >= 0:
                files.close(descriptor)


class CacheWriter:
    """Writes items, and makes a file of them when they are all there.

    Args:
        descriptor: of a locked, empty file.
        unfinished: its name.
        path: the name that it gets.
        head: what it begins with.
    """

    def __init__(self, descriptor: int, unfinished: str, path: str, head: bytes) -> None:
        self._descriptor = descriptor
        self._unfinished = unfinished
        self._path = path
        self._waiting = [head]
        self._waiting_nbytes = len(head)
        self._position = 0
        self._count = 0

    @property
    def nbytes(self) -> int:
        """How large the file is so far."""
        return self._position + self._waiting_nbytes

    def add(self, item: Any) -> bytes:
        """Append an item, and return its bytes.

        Raises:
            FormatError: it cannot be kept on disk.
            StorageError: there is no room.
        """
        data = encode(item)
        self._append(len(data), data)
        self._count += 1
        return data

    def finish(self) -> None:
        """There are no more items: make the file durable, and give it its name."""
        self._append(_END, _COUNT.pack(self._count))
        self._flush()
        files.sync(self._descriptor, self._unfinished)
        with files.translated("rename", self._unfinished):
            os.replace(self._unfinished, self._path)
        self._close()
        files.sync_directory(os.path.dirname(self._path))

    def abandon(self) -> None:
        """Remove what was written; after `finish` there is nothing to do."""
        if self._descriptor >= 0:
            files.unlink(self._unfinished)
            self._close()

    def _append(self, length: int, data: bytes) -> None:
        self._waiting += [_FRAME.pack(length, google_crc32c.value(data)), data]
        self._waiting_nbytes += _FRAME.size + len(data)
        if self._waiting_nbytes >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        files.write_at(self._descriptor, b"".join(self._waiting), self._position, self._unfinished)
        self._position += self._waiting_nbytes
        self._waiting, self._waiting_nbytes = [], 0

    def _close(self) -> None:
        files.close(self._descriptor)
        self._descriptor = -1


_REMEDY = "remove it, and it is made anew"
