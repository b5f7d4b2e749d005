"""The files of a recording.

Responsible for: `Segments`, which appends lines to numbered files and keeps them within a number of
bytes, and `segment_paths`, which finds them.

Rules:
- a file is created by one writer alone and only ever appended to, a line a call: what was written
  is there when the process is killed in the next instruction;
- every file begins with the same heading, so that each can be read without the others;
- what is removed is the oldest of the files that are named as ours, and begin with our heading;
  nothing else in the folder is touched.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from splitpipe.errors import StorageError

__all__ = ["HEADING", "Segments", "segment_paths"]

HEADING = b'{"splitpipe_recording":'
"""How every file begins."""
_NAME = re.compile(r"^(\d{8})\.jsonl$")
_FILES = 8
"""Files that the bytes are divided into: as much is lost at once when room is made."""


def segment_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a recording, oldest first.

    Raises:
        StorageError: there is no such folder.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if _NAME.match(name))
    except OSError as error:
        raise StorageError(
            error.errno, f"no recording can be read: {error.strerror}", os.fspath(directory)
        ) from error
    return [Path(directory, name) for name in names]


class Segments:
    """Appends lines; rotates.

    Args:
        directory: is made if it is not there.
        heading: the first line of every file.
        max_bytes: of all files together.

    Raises:
        StorageError: nothing can be written there.
    """

    def __init__(
        self, directory: str | os.PathLike[str], heading: bytes, *, max_bytes: int
    ) -> None:
        self._directory = Path(directory)
        self._heading = heading
        self._max_bytes = max_bytes
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._begin()
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot record: {error.strerror}", os.fspath(directory)
            ) from error

    def append(self, line: bytes) -> bool:
        """Write a line; return whether a new file was begun behind it.

        Raises:
            OSError: it could not be written whole.
        """
        if os.write(self._descriptor, line) != len(line):
            raise OSError("the disk took only a part of it")
        self._nbytes += len(line)
        if self._nbytes < self._max_bytes // _FILES:
            return False
        earlier, self._descriptor = self._descriptor, self._begin()
        os.close(earlier)
        return True

    def close(self) -> None:
        """Write no more. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _begin(self) -> int:
        paths = segment_paths(self._directory)
        descriptor = self._created(int(paths[-1].stem) + 1 if paths else 1)
        try:
            if os.write(descriptor, self._heading) != len(self._heading):
                raise OSError("the disk took only a part of it")
        except BaseException:
            os.close(descriptor)
            raise
        self._nbytes = len(self._heading)
        self._make_room(paths)
        return descriptor

    def _created(self, number: int) -> int:
        """Return a new file of this number, or of the next one that nobody else has taken."""
        while True:
            path = self._directory / f"{number:08}.jsonl"
            try:
                return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                number += 1  # another recorder was quicker

    def _make_room(self, paths: list[Path]) -> None:
        """Remove the oldest files, so that the new one can grow to its full size."""
        room = self._max_bytes - self._max_bytes // _FILES
        sizes = []
        for path in paths:
            with contextlib.suppress(OSError):
                sizes.append((path, path.stat().st_size))
        kept = sum(size for _, size in sizes)
        for path, size in sizes:
            if kept <= room:
                return
            with contextlib.suppress(OSError):
                with open(path, "rb") as file:
                    ours = file.read(len(HEADING)) == HEADING
                if ours:
                    path.unlink()
            kept -= size
