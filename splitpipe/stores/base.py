"""The seam under everything that does not lie on a local disk: objects by key.

Responsible for: the protocol `Store`; `ObjectStat`, what is known of an object without reading it;
the rules that every key obeys; and `MemoryStore`, the real twin in memory.

Rules:
- a key is a relative path of plain names: no ``..``, no leading slash, no empty name. What a
  manifest or a server says is checked by `checked_key` before it is used as one;
- an object is never seen half-written: `Store.write` publishes it whole, or not at all;
- a read gives exactly the bytes that were asked for, of the version that was asked for, or raises;
- every failure is a `StorageError`; one that may pass is a `RemoteError` whose ``transient`` is
  true, and nothing here retries: that is for `RetryingStore`, which wraps any store;
- a store is safe in threads; it pickles as what it needs to connect again, which never holds
  credentials, and connects anew in another process;
- ``url`` names it in messages, caches and checkpoints, and holds no credentials.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from splitpipe.errors import DatasetChanged, FormatError, StorageError

__all__ = ["ABSENT", "MemoryStore", "ObjectStat", "Store", "checked_key"]

ABSENT: Final = ""
"""As the ``expected`` tag of `Store.write`: only where there is no such object yet."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What is known of an object without reading it.

    Attributes:
        size: in bytes.
        tag: names this version of the object (an ETag, a generation, size and time of a file);
            ``None`` where the store cannot tell versions apart.
    """

    size: int
    tag: str | None


class Store(Protocol):
    """Objects by key.

    Attributes:
        url: names the store; keys are relative to it.
    """

    url: str

    def stat(self, key: str) -> ObjectStat:
        """What is known of an object.

        Raises:
            StorageError: with ``errno.ENOENT`` there is none; with ``errno.EACCES`` it may not
                be seen.
            RemoteError: the store did not answer as it should.
        """

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """Bytes ``start`` to ``stop - 1`` of an object; to its end unless ``stop`` is given.

        Args:
            key: of the object.
            start: the first byte.
            stop: one more than the last; not beyond the object's end.
            tag: the version that is wanted; any unless given.

        Raises:
            DatasetChanged: the object is of another version now.
            StorageError, RemoteError: as `stat`; also where it has fewer bytes.
        """

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """Objects whose keys begin with ``prefix``, sorted by key, at any depth.

        Raises:
            StorageError, RemoteError: as `stat`; a store that cannot list raises with
                ``errno.ENOTSUP``.
        """

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """Publish an object, replacing what is there.

        Args:
            key: of the object.
            data: all of it.
            expected: the tag of the version that is to be replaced, or `ABSENT`; any unless given.

        Raises:
            DatasetChanged: there is another version than the expected one; nothing was written.
            StorageError, RemoteError: as `stat`; a store that cannot be written to, or cannot
                make a condition, raises with ``errno.ENOTSUP``.
        """

    def close(self) -> None:
        """Let go of connections; a second call does nothing."""


def checked_key(key: str) -> str:
    """A key that leads nowhere but below its store.

    Raises:
        FormatError: it is absolute, climbs, names another host, or is no plain name.

    Example:
        >>> checked_key("train/v0001-c000.index")
        'train/v0001-c000.index'
        >>> checked_key("../secret")
        Traceback (most recent call last):
        ...
        splitpipe.errors.FormatError: '../secret' is no key: a key is a relative path of plain names
    """
    parts = key.split("/")
    plain = all(part not in ("", ".", "..") for part in parts)
    if not plain or "\\" in key or ":" in parts[0] or not key.isprintable():
        raise FormatError(f"{key!r} is no key: a key is a relative path of plain names")
    return key


class MemoryStore:
    """Objects in memory: the real twin of the remote ones, for tests and small things.

    Args:
        url: what to call it.

    Example:
        >>> store = MemoryStore()
        >>> store.write("a/b", b"hello").size, store.read("a/b", 1, 3)
        (5, b'el')
    """

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self._objects: dict[str, tuple[bytes, ObjectStat]] = {}
        self._lock = threading.Lock()
        self._versions = 0

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        return self._found(key)[1]

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        data, stat = self._found(key)
        if tag is not None and tag != stat.tag:
            raise DatasetChanged(errno.ESTALE, f"it was replaced: {tag} is now {stat.tag}", key)
        end = stat.size if stop is None else stop
        if not 0 <= start <= end <= stat.size:
            text = f"bytes {start} to {end} are wanted, it has {stat.size}"
            raise StorageError(errno.ERANGE, text, key)
        return data[start:end]

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """See `Store.list`."""
        with self._lock:
            found = sorted((key, stat) for key, (_, stat) in self._objects.items())
        return (pair for pair in found if pair[0].startswith(prefix))

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """See `Store.write`."""
        key, data = checked_key(key), bytes(data)
        with self._lock:
            known = self._objects.get(key)
            tag = ABSENT if known is None else known[1].tag
            if expected is not None and expected != tag:
                raise DatasetChanged(
                    errno.ESTALE, f"somebody else wrote it: {tag or 'nothing'} is there", key
                )
            self._versions += 1
            digest = hashlib.blake2b(data, digest_size=8).hexdigest()
            stat = ObjectStat(len(data), f"{self._versions}-{digest}")
            self._objects[key] = data, stat
        return stat

    def close(self) -> None:
        """See `Store.close`; there is nothing to let go of."""

    def _found(self, key: str) -> tuple[bytes, ObjectStat]:
        found = self._objects.get(checked_key(key))
        if found is None:
            raise StorageError(errno.ENOENT, "there is no such object", f"{self.url}{key}")
        return found

    def __repr__(self) -> str:
        return f"MemoryStore({self.url!r}, {len(self._objects)} objects)"
