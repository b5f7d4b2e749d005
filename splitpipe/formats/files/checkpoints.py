"""Reading a large gzip member at random places, with the library ``indexed_gzip``.

Responsible for: the one dependency that can begin to decompress inside a member, behind two calls:
`build` while a file is indexed, `Checkpoints` while it is read. It keeps the state of the
decompressor, 32 KiB, every `SPACING_NBYTES` of decompressed data.

Rules:
- the library reads through our own descriptor, so that what it reads is the file that was compared
  with its index;
- its objects have a position, so that every thread has its own;
- the checksum of the member was compared while it was indexed; reading in its middle cannot.
"""

from __future__ import annotations

import io
import threading
from importlib import import_module
from typing import Any

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.files.sources import OpenFile

__all__ = ["SPACING_NBYTES", "Checkpoints", "available", "build"]

SPACING_NBYTES = 4 << 20


def _library() -> Any:
    return import_module("indexed_gzip")


def available() -> bool:
    """Whether the library is installed."""
    try:
        _library()
    except ImportError:
        return False
    return True


class _Seekable(io.RawIOBase):
    """A file of a source as a file object with a position of its own."""

    def __init__(self, file: OpenFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        data = self._file.read(self._at, max(0, min(len(view), self._file.size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def build(file: OpenFile) -> bytes:
    """Where decompressing can begin, for `Checkpoints`.

    Raises:
        CorruptRecord: the file is damaged.
    """
    library = _library()
    told = io.BytesIO()
    try:
        with library.IndexedGzipFile(fileobj=_Seekable(file), spacing=SPACING_NBYTES) as reader:
            reader.build_full_index()
            reader.export_index(fileobj=told)
    except (OSError, ValueError) as error:
        raise CorruptRecord(f"{file.path} is damaged: {error}") from error
    return told.getvalue()


class Checkpoints:
    """Reads inside a gzip file.

    Args:
        file: the file.
        blob: what `build` gave for it.
    """

    def __init__(self, file: OpenFile, blob: bytes) -> None:
        if not available():
            raise FormatError(
                f"{file.path} was indexed with checkpoints: `pip install splitpipe[gzip]` to read "
                "it here"
            )
        self._file = file
        self._blob = blob
        self._own = threading.local()

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes of the decompressed data.

        Raises:
            CorruptRecord: the file is damaged.
        """
        try:
            reader = getattr(self._own, "reader", None)
            if reader is None:
                reader = _library().IndexedGzipFile(fileobj=_Seekable(self._file))
                reader.import_index(fileobj=io.BytesIO(self._blob))
                self._own.reader = reader
            return bytes(reader.pread(length, offset))
        except (OSError, ValueError) as error:
            raise CorruptRecord(
                f"{self._file.path}, at byte {offset} of the decompressed data: {error}"
            ) from error
