"""A folder that appears as a whole.

Responsible for: `NewFolder`: files are written into one beside it, which gets its name when all is
written and proven; and what may be replaced by it.

Rules:
- readers see what was there before, or everything;
- only what an export could have written is ever replaced: a folder that holds anything else is not
  touched, whatever was said;
- what a killed run leaves is a folder ``.NAME.*.partial``, which nobody reads.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from typing import Self

from splitpipe.errors import StorageError
from splitpipe.storage import files

__all__ = ["NewFile", "NewFolder"]

_OURS = re.compile(
    r"index\.json|state\.json|dataset_info\.json|shard\.\d{5}\.mds(\.zstd)?|shard-\d{6}\.tar"
    r"|part-\d{5}\.parquet|data-\d{5}-of-\d{5}\.arrow|\.splitpipe"
)


class NewFolder:
    """A folder on its way to its name. To be used in a ``with`` block.

    Args:
        path: its name.
        overwrite: whether an earlier export of that name may be replaced.

    Attributes:
        path: where it will be.
        partial: where files are written.

    Raises:
        StorageError: something is there already, or it cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool) -> None:
        self.path = files.local(path)
        self._overwrite = overwrite
        self._check()
        parent, name = os.path.split(self.path)
        files.make_directory(parent)
        with files.translated("create a folder", parent):
            self.partial = tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=parent)
            os.chmod(self.partial, 0o777 & ~_umask())

    def _check(self) -> None:
        with files.translated("look at the folder", self.path):
            if not os.path.lexists(self.path):
                return
            there = os.listdir(self.path) if os.path.isdir(self.path) else [self.path]
        strange = [name for name in there if not _OURS.fullmatch(name)]
        if strange or (there and not self._overwrite):
            advice = (
                f"it holds {strange[0]!r}, which is no export: choose another name"
                if strange
                else "choose another name, or say overwrite to replace it"
            )
            raise StorageError(errno.EEXIST, f"something is here already: {advice}", self.path)

    def commit(self) -> None:
        """Let it have its name."""
        self._check()
        files.sync_directory(self.partial)
        parent = os.path.dirname(self.path)
        with files.translated("name the folder", self.path):
            if os.path.isdir(self.path) and os.listdir(self.path):
                old = tempfile.mkdtemp(prefix=f".{os.path.basename(self.path)}.", dir=parent)
                os.rename(self.path, old)
                os.rename(self.partial, self.path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.rename(self.partial, self.path)
        files.sync_directory(parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)  # which is not there after a commit


class NewFile:
    """A file of an export, written from front to back, durable when it is closed.

    Args:
        path: of the file.

    Attributes:
        size: bytes written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._descriptor = files.open_file(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, doing="create a file"
        )

    def write(self, data: bytes) -> None:
        """Write the bytes that follow."""
        files.write_at(self._descriptor, data, self.size, self.path)
        self.size += len(data)

    def close(self, *, durable: bool = True) -> None:
        """Make it durable, if that is still wanted; a second call does nothing."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if durable:
                files.sync(descriptor, self.path)
        finally:
            files.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
