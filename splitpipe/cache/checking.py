"""Whether a cache is what it says it is.

Responsible for: `check_cache`: the accounts against the marks, the marks against the disk and, if a
way to the stores is given, the bytes against their source. What is wrong is mended: a block that
cannot be trusted is thrown out, which costs a download and nothing else.

Rules:
- while others use the cache, only what they do not work on is looked at, and accounts are left;
- only what is ours is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from splitpipe.cache import files
from splitpipe.cache.cache import BlockCache
from splitpipe.cache.eviction import throw_out
from splitpipe.cache.folder import Layout
from splitpipe.cache.inventory import layout_of
from splitpipe.cache.locks import Locks
from splitpipe.cache.marks import FIXED, MarkFile
from splitpipe.cache.objects import is_whole, remove_object
from splitpipe.cache.ranges import Blocks, pieces, runs
from splitpipe.cache.space import Space
from splitpipe.cache.state import STATE_NBYTES
from splitpipe.errors import DatasetChanged, FormatError, SplitpipeError, StorageError
from splitpipe.stores import Store

__all__ = ["CacheReport", "check_cache"]

_AT_ONCE_NBYTES: Final = 4 << 20
_MOST_FINDINGS: Final = 100


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What `check_cache` found.

    Attributes:
        directory: of the cache.
        objects: how many there are.
        blocks: how many blocks they have there.
        compared_nbytes: how many bytes were compared with their source.
        used_nbytes: what all of it uses.
        processes: how many others use it at this moment; accounts are compared where there is none.
        found: how many things were wrong; all of them were mended.
        findings: the first of them, as text.
        unreachable: objects that could not be compared with their source, and why.
    """

    directory: str
    objects: int
    blocks: int
    compared_nbytes: int
    used_nbytes: int
    processes: int
    found: int
    findings: tuple[str, ...]
    unreachable: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.found


