"""Rows that were matched, kept for whoever opens the same snapshot again.

Responsible for: `keep` and `kept`, one array in a file; `note` and `noted`, what was found out
beside it.

Rules:
- a file is written whole and durable before it has its name, and named after what it says. Several
  may write the same at once: each has a file of its own until then;
- a snapshot knows the checksum: a file that is damaged, or gone, is as none, and is made again;
- they take at most `MOST_NBYTES` together; those that were used least lately go first.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Final

import google_crc32c
import numpy as np

from splitpipe.errors import SplitpipeError
from splitpipe.server.catalog.room import make_room, unfinished
from splitpipe.storage import files
from splitpipe.storage.base import Rows

__all__ = ["MOST_NBYTES", "keep", "kept", "note", "noted"]

MOST_NBYTES: Final = 4 << 30
_WORD: Final = np.dtype("<i8")


def keep(folder: str, name: str, rows: Rows) -> dict[str, Any]:
    """Keep an array, and tell what `kept` needs to find it.

    Args:
        folder: of all of them; it is made.
        name: of this one, of hexadecimal digits.
        rows: int64 array of shape (k, n).

    Raises:
        StorageError: it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> told = keep(folder, "ab", np.arange(6).reshape(2, 3))
        >>> kept(folder, told).tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    data = np.ascontiguousarray(rows, dtype=_WORD).tobytes()
    told = {"name": name, "shape": [*rows.shape], "checksum": google_crc32c.value(data)}
    files.make_directory(folder)
    make_room(folder, len(data), most_nbytes=MOST_NBYTES, ending=".rows")
    _put(_path(folder, name), data)
    return told


def note(folder: str, name: str, what: dict[str, Any]) -> None:
    """Note what was found out about the state of a dataset that a name stands for.

    Raises:
        StorageError: it cannot be written.
    """
    files.make_directory(folder)
    _put(os.path.join(folder, f"{name}.json"), json.dumps(what).encode())


def noted(folder: str, name: str) -> dict[str, Any] | None:
    """What was noted under a name; ``None`` if that is nothing, or nothing that can be read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> note(folder, "ab", {"rows": 3})
        >>> noted(folder, "ab"), noted(folder, "cd")
        ({'rows': 3}, None)
    """
    try:
        found = json.loads(files.read_whole(os.path.join(folder, f"{name}.json"), limit=1 << 20))
    except (SplitpipeError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def kept(folder: str, told: dict[str, Any]) -> Rows | None:
    """An array that was kept; ``None`` if it is gone, or is not what it was."""
    path = _path(folder, told["name"])
    shape = tuple(told["shape"])
    try:
        data = files.read_whole(path, limit=MOST_NBYTES)
    except SplitpipeError:
        return None
    if len(data) != 8 * shape[0] * shape[1] or google_crc32c.value(data) != told["checksum"]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return np.frombuffer(data, dtype=_WORD).reshape(shape).astype(np.int64, copy=False)


def _path(folder: str, name: str) -> str:
    return os.path.join(folder, f"{name}.rows")


def _put(path: str, data: bytes) -> None:
    with unfinished(path) as (descriptor, name):
        files.write_at(descriptor, data, 0, name)
