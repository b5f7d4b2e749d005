"""Files that an index of somebody else names, opened when a record of theirs is read.

Responsible for: `NamedFiles`, which opens them by number within a bound, and `read_at_places`.

Rules:
- only regular files are opened: a pipe that an index names would be waited for, for ever;
- no lock and no seek position; a file that is dropped is closed when its last reader is done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Protocol, cast

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.formats.chunks import Cache
from splitpipe.formats.files.sources import OpenFile, Places, Readable, SourceFiles, read_places
from splitpipe.storage import files
from splitpipe.storage.base import Rows

__all__ = ["NamedFiles", "Opens", "Places", "read_at_places", "read_entries"]

_OPEN_FILES = 128


class NamedFiles:
    """Files by number.

    Args:
        path_of: the path of a number.
        advice: what to try where one is missing.
    """

    __slots__ = ("_advice", "_open", "_path_of")

    def __init__(self, path_of: Callable[[int], str], advice: str) -> None:
        self._path_of = path_of
        self._advice = advice
        self._open = Cache[OpenFile](_OPEN_FILES)

    def open(self, number: int) -> OpenFile:
        """A file, opened if it is not open.

        Raises:
            StorageError: it is missing or cannot be read.
            FormatError: it is no regular file.
        """
        return self._open.get(number, lambda: (self._opened(number), 1))

    def _opened(self, number: int) -> OpenFile:
        path = self._path_of(number)
        with files.translated("open the file", path, self._advice):
            mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise FormatError(f"{path}, which the index names, is no regular file")
        return OpenFile(path)

    def close(self) -> None:
        """Let go of all files; they are opened again when needed."""
        self._open.clear()


class Opens(Protocol):
    """Whatever opens files by number."""

    def open(self, number: int, /) -> Readable:
        """A file, or what stands for one."""


def read_at_places(source: Opens, places: Places) -> list[bytes]:
    """The bytes at many places, in the given order, neighbours by one call."""
    if not len(places.numbers):
        return []
    # What is asked of the files of a source is `open`, which these have as well.
    return read_places(cast("SourceFiles", source), places)


def read_entries(file: OpenFile, rows: Rows, nbytes: int) -> bytes:
    """Entries of ``nbytes`` each of an index that is a plain table, one after the other."""
    zeros = np.zeros_like(rows)
    places = Places(zeros, rows * nbytes, zeros + nbytes)
    return b"".join(read_at_places(_Only(file), places))


class _Only:
    """A source of one file."""

    __slots__ = ("_file",)

    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def open(self, _number: int) -> OpenFile:
        return self._file
