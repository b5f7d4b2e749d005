"""Having here what is read, and knowing whether it still is.

Responsible for: `Keeping`: the mirror of a snapshot, which blocks of it some rows need, what was
seen to be here, and what becomes of bytes that are not here any more, or wrong.

Rules:
- what was seen once is remembered until anything at all is taken away from the cache; where the
  cache cannot hold the whole dataset nothing is remembered, since looking is what keeps a block;
- memory of blocks is never older than the count of what was taken away that goes with it;
- what is wrong is fetched again before it is called damaged: first the index, then what it leads
  to.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from splitpipe.errors import (
    CacheFull,
    CorruptRecord,
    DatasetChanged,
    FormatError,
    SplitpipeError,
    StorageError,
)
from splitpipe.remote.columns import RemoteColumn
from splitpipe.remote.extents import Ranges, Spans
from splitpipe.remote.mirror import ColumnFiles, Mirror
from splitpipe.remote.policy import Policy
from splitpipe.remote.versions import changed, read_manifest
from splitpipe.storage.base import Rows
from splitpipe.storage.committed import Manifest

if TYPE_CHECKING:
    from splitpipe.cache import CachedFile, Prefetch, Token

__all__ = ["Keeping", "Needs", "StillHere"]

Made = TypeVar("Made")
Needs = Sequence[tuple[RemoteColumn, Spans]]
StillHere = Callable[[], bool]

# How often what was taken away meanwhile is fetched again, before it is read through memory.
_ROUNDS = 4
# How often what is wrong is fetched again.
_FETCHED_AGAIN = 2
# Where this many bins and fewer are all here, that is found out at once.
_SURVEYED_BINS = 1024


class Keeping:
    """What is here of a remote dataset.

    Args:
        mirror: where it is.
        columns: by name.
        policy: how it is fetched.
        verify: whether whoever reads compares checksums: then what is remembered need not be
            certain.

    Attributes:
        columns: the same.
        data_nbytes: of all bins, indices and sums together.
        remembers: whether the cache can hold all of it.
    """

    def __init__(
        self,
        mirror: Mirror,
        columns: Mapping[str, RemoteColumn],
        policy: Policy,
        *,
        verify: bool,
    ) -> None:
        self.columns = columns
        self.data_nbytes = sum(sum(column.files.sizes) for column in columns.values())
        self.remembers = self.data_nbytes <= mirror.cache.limit_nbytes
        self._mirror = mirror
        self._policy = policy
        self._verify = verify
        self._evictions = mirror.cache.evictions
        self._seen = self._evictions[0]
        self._lock = threading.Lock()
        self._surveyed = not self.remembers

    def survey(self) -> None:
        """See what is here already, once, before anything is read."""
        if self._surveyed:
            return
        self._surveyed = True
        if sum(column.files.index for column in self.columns.values()) > _SURVEYED_BINS:
            return
        for column in self.columns.values():
            files = column.files
            for number, size in enumerate(files.sizes):
                with suppress(StorageError):  # whoever reads it will be told
                    if files.all_here(number):
                        files.known.add([(number, np.array([[0, size]], dtype=np.int64))])

    @property
    def warm(self) -> bool:
        """Whether all is here, as far as is known: whoever compares checksums need not look."""
        self.survey()
        return (
            self.remembers
            and self._verify
            and all(column.files.known.complete for column in self.columns.values())
        )

    def forget(self) -> None:
        """What was seen may not be here any more."""
        with self._lock:
            self._seen = self._evictions[0]
            for column in self.columns.values():
                column.files.known.forget()

    # -- having ----------------------------------------------------------------------------

    def ensure(self, rows: Rows, names: Sequence[str], *, apart: bool = False) -> StillHere:
        """Have what some rows need.

        Args:
            rows: physical.
            names: of columns.
            apart: whether what lies among them is likely to be read elsewhere.

        Returns:
            What tells whether it is still here.
        """
        columns = [self.columns[name] for name in names]
        index = self.index_of(columns, rows)
        if not self.remembers:
            self.have(index)
            # One token for both: the index may be taken away while the bins come.
            return self.have([*index, *self.data_of(columns, rows)])
        seen = self.uptodate()
        self.have(index)
        self.have(self.data_of(columns, rows), apart=apart)
        return lambda: self._evictions[0] == seen

    def uptodate(self) -> int:
        """Forget what may not be here any more; the count until which the rest is."""
        seen = self._evictions[0]
        if seen != self._seen:
            self.forget()
        return seen

    def index_of(self, columns: Sequence[RemoteColumn], rows: Rows) -> Needs:
        """What of the indices has the entries of rows."""
        return [(column, column.index_spans(rows)) for column in columns]

    def data_of(self, columns: Sequence[RemoteColumn], rows: Rows) -> Needs:
        """What of the bins has the values of rows."""
        return [(column, column.data_spans(rows)) for column in columns]

    def have(self, needs: Needs, *, apart: bool = False) -> StillHere:
        """Have these blocks, and some around them where all is kept, unless they are ``apart``.

        Raises:
            CacheFull: they are more than the cache can hold at once.
        """
        near = max(1, self._policy.near_nbytes // self._mirror.block_nbytes)
        wanted: list[tuple[ColumnFiles, list[tuple[int, Ranges]]]] = []
        for column, spans in needs:
            left = column.files.known.lacking(spans) if self.remembers else spans
            if len(left[0]):
                extent = near if self.remembers and not apart else 1
                wanted.append((column.files, column.files.wanted(left, extent=extent)))
        if not wanted:
            return _always
        seen = self._seen
        token = self._ensured(wanted)
        if self.remembers:
            with self._lock:
                # Another thread may have seen that something was taken away meanwhile.
                if seen == self._seen:
                    for files, found in wanted:
                        files.known.add(found)
        still_here: StillHere = token.still_valid
        return still_here

    def _ensured(self, wanted: Sequence[tuple[ColumnFiles, list[tuple[int, Ranges]]]]) -> Token:
        for attempt in range(_ROUNDS):
            opened = [pair for files, found in wanted for pair in files.opened(found)]
            try:
                return self._mirror.ensure(opened, extent_nbytes=self._policy.extent_nbytes)
            except StorageError as error:
                if not isinstance(error, DatasetChanged) and error.errno != errno.ENOENT:
                    raise
                # Whoever appended has made files longer: what they had is still there. Only who
                # compares checksums can be sure of that.
                now = read_manifest(self._mirror.store)
                renewed = self._verify and self._mirror.renew(now)
                if not renewed or attempt == _ROUNDS - 1:
                    raise self._changed(now, error) from error
            except FormatError as error:
                raise self._blamed(error) from error
        raise AssertionError("every attempt returns or raises")

    def _changed(self, now: Manifest, error: SplitpipeError) -> SplitpipeError:
        """What is wrong, if the dataset is not the same any more; else the error."""
        ours, url = self._mirror.manifest, self._mirror.store.url
        if isinstance(error, StorageError):
            url = str(error.filename or url)
        elif now.dataset == ours.dataset:
            return error
        if now.dataset != ours.dataset:
            return changed(url, "it was overwritten by another dataset")
        if now.generation != ours.generation:
            return changed(url, f"commit {ours.generation} is read, {now.generation} is there now")
        return error

    def prefetch(self, rows: Rows, names: Sequence[str], *, apart: bool = False) -> Prefetch | None:
        """Ask for what some rows need, without waiting for more than their index entries.

        Args:
            rows: physical.
            names: of columns.
            apart: whether what lies among them is likely to be read elsewhere.

        Returns:
            What was asked for; ``None`` where all is here.
        """
        policy, columns = self._policy, [self.columns[name] for name in names]
        # Neighbours stay until they are needed only where everything does.
        widened = policy.neighbours and self.remembers and not apart
        extent = policy.extent_nbytes // self._mirror.block_nbytes if widened else 1
        self.have(self.index_of(columns, rows))
        wanted: list[tuple[CachedFile, Ranges]] = []
        for column, spans in self.data_of(columns, rows):
            left = column.files.known.lacking(spans) if self.remembers else spans
            wanted += column.files.opened(column.files.wanted(left, extent=max(1, extent)))
        wanted = [(file, ranges) for file, ranges in wanted if file.missing(ranges)]
        if not wanted:
            return None
        return self._mirror.cache.prefetch(wanted, extent_nbytes=policy.extent_nbytes)

    def done_with(self, numbers: Sequence[int]) -> None:
        """Some bins, of every column, are not needed any more in this epoch."""
        for column in self.columns.values():
            files = column.files
            for number in numbers:
                if number < files.index and files.sizes[number]:
                    whole = np.array([[0, files.sizes[number]]], dtype=np.int64)
                    files.file(number).done_with(whole)

    # -- reading what is here --------------------------------------------------------------

    def careful(self, rows: Rows, names: Sequence[str], read: Callable[[], Made]) -> Made:
        """Read after everything needed was seen to be here, again where that did not hold.

        Args:
            rows: physical.
            names: of columns.
            read: reads them from the mirror.

        Raises:
            CacheFull: the cache cannot hold it all at once.
            CorruptRecord: it is damaged where it lies.
        """
        fetched_again = 0
        for _ in range(_ROUNDS + _FETCHED_AGAIN):
            still_here = self.ensure(rows, names)
            try:
                found = read()
            except FormatError as error:
                if self._lost(still_here):
                    continue
                if fetched_again == _FETCHED_AGAIN or not isinstance(error, CorruptRecord):
                    raise self._told(error) from error
                fetched_again += 1
                self._again(rows, names)
                continue
            if self._verify or still_here():
                return found
        raise self._thrashing()

    def of_index(self, names: Sequence[str], read: Callable[[], Made]) -> Made:
        """Read what the index and the sums of columns say.

        Raises:
            CacheFull: the cache cannot hold them.
            FormatError: they are damaged where they lie.
        """
        columns = [self.columns[name] for name in names]
        needs = [(c, s) for c in columns for s in (c.whole_index_spans(), c.page_spans())]
        for attempt in range(_ROUNDS):
            seen = self.uptodate()
            self.have(needs)
            try:
                return read()
            except FormatError as error:
                if self._lost(lambda seen=seen: bool(self._evictions[0] == seen)):  # type: ignore[misc]
                    continue
                if attempt:
                    raise self._told(error) from error
                for column, spans in needs:
                    column.files.throw_away(spans)
                self.forget()
        raise self._thrashing()

    def _thrashing(self) -> CacheFull:
        url = self._mirror.store.url
        return CacheFull(errno.ENOBUFS, "what is read is taken away again at once", url)

    def _again(self, rows: Rows, names: Sequence[str]) -> None:
        """Throw away what some rows need, also what proves their entries."""
        columns = [self.columns[name] for name in names]
        sums: Needs = [(column, column.page_spans()) for column in columns]
        for column, spans in (*self.index_of(columns, rows), *self.data_of(columns, rows), *sums):
            column.files.throw_away(spans)
        self.forget()
        self.have(sums)

    def _lost(self, still_here: StillHere) -> bool:
        """Whether what was looked at is not, or may not be, here any more."""
        placed = self._mirror.place_headers()
        if still_here():
            return placed
        self.forget()
        return True

    def _told(self, error: FormatError) -> SplitpipeError:
        """The error of a file here as that of the object that it is of."""
        url = self._mirror.store.url.rstrip("/")
        told = type(error)(str(error).replace(self._mirror.path, url))
        return self._blamed(told) if isinstance(error, CorruptRecord) else told

    def _blamed(self, error: FormatError) -> SplitpipeError:
        """The error, unless the objects were replaced before their versions were first seen."""
        try:
            return self._changed(read_manifest(self._mirror.store), error)
        except SplitpipeError:
            return error


def _always() -> bool:
    return True
