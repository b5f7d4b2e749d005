"""Objects beside a dataset that no manifest names.

Responsible for: `look`, which compares what lies in a store with what the last commit names.

Rules:
- one listing, and the manifest; nothing else is read, and nothing is ever removed;
- only names that a writer gives are ours; others are none of our business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from splitpipe.errors import StorageError
from splitpipe.remote.upload import claim_key
from splitpipe.storage.catalog_file import catalog_name
from splitpipe.storage.committed import Manifest
from splitpipe.storage.format import MANIFEST_NAME, file_name
from splitpipe.storage.manifest import decode
from splitpipe.stores.base import Store

__all__ = ["Objects", "look", "names_of"]

_OURS: Final = re.compile(
    r"v\d{4,}(\.writer|-c\d{3,}(-b\d{5,}\.bin|(-g\d{5,})?\.(index|sums)|\.dictionary)"
    r"|-deleted-\d{5,}\.rows|-catalog-\d{5,}\.sqlite)"
)


@dataclass(frozen=True, slots=True)
class Objects:
    """What lies in a store, beside what the last commit names.

    Attributes:
        manifest: the last commit; ``None`` without one.
        missing: what it names that is not there, or is smaller than was committed.
        orphans: objects with names that a writer gives which it does not name, and their sizes:
            of earlier commits, which readers may still read, of a writer that is at work, or of
            one that died.
    """

    manifest: Manifest | None
    missing: tuple[str, ...]
    orphans: tuple[tuple[str, int], ...]

    @property
    def orphans_nbytes(self) -> int:
        """Bytes of all orphans together."""
        return sum(size for _, size in self.orphans)


def look(store: Store) -> Objects:
    """Compare what lies in a store with what the last commit names.

    Raises:
        StorageError: the store cannot list, or not be read.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> from splitpipe.stores import MemoryStore
        >>> store = MemoryStore()
        >>> with sp.DatasetWriter(store, bins=2, spool_dir=tempfile.mkdtemp()) as writer:
        ...     writer.write_many([b"one", b"two"])
        >>> _ = store.write("v0002-c000-b00000.bin", b"of a writer that died")
        >>> look(store).orphans
        (('v0002-c000-b00000.bin', 21),)
    """
    sizes = {key: stat.size for key, stat in store.list()}
    try:
        manifest = decode(store.read(MANIFEST_NAME), store.url)
    except StorageError:
        if MANIFEST_NAME in sizes:
            raise
        manifest = None
    named = {}
    if manifest is not None:
        named = {claim_key(manifest.volume): 0, **dict(names_of(manifest))}
    missing = [name for name, size in named.items() if sizes.get(name, 0) < size]
    orphans = [
        (key, size) for key, size in sizes.items() if key not in named and _OURS.fullmatch(key)
    ]
    return Objects(manifest, tuple(missing), tuple(orphans))


def names_of(manifest: Manifest) -> Iterator[tuple[str, int]]:
    """The files that a commit names, and how large each is at least."""
    for column in manifest.columns:
        for identity, size in manifest.files(column):
            if size:
                yield file_name(identity), size
        if column.dictionary is not None:
            name = file_name(manifest.file_id("dictionary", column))
            yield name, column.dictionary.nbytes
    if manifest.deleted is not None:
        yield file_name(manifest.deleted_id(manifest.deleted.number)), manifest.deleted.nbytes
    if manifest.catalog is not None:
        name = catalog_name(manifest.volume, manifest.catalog.number)
        yield name, manifest.catalog.size
