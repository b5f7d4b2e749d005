"""Bits that flip, files that are cut: in place, and put back.

Responsible for: `Damaged`, which changes one file at a time so that programs that have it mapped
see it, and makes it as it was at the end of its block, whatever happened.
"""

from __future__ import annotations

import os
from typing import Self

__all__ = ["Damaged"]


class Damaged:
    """A file that is changed while a ``with`` block runs.

    Args:
        path: the file.

    Attributes:
        nbytes: its true size.
        content: its true bytes.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"some text"], splits=1)
        >>> with Damaged(f"{path}/v0001-c000-b00000.bin") as file:
        ...     file.flip(8 * (file.nbytes - 1))
        ...     try:
        ...         sp.open_dataset(path)[0]
        ...     except sp.CorruptRecord:
        ...         print("found")
        found
        >>> sp.open_dataset(path)[0]
        b'some text'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._descriptor = os.open(self._path, os.O_RDWR)
        self.nbytes = os.fstat(self._descriptor).st_size
        self.content = os.pread(self._descriptor, self.nbytes, 0)

    def flip(self, bit: int) -> None:
        """Flip one bit, counted from 0; the same again puts it back."""
        at = bit // 8
        byte = os.pread(self._descriptor, 1, at)[0] ^ (1 << bit % 8)
        os.pwrite(self._descriptor, bytes((byte,)), at)

    def cut(self, nbytes: int) -> None:
        """Keep the first bytes only."""
        os.ftruncate(self._descriptor, nbytes)

    def become(self, content: bytes) -> None:
        """Hold other bytes."""
        os.ftruncate(self._descriptor, len(content))
        os.pwrite(self._descriptor, content, 0)

    def restore(self) -> None:
        """Make it as it was."""
        self.become(self.content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.restore()
        finally:
            os.close(self._descriptor)
