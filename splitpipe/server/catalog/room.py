"""Folders of files that can be made again, within a limit.

Responsible for: `unfinished`, a file that has its name once it is whole, and `make_room`, which
removes what was used least lately.

Rules:
- several may write the same file at once: each has one of its own until it is whole;
- what a killed process left unfinished is removed once it is old;
- who reads a file that is removed has it open.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from splitpipe.storage import files

__all__ = ["make_room", "unfinished"]

_UNFINISHED: Final = ".new-"
_ABANDONED_S: Final = 3600.0


@contextlib.contextmanager
def unfinished(path: str) -> Iterator[tuple[int, str]]:
    """Give the descriptor and the name of a new file; it takes the place of `path`, durably
    written, unless an error comes first.

    Raises:
        StorageError: it cannot be made, or named.
    """
    with files.translated("create a file", path):
        descriptor, temporary = tempfile.mkstemp(prefix=_UNFINISHED, dir=os.path.dirname(path))
    try:
        yield descriptor, temporary
        files.sync(descriptor, temporary)
        with files.translated("replace", path):
            os.replace(temporary, path)
    except BaseException:
        files.unlink(temporary)
        raise
    finally:
        files.close(descriptor)


def make_room(folder: str, nbytes: int, *, most_nbytes: int, ending: str = "") -> None:
    """Remove the files that were used least lately, until there is room for another.

    Args:
        folder: where they are.
        nbytes: of the one that is to come.
        most_nbytes: of all together.
        ending: of the names of those that count.
    """
    known = []
    with files.translated("list the folder", folder), os.scandir(folder) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # somebody else made room
                told = entry.stat()
                if entry.name.startswith(_UNFINISHED):
                    if time.time() - told.st_mtime > _ABANDONED_S:
                        os.unlink(entry.path)  # whoever wrote it was killed
                elif not entry.name.startswith(".") and entry.name.endswith(ending):
                    known.append((told.st_mtime_ns, told.st_size, entry.path))
    held = sum(size for _, size, _ in known)
    for _, size, path in sorted(known):
        if held + nbytes <= most_nbytes:
            return
        files.unlink(path)  # or somebody else has
        held -= size