def check_cache(
    directory: str | os.PathLike[str],
    *,
    open_store: Callable[[str], Store] | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> CacheReport:
    """Check a cache, and mend what is wrong.

    Args:
        directory: of the cache.
        open_store: opens the store of a url: bytes are compared with their source then, all that
            are there, which asks for as many.
        progress: called with how many objects are done, of how many.

    Raises:
        StorageError: the folder is no cache.
    """
    layout = layout_of(directory)
    check = _Check(layout, open_store)
    check.accounts_file()
    with BlockCache(layout.root, None, requests=1) as cache:
        space = cache._space
        check.processes = cache.statistics().processes - 1
        digests = sorted(layout.found())
        for number, digest in enumerate(digests):
            progress(number, len(digests))
            check.object(space, digest)
        progress(len(digests), len(digests))
        if not check.processes:
            check.remains()
            check.accounts(space)
        used = cache.statistics().used_nbytes
    check.close()
    return CacheReport(
        directory=layout.root,
        objects=len(digests),
        blocks=check.blocks,
        compared_nbytes=check.compared_nbytes,
        used_nbytes=used,
        processes=check.processes,
        found=check.found,
        findings=tuple(check.findings),
        unreachable=tuple(check.unreachable),
    )


class _Check:
    """One run, and what it has found so far."""

    def __init__(self, layout: Layout, open_store: Callable[[str], Store] | None) -> None:
        self.blocks = self.compared_nbytes = self.processes = self.found = 0
        self.findings: list[str] = []
        self.unreachable: list[str] = []
        self._layout = layout
        self._open_store = open_store
        self._stores: dict[str, Store | None] = {}

    def say(self, finding: str) -> None:
        """Something was wrong."""
        self.found += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(finding)

    def accounts_file(self) -> None:
        """Remove a shared file that is not one: opening the cache makes another, and counts."""
        path = self._layout.state
        with suppress(FileNotFoundError):
            with open(path, "rb") as file:
                magic = file.read(8)
            if os.stat(path).st_size == STATE_NBYTES and magic == b"SPCACHE1":
                return
            self.say(f"{path} was damaged; what is used was counted anew")
            os.unlink(path)

    def object(self, space: Space, digest: bytes) -> None:
        """Check one object."""
        path = self._layout.marks(digest)
        marks: MarkFile | None = None
        with suppress(FormatError):
            try:
                marks = MarkFile(path)
            except FileNotFoundError:
                return
        if marks is None or not is_whole(self._layout, marks, digest):
            with space.account.removing(digest) as alone:
                if alone and remove_object(self._layout, digest):
                    self.say(f"{path} did not belong to its bytes: the object was removed")
            return
        locks = self._layout.locks(path)
        data = files.open_file(self._layout.data(digest))
        try:
            present = marks.present()
            self.blocks += len(present)
            for first, count in runs(present[_hollow(data, marks, present)]):
                self._throw_out(space, marks, data, locks, first, count, "not on the disk")
            self._compare(space, marks, data, locks)
        finally:
            files.close(data)
            locks.close()

    def _throw_out(
        self,
        space: Space,
        marks: MarkFile,
        data: int,
        locks: Locks,
        first: int,
        count: int,
        what: str,
    ) -> None:
        if not locks.try_lock(first, count):
            return
        try:
            if throw_out(space.account, marks, data, locks, first=first, count=count):
                last = f" to {first + count - 1}" if count > 1 else ""
                key = marks.identity.key
                self.say(f"{key}: block {first}{last} was {what}; it was thrown out")
        finally:
            locks.unlock(first, count)

    def _compare(self, space: Space, marks: MarkFile, data: int, locks: Locks) -> None:
        """Compare what is there with the source."""
        identity = marks.identity
        store = self._store(identity.url)
        if store is None:
            return
        most = max(1, _AT_ONCE_NBYTES // identity.block_nbytes)
        for run in runs(marks.present()):
            for first, count in pieces(*run, most=most):
                start, stop = identity.extent(first, count)
                before = marks.marks[first : first + count].copy()
                ours = os.pread(data, stop - start, start)
                try:
                    theirs = store.read(identity.key, start, stop)
                    if store.stat(identity.key).tag != identity.version:
                        raise DatasetChanged(0, "it has another version now", identity.key)
                except (SplitpipeError, OSError) as error:
                    self.unreachable.append(f"{identity.key}: {error}")
                    return
                same = ((before ^ marks.marks[first : first + count]) & FIXED) == 0
                for number in np.flatnonzero(same & (before != 0)).tolist():
                    begin, end = identity.extent(first + number, 1)
                    part = slice(begin - start, end - start)
                    self.compared_nbytes += end - begin
                    if ours[part] != theirs[part]:
                        self._throw_out(
                            space, marks, data, locks, first + number, 1, "not what its source has"
                        )

    def _store(self, url: str) -> Store | None:
        if self._open_store is None:
            return None
        if url not in self._stores:
            try:
                self._stores[url] = self._open_store(url)
            except (SplitpipeError, OSError) as error:
                self._stores[url] = None
                self.unreachable.append(f"{url}: {error}")
        return self._stores[url]

    def remains(self) -> None:
        """Remove what those who were killed left half made; nobody else is there."""
        for shelf in self._layout.shelves():
            for name in os.listdir(shelf):
                path = os.path.join(shelf, name)
                stem, _, ending = path.rpartition(".")
                orphan = ending == "data" and not os.path.exists(f"{stem}.marks")
                if orphan or name.endswith(".marks.new"):
                    os.unlink(path)
                    self.say(f"{path} was left by somebody who died; it was removed")
        for name in os.listdir(self._layout.root):
            if name.startswith(".splitpipe-"):
                os.unlink(os.path.join(self._layout.root, name))

    def accounts(self, space: Space) -> None:
        """Count what is used."""
        counted = space.account.correct()
        if counted is not None and counted[0] != counted[1]:
            noted, used = counted
            self.say(f"{noted} bytes were noted as used, {used} are: the accounts were corrected")

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores.values():
            if store is not None:
                with suppress(StorageError):
                    store.close()


def _hollow(data: int, marks: MarkFile, present: Blocks) -> npt.NDArray[np.bool_]:
    """Which of the blocks that are marked have no place on the disk."""
    hollow = np.zeros(len(present), bool)
    if not hasattr(os, "SEEK_DATA"):
        return hollow
    for number, block in enumerate(present.tolist()):
        start, stop = marks.identity.extent(block, 1)
        try:
            hollow[number] = os.lseek(data, start, os.SEEK_DATA) >= stop
        except OSError:  # nothing but a hole up to the end
            hollow[number] = True
    return hollow
