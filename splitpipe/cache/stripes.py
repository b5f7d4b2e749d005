"""Locks on bytes where the system has none that belong to an open file.

Responsible for: `StripedLocks`, which does what `LockFile` does by ``flock`` on files of a folder:
each byte of a file belongs to one of them.

Rules:
- blocks share stripes: a block may seem taken because another one is. Whoever meets that waits a
  little longer, or throws out something else; nothing else changes, since nobody waits for a lock
  while it holds one of a block;
- within a process the stripe is shared, and who holds which byte is known here;
- what there is one of in a cache (the mutex, the rows) has a file of its own.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Final

from splitpipe.cache import files
from splitpipe.cache.locks import opened_anew

__all__ = ["StripedLocks"]

_STRIPES: Final = 256
_OWN: Final = 4096
"""Bytes before this one, of the accounts, have a file of their own."""
_PAUSE_S: Final = 0.0005


@dataclass
class _Stripe:
    """A file that this process has locked, and the bytes for which it has."""

    descriptor: int
    bytes: set[tuple[str, int]] = field(default_factory=set)


class _Held:
    """What this process holds."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.stripes: dict[str, _Stripe] = {}

    def renew(self) -> None:
        """In a forked child: closing an inherited descriptor lets go of nothing."""
        for stripe in self.stripes.values():
            files.close(stripe.descriptor)
        self.__init__()  # type: ignore[misc]  # all of it anew


_held = _Held()


class StripedLocks:
    """See `LockFile`.

    Args:
        path: an existing file.
        folder: where the stripes are, made if missing.
        life: the byte that is locked by the file itself.
    """

    def __init__(self, path: str, folder: str, *, life: int) -> None:
        self._path = path
        self._folder = folder
        self._life = life
        self._descriptor = files.open_file(path)
        self._mine: set[int] = set()
        os.makedirs(folder, mode=0o700, exist_ok=True)

    @property
    def descriptor(self) -> int:
        """See `LockFile.descriptor`."""
        return self._descriptor

    def try_lock(self, first: int, count: int = 1, *, shared: bool = False) -> bool:
        """See `LockFile.try_lock`."""
        if first == self._life:
            return _flock(self._descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        wanted = range(first, first + count)
        with _held.lock:
            got: list[int] = []
            for byte in wanted:
                if not self._take(byte):
                    self._give(got)
                    return False
                got.append(byte)
            self._mine.update(got)
        return True

    def _take(self, byte: int) -> bool:
        path = self._stripe(byte)
        stripe = _held.stripes.get(path)
        if stripe is None:
            stripe = _Stripe(files.open_file(path, os.O_RDWR | os.O_CREAT))
            if not _flock(stripe.descriptor, fcntl.LOCK_EX):
                files.close(stripe.descriptor)
                return False
            _held.stripes[path] = stripe
        elif (self._path, byte) in stripe.bytes:
            return False
        stripe.bytes.add((self._path, byte))
        return True

    def _give(self, given: list[int]) -> None:
        for byte in given:
            path = self._stripe(byte)
            stripe = _held.stripes.get(path)
            if stripe is None:
                continue
            stripe.bytes.discard((self._path, byte))
            if not stripe.bytes:
                del _held.stripes[path]
                # Said explicitly: a forked child may hold the same open file.
                fcntl.flock(stripe.descriptor, fcntl.LOCK_UN)
                files.close(stripe.descriptor)

    def _stripe(self, byte: int) -> str:
        name = os.path.basename(self._path)
        if name == "state" and byte < _OWN:
            return os.path.join(self._folder, f"own-{byte}")
        stripe = zlib.crc32(f"{name}:{byte}".encode()) % _STRIPES
        return os.path.join(self._folder, f"{stripe:02x}")

    def lock(self, first: int) -> None:
        """See `LockFile.lock`."""
        while not self.try_lock(first):
            time.sleep(_PAUSE_S)

    def unlock(self, first: int, count: int = 1) -> None:
        """See `LockFile.unlock`."""
        if first == self._life:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            return
        given = [byte for byte in range(first, first + count) if byte in self._mine]
        with _held.lock:
            self._mine.difference_update(given)
            self._give(given)

    def is_locked(self, first: int) -> bool:
        """See `LockFile.is_locked`."""
        path = self._path if first == self._life else self._stripe(first)
        if first != self._life and path in _held.stripes:
            return first not in self._mine
        try:
            descriptor = files.open_file(path)
        except FileNotFoundError:
            return False
        try:
            return not _flock(descriptor, fcntl.LOCK_EX)
        finally:
            files.close(descriptor)

    def renew(self, *, shared: int | None = None) -> None:
        """See `LockFile.renew`."""
        if _held.pid != os.getpid():
            _held.renew()
        self._mine = set()
        inherited = self._descriptor
        if inherited < 0:
            return
        self._descriptor = opened_anew(inherited, self._path)
        if shared is not None:
            self.try_lock(shared, shared=True)
        files.close(inherited)

    def close(self) -> None:
        """See `LockFile.close`."""
        with _held.lock:
            self._give(sorted(self._mine))
            self._mine = set()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            files.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
