"""Remote tables, here.

Responsible for: `Copies`, the files of a remote table in a folder of this machine, where the
readers of ``formats`` read them.

Rules:
- they are copied whole, each of one version, into a folder of their own below the system's
  temporary one; it goes when the process that made it does not refer to it any more, or ends;
- they travel by name: another process of the machine reads the same files, another machine copies
  them anew and refuses other ones.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from splitpipe.errors import DatasetChanged
from splitpipe.raw.fetching import Access
from splitpipe.raw.locations import placed, told
from splitpipe.raw.tables import print_of, read_files
from splitpipe.storage import files
from splitpipe.storage.base import Records

__all__ = ["Copies"]

_CHUNK_NBYTES = 32 << 20


class Copies:
    """The files of a remote table.

    Args:
        urls: of its files.
        access: has the stores.
        format: of the files; recognised unless given.
        options: of the format.

    Attributes:
        prints: what each file is known by.
    """

    def __init__(
        self,
        urls: Sequence[str],
        access: Access,
        *,
        format: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._urls = tuple(urls)
        self._access = access
        self._format = format
        self._options = dict(options or {})
        self._paths: list[str] = []
        self.prints: list[bytes] = []
        self._gone: Any = None

    def open(self) -> Records:
        """The rows of the table; copies it first, where that was not done yet.

        Raises:
            StorageError: it cannot be copied.
        """
        if not self._paths:
            self._copy()
        return read_files(self._paths, format=self._format, index_dir=None, options=self._options)

    def _copy(self) -> None:
        with files.translated("make a folder for the table", tempfile.gettempdir()):
            folder = tempfile.mkdtemp(prefix="splitpipe-table-")
        self._gone = weakref.finalize(self, _remove, folder, os.getpid())
        try:
            for number, url in enumerate(self._urls):
                name = os.path.basename(placed(url).key.partition("?")[0])
                path = os.path.join(folder, f"{number:05d}-{name}")
                _copy(url, path, self._access)
                self._paths.append(path)
            self.prints = [print_of(path) for path in self._paths]
        except BaseException:
            self._paths.clear()
            self._gone()
            raise

    def close(self) -> None:
        """Remove the files, where they were copied by this process; a second call does nothing."""
        if self._gone is not None:
            self._gone()

    def __reduce__(self) -> Any:
        known = (self._urls, self._access, self._format, self._options)
        return _again, (known, tuple(self._paths), tuple(self.prints))


def _again(known: tuple[Any, ...], paths: Sequence[str], prints: Sequence[bytes]) -> Copies:
    urls, access, format, options = known
    copies = Copies(urls, access, format=format, options=options)
    if all(map(os.path.exists, paths)):
        copies._paths, copies.prints = list(paths), list(prints)
        return copies
    copies._copy()
    if copies.prints != list(prints):
        copies.close()
        raise DatasetChanged(
            errno.ESTALE,
            "the table is not what it was when the dataset was opened: open it again",
            told(urls[0]),
        )
    return copies


def _remove(folder: str, process: int) -> None:
    if process == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def _copy(url: str, path: str, access: Access) -> None:
    """Copy a file in parts, all of one version."""
    at = placed(url)
    store = access.open(at.root)
    stat = store.stat(at.key)
    with files.translated("copy the table", path), open(path, "wb") as file:
        for start in range(0, stat.size, _CHUNK_NBYTES):
            stop = min(start + _CHUNK_NBYTES, stat.size)
            file.write(store.read(at.key, start, stop, tag=stat.tag))
