"""What a worker on another machine says of itself before it may die.

Responsible for: `ToldRow`, a row of a board which tells where its worker is, and `Listener`, which
hears that beside its owner.

Rules:
- a note is with the system before what it is about begins: the connection is written to directly,
  and what was written arrives although the process that did it is gone. The wire of all other
  messages has a thread of its own for that, which dies with the process;
- which unit of work it is at, and whether it waits, is always told; items and stages where they are
  noted at all (see `splitpipe.runtime.notes`);
- what is heard is authenticated (a keyed hash, with a key of this connection alone that came over
  the wire) and not secret: numbers of items, and counters;
- rows are numbered, on whichever way they come: an older one never replaces a newer one;
- who is not told this, because the connection cannot be made, works on: then a death has no place.

Method: BLAKE2 with a key (RFC 7693).
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from splitpipe.runtime import board as b
from splitpipe.runtime.board import Row

__all__ = ["Listener", "NoteAddress", "ToldRow"]

NUMBER = struct.Struct("<Q")
_MAC_NBYTES = 16
_CONNECT_S = 10.0
_LAST_S = 2.0
"""How long to wait for the last word of a worker that is gone."""
_STRANGERS = 8
_READ_NBYTES = 1 << 18

_ALWAYS = frozenset({b.AT_EPOCH, b.STATE})
_ITEMS = _ALWAYS | {b.AT_POSITION, b.AT_STAGE, b.AT_MARK}


@dataclass(frozen=True, slots=True)
class NoteAddress:
    """Where notes are heard.

    Attributes:
        host, port: of the listener.
        key: that authenticates them.
    """

    host: str
    port: int
    key: bytes

    def __repr__(self) -> str:
        return f"NoteAddress({self.host!r}, {self.port})"


class ToldRow:
    """A row of a board, as its worker uses one, which tells of what is noted on it.

    Args:
        row: the worker's, in its own memory.
        address: who hears; None: nobody does.
        items: whether items and stages are noted.
    """

    def __init__(self, row: Row, address: NoteAddress | None, *, items: bool) -> None:
        self._row = row
        self._number = 0
        self._told = _ITEMS if items else _ALWAYS
        self._socket: socket.socket | None = None
        self._key = b""
        if address is not None:
            self._key = address.key
            with contextlib.suppress(OSError):
                place = (address.host, address.port)
                self._socket = socket.create_connection(place, timeout=_CONNECT_S)
                self._socket.settimeout(None)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, field: int) -> float:
        return self._row[field]

    def __setitem__(self, field: int, value: float) -> None:
        self._row[field] = value
        if field in self._told and self._socket is not None:
            self._tell()

    def cast(self, kind: str) -> memoryview:
        """Return the memory of the row, as a memoryview does."""
        return self._row.cast("B").cast(kind)  # type: ignore[call-overload, no-any-return]

    def numbered(self) -> bytes:
        """Return the row as it is now, with its number."""
        self._number += 1
        return NUMBER.pack(self._number) + self._row.tobytes()

    def close(self) -> None:
        """Tell nothing any more. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self) -> None:
        data = self.numbered()
        mac = blake2b(data, digest_size=_MAC_NBYTES, key=self._key).digest()
        try:
            assert self._socket is not None
            self._socket.sendall(mac + data)
        except OSError:
            self.close()  # nobody is there: the wire tells the rest


class Listener:
    """Hears the notes of one worker.

    Args:
        host: the address to listen on.
        floats: that a row has.
    """

    def __init__(self, host: str, floats: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self._listening.setblocking(False)
        port = self._listening.getsockname()[1]
        self.address = NoteAddress(host, port, secrets.token_bytes(32))
        self._nbytes = _MAC_NBYTES + NUMBER.size + 8 * floats
        self._heard: dict[socket.socket, bytes] = {}
        self._known: socket.socket | None = None
        self._was_there = False

    def descriptors(self) -> Iterator[int]:
        """Yield what to wait on: somebody comes, or says something."""
        yield self._listening.fileno()
        for one in self._heard:
            yield one.fileno()

    def take(self) -> bytes | None:
        """Return the newest row that was told, with its number; None: there is none."""
        with contextlib.suppress(BlockingIOError):
            while True:
                one, _ = self._listening.accept()
                one.setblocking(False)
                self._heard[one] = b""
                if len(self._heard) > _STRANGERS:
                    self._drop(next(other for other in self._heard if other is not self._known))
        newest = [self._read(one) for one in list(self._heard)]
        return max(filter(None, newest), key=NUMBER.unpack_from, default=None)

    def last(self) -> Iterator[bytes]:
        """Yield what a worker that is gone has still said, the newest last."""
        until = time.monotonic() + _LAST_S
        while True:
            row = self.take()
            if row is not None:
                yield row
            left_s = until - time.monotonic()
            gone = self._known is None and (self._was_there or not self._heard)
            if gone or left_s <= 0:
                return
            poll = select.poll()
            for fd in self.descriptors():
                poll.register(fd, select.POLLIN)
            poll.poll(1e3 * left_s)

    def close(self) -> None:
        """Hear nothing any more. Safe to call twice."""
        self._listening.close()
        for one in list(self._heard):
            self._drop(one)

    def _read(self, one: socket.socket) -> bytes | None:
        """Return the newest row that came from there, and let go of who is gone or a stranger."""
        data, gone = self._heard[one], False
        with contextlib.suppress(BlockingIOError):
            while not gone:
                try:
                    came = one.recv(_READ_NBYTES)
                except ConnectionError:
                    came = b""
                gone = not came
                data += came
                data = data[max(0, len(data) // self._nbytes - 1) * self._nbytes :]
        self._heard[one] = data
        row = None
        if len(data) >= self._nbytes:
            mac, row = data[:_MAC_NBYTES], data[_MAC_NBYTES : self._nbytes]
            self._heard[one] = data[self._nbytes :]
            own = blake2b(row, digest_size=_MAC_NBYTES, key=self.address.key).digest()
            if secrets.compare_digest(mac, own):
                self._known, self._was_there = one, True
            else:
                row, gone = None, True
        if gone:
            self._drop(one)
        return row

    def _drop(self, one: socket.socket) -> None:
        if self._known is one:
            self._known = None
        self._heard.pop(one, None)
        one.close()
