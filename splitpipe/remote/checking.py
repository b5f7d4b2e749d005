"""Looking at a whole dataset in a store: whether everything is there and right.

Responsible for: `check_remote`, which compares what is there with what the last commit names, and
reads every record.

Rules:
- it reads and never writes, and keeps nothing: blocks pass through a cache of its own;
- one broken record does not end it: findings are collected, up to a bound.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from splitpipe.cache import BlockCache
from splitpipe.errors import FormatError, SplitpipeError, StorageError
from splitpipe.remote.opening import open_remote
from splitpipe.remote.orphans import look
from splitpipe.remote.records import RemoteRecords
from splitpipe.storage.base import records_of
from splitpipe.storage.check import CheckReport, Finding
from splitpipe.storage.table import OpenOptions
from splitpipe.stores.base import Store

__all__ = ["RemoteReport", "check_remote"]

_MOST_FINDINGS = 100
_BLOCK_ROWS = 512
_CACHE_NBYTES = 1 << 30

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RemoteReport(CheckReport):
    """The outcome of `check_remote`.

    Attributes:
        orphans: objects with names that a writer gives which the last commit does not name, and
            their sizes; nothing is wrong with that, see `splitpipe.remote.orphans`.
    """

    orphans: tuple[tuple[str, int], ...] = ()


def check_remote(store: Store, *, progress: Progress | None = None) -> RemoteReport:
    """Compare what a store has with what the last commit names, and read every record.

    Args:
        store: where the dataset lies; it is not closed.
        progress: called with records that were read, and how many there are.

    Raises:
        FormatError: there is no dataset, or its manifest is damaged.
        StorageError: the store cannot be read.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> from splitpipe.stores import MemoryStore
        >>> store = MemoryStore("memory://train")
        >>> with sp.DatasetWriter(store, spool_dir=tempfile.mkdtemp()) as writer:
        ...     writer.write_many([b"one", b"two"])
        >>> report = check_remote(store)
        >>> report.ok, report.checked, report.orphans
        (True, 2, ())
    """
    found = look(store)
    if found.manifest is None:
        raise FormatError(f"{store.url} is not a splitpipe dataset: it has no manifest")
    missing = [Finding(None, _missing(store, name)) for name in found.missing]
    broken: list[Finding] = []
    checked = 0
    if not any(name.endswith((".index", ".sums")) for name in found.missing):
        checked, broken = _read_all(store, progress)
    findings = [*missing, *broken]
    return RemoteReport(
        path=store.url,
        rows=found.manifest.live_rows,
        checked=checked,
        findings=tuple(findings[:_MOST_FINDINGS]),
        found=len(findings),
        orphans=found.orphans,
    )


def _missing(store: Store, name: str) -> str:
    return (
        f"{store.url.rstrip('/')}/{name} is missing, or has fewer bytes than were committed: "
        "upload it again, from a copy of the dataset"
    )


def _read_all(store: Store, progress: Progress | None) -> tuple[int, list[Finding]]:
    """Read every record; how many could be, and what is wrong with the others."""
    findings: list[Finding] = []
    checked = 0
    with tempfile.TemporaryDirectory(prefix="splitpipe-check-") as folder:
        cache = BlockCache(folder, _CACHE_NBYTES)
        records = open_remote(_Lent(store), cache, options=OpenOptions(allow_pickle=False))
        try:
            total = len(records)
            for first in range(0, total, _BLOCK_ROWS):
                stop = min(total, first + _BLOCK_ROWS)
                wrong = _read(records, first, stop)
                findings += wrong
                checked += stop - first - len(wrong)
                if progress is not None:
                    progress(stop, total)
        finally:
            records.close()
    return checked, findings


def _read(records: RemoteRecords, first: int, stop: int) -> list[Finding]:
    """What is wrong with some records; they are looked at one by one only if anything is."""
    names = tuple(records.schema)
    try:
        records_of(records.schema, records.read(np.arange(first, stop, dtype=np.int64), names))
    except SplitpipeError as error:
        if stop - first == 1:
            return [Finding(first, str(error))]
        if isinstance(error, StorageError) and error.errno == errno.EACCES:
            raise
        return [one for row in range(first, stop) for one in _read(records, row, row + 1)]
    return []


class _Lent:
    """A store that somebody else closes."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.stat, self.read = store.stat, store.read
        self.list, self.write = store.list, store.write

    def close(self) -> None:
        """It is not ours."""
