"""A folder in which a remote dataset lies as if it were a local one.

Responsible for: `Mirror`: the objects of one snapshot as sparse files of a cache, linked under
their own names in one folder; and `ColumnFiles`, those of one column, by number.

Rules:
- a file is made when it is first needed, of its committed size, so that mapping it is safe whatever
  of it is there;
- the header of a file follows from the manifest: it is written before the first block comes, and
  compared when that has come;
- what is read whole (dictionaries, deleted rows) is written into the folder itself, as the catalog
  is: nobody takes it away.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.remote.extents import FileBlocks, Known, Ranges, Spans
from splitpipe.remote.versions import Versions, changed
from splitpipe.storage import files
from splitpipe.storage.committed import Column, Manifest
from splitpipe.storage.format import (
    FILE_HEADER_NBYTES,
    FileId,
    check_file_header,
    file_header,
    file_name,
)
from splitpipe.storage.snapshot import Snapshot
from splitpipe.stores.base import ObjectStat, Store

if TYPE_CHECKING:
    from splitpipe.cache import BlockCache, CachedFile, Token

__all__ = ["BLOCK_NBYTES", "ColumnFiles", "Mirror"]

BLOCK_NBYTES = 256 << 10
_HEADER = np.array([[0, FILE_HEADER_NBYTES]], dtype=np.int64)


class Mirror:
    """The files of one snapshot of a remote dataset.

    Args:
        store: where the objects are.
        manifest: the snapshot.
        versions: of the objects.
        cache: holds the files.
        block_nbytes: how much of a file comes and goes at once.

    Attributes:
        path: the folder.
        columns: the files of every column, in the order of the manifest.
        reopened: called with what a file is that was closed meanwhile: there may be another one
            of its name now.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        versions: Versions,
        cache: BlockCache,
        *,
        block_nbytes: int = BLOCK_NBYTES,
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.versions = versions
        self.cache = cache
        self.block_nbytes = block_nbytes
        # Copies of one dataset in two places have files of their own.
        place = hashlib.blake2b(store.url.encode(), digest_size=8).hexdigest()
        commit = f"v{manifest.volume:04d}-g{manifest.generation:05d}"
        name = f"{manifest.dataset.hex()}-{commit}-{place}"
        self.path: str = cache.folder(f"mirrors/{name}")
        self.columns = tuple(ColumnFiles(self, column) for column in manifest.columns)
        self.reopened: Callable[[FileId], None] | None = None
        self._files: dict[FileId, CachedFile] = {}
        self._tags: dict[FileId, str | None] = {}
        self._unchecked: set[FileId] = set()
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """What `TableRecords` reads, after what it reads whole was brought here."""
        self._bring_whole()
        indexes: list[int] = []
        try:
            for column in self.columns:
                column.file(column.index)
                column.file(column.sums)
                indexes.append(files.open_file(self._path(column.identities[column.index]), 0))
        except BaseException:
            for descriptor in indexes:
                files.close(descriptor)
            raise
        return Snapshot(self.manifest, indexes, [])

    # -- sparse files ----------------------------------------------------------------------

    def file(self, identity: FileId, size: int) -> CachedFile:
        """The sparse file of an object, of which ``size`` bytes are committed."""
        found = self._files.get(identity)
        if found is None:
            name = file_name(identity)
            stat = self.versions.of(name, size)
            with self._lock:
                found = self._files.get(identity)
                if found is None:
                    found = self._opened(identity, name, stat)
        return found

    def _opened(self, identity: FileId, name: str, stat: ObjectStat) -> CachedFile:
        found = self.cache.open(
            self.store,
            name,
            size=stat.size,
            tag=stat.tag,
            identity=f"{identity.dataset.hex()}/{name}/{stat.size}",
            block_nbytes=self.block_nbytes,
        )
        self._place_header(identity, found)
        self._link(found.path, os.path.join(self.path, name))
        if identity in self._tags and self.reopened is not None:
            self.reopened(identity)
        self._unchecked.add(identity)
        self._tags[identity] = stat.tag
        self._files[identity] = found
        self._close_some()
        return found

    def _close_some(self) -> None:
        """Keep a bounded number of bins open; the rest stays mapped as long as it is read."""
        bins = [identity for identity in self._files if identity.kind == "bin"]
        for identity in bins[: max(0, len(bins) - _MOST_BINS)]:
            # Somebody may be at work with it: it closes itself when nobody has it any more.
            self._files.pop(identity)
            self._unchecked.discard(identity)

    def _place_header(self, identity: FileId, file: CachedFile) -> bool:
        """Write what the first bytes must be, unless they are there; whether they were not."""
        if int(file.marks[0]):
            return False
        header = file_header(identity)
        with files.opened(file.path, os.O_RDWR) as descriptor:
            if files.read_at(descriptor, FILE_HEADER_NBYTES, 0, file.path) == header:
                return False
            files.write_at(descriptor, header, 0, file.path)
        return True

    @staticmethod
    def _link(target: str, name: str) -> None:
        with suppress(OSError):
            if os.readlink(name) == target:
                return
        # Two processes may do this at once: each makes a link of its own, the last one stays.
        temporary = f"{name}.{os.getpid()}.{threading.get_ident()}"
        files.unlink(temporary)  # of somebody of this number who was killed
        try:
            with files.translated("link", name):
                os.symlink(target, temporary)
                os.replace(temporary, name)
        finally:
            files.unlink(temporary)

    def ensure(self, wanted: Sequence[tuple[CachedFile, Ranges]], *, extent_nbytes: int) -> Token:
        """Have all of these ranges, of any files, at one moment.

        Raises:
            CacheFull: they are more than the cache can hold at once.
            FormatError: an object is another file than the manifest names.
            RemoteError, StorageError, DatasetChanged: the store does not give them.
        """
        token = self.cache.ensure_all(wanted, extent_nbytes=extent_nbytes)
        if self._unchecked:
            self.check_headers()
        return token

    def place_headers(self) -> bool:
        """Write the headers again that were taken away with their blocks; whether there was one."""
        placed = [self._place_header(*item) for item in list(self._files.items())]
        return True in placed

    def check_headers(self) -> None:
        """Compare headers that came with what they must be.

        Raises:
            FormatError: an object is another file.
        """
        for identity in list(self._unchecked):
            file = self._files.get(identity)
            if file is not None and int(file.marks[0]):
                self._check_header(identity, file)

    def _check_header(self, identity: FileId, file: CachedFile) -> None:
        url = self.versions.url(file_name(identity))
        for again in (True, False):
            raw = file.read(0, FILE_HEADER_NBYTES)
            try:
                check_file_header(raw, identity, url)
            except FormatError:
                if not again:
                    raise
                file.invalidate(_HEADER)
            else:
                break
        self._unchecked.discard(identity)

    def _path(self, identity: FileId) -> str:
        return os.path.join(self.path, file_name(identity))

    def renew(self, manifest: Manifest) -> bool:
        """Go on with objects as they are now, if they have only grown; whether any has.

        Args:
            manifest: the last commit there is.
        """
        ours = {column.number: column for column in self.manifest.columns}
        theirs = {column.number: column for column in manifest.columns}
        same = manifest.dataset == self.manifest.dataset and manifest.rows >= self.manifest.rows
        for number, column in ours.items():
            other = theirs.get(number)
            same = same and other is not None and other.version == column.version
        if not same or manifest.volume != self.manifest.volume:
            return False
        changed_any = False
        with self._lock:
            self.versions.forget()
            for identity, file in list(self._files.items()):
                stat = self.versions.of(file_name(identity), file.size)
                if stat.tag != self._tags[identity]:
                    # The old one is closed when nobody has it any more.
                    self._opened(identity, file_name(identity), stat)
                    changed_any = True
        return changed_any

    # -- whole files -----------------------------------------------------------------------

    def _bring_whole(self) -> None:
        manifest = self.manifest
        for column in manifest.columns:
            if column.dictionary is not None:
                identity = manifest.file_id("dictionary", column)
                self.bring(file_name(identity), FILE_HEADER_NBYTES + column.dictionary.nbytes)
        if manifest.deleted is not None:
            name = file_name(manifest.deleted_id(manifest.deleted.number))
            self.bring(name, FILE_HEADER_NBYTES + manifest.deleted.nbytes)

    def bring(self, name: str, size: int, *, anew: bool = False) -> str:
        """Have the whole of an object in the folder, and return its path.

        Args:
            name: of the object.
            size: bytes that are committed of it.
            anew: what is there is wrong.
        """
        path = os.path.join(self.path, name)
        if not anew and files.size_of(path) == size:
            return path
        stat = self.versions.of(name, size)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
        try:
            with files.opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
                for start in range(0, size, _PIECE_NBYTES):
                    stop = min(size, start + _PIECE_NBYTES)
                    data = self.store.read(name, start, stop, tag=stat.tag)
                    if len(data) != stop - start:
                        raise changed(self.versions.url(name), "it gave fewer bytes than it has")
                    files.write_at(descriptor, data, start, temporary)
                files.sync(descriptor, temporary)
            with files.translated("replace", path):
                os.replace(temporary, path)
        finally:
            files.unlink(temporary)
        return path

    # -- ending ----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the files; they stay in the cache."""
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()


_PIECE_NBYTES = 8 << 20
# Each takes two descriptors, and one more while it is mapped.
_MOST_BINS = 192


class ColumnFiles:
    """The files of one column, by number: its bins, its index, its sums.

    Args:
        mirror: where they lie.
        column: of its manifest.

    Attributes:
        blocks: their blocks.
        identities: what each is.
        index: number of the index.
        known: which blocks were seen to be there.
        sizes: committed bytes of each.
        sums: number of the sums.
    """

    def __init__(self, mirror: Mirror, column: Column) -> None:
        manifest = mirror.manifest
        self._mirror = mirror
        bins = len(column.bin_sizes)
        self.index, self.sums = bins, bins + 1
        self.sizes = [
            *column.bin_sizes,
            manifest.index_size(column),
            manifest.sums_size(column),
        ]
        self.identities = [
            *(manifest.file_id("bin", column, number) for number in range(bins)),
            manifest.file_id("index", column),
            manifest.file_id("sums", column),
        ]
        self.blocks = FileBlocks(self.sizes, mirror.block_nbytes)
        # The sums are read where something is wrong, and with the index alone.
        self.known = Known(self.blocks, self.sums)

    def file(self, number: int) -> CachedFile:
        """One of them."""
        return self._mirror.file(self.identities[number], self.sizes[number])

    def all_here(self, number: int) -> bool:
        """Whether all of one of them is known to be here, without asking anybody."""
        name = file_name(self.identities[number])
        if not self.sizes[number] or not self._mirror.versions.knows(name):
            return False
        return bool(self.file(number).marks.all())

    def url(self, number: int) -> str:
        """Where one of them lies, for messages."""
        return self._mirror.versions.url(file_name(self.identities[number]))

    def fetched(self, number: int, start: int, stop: int) -> bytes:
        """Bytes of one of them from the store, kept nowhere."""
        name = file_name(self.identities[number])
        stat = self._mirror.versions.of(name, self.sizes[number])
        data = self._mirror.store.read(name, start, stop, tag=stat.tag)
        if len(data) != stop - start:
            raise changed(self.url(number), "it gave fewer bytes than it has")
        return data

    def ensure(self, spans: Spans, *, extent_nbytes: int = 1 << 20) -> Token:
        """Have the blocks of spans."""
        return self._mirror.ensure(self.opened(self.wanted(spans)), extent_nbytes=extent_nbytes)

    def throw_away(self, spans: Spans) -> None:
        """The blocks of spans are wrong: have them fetched anew."""
        for file, ranges in self.opened(self.wanted(spans)):
            file.invalidate(ranges)

    def wanted(self, spans: Spans, *, extent: int = 1) -> list[tuple[int, Ranges]]:
        """Byte ranges of spans of blocks, by number of the file."""
        return self.blocks.merged(spans, extent=extent)

    def opened(self, needs: Sequence[tuple[int, Ranges]]) -> list[tuple[CachedFile, Ranges]]:
        """The same, by file."""
        return [(self.file(number), ranges) for number, ranges in needs]
