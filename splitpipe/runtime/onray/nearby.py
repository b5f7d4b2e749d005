"""Joining actors that run on the owner's machine.

Responsible for: `Doorway`, where they come in; `Door`, what they are told of it; `enter`; and
`NearProcess`, an actor as if it were a process of ours.

Rules:
- the door is a socket in the name space of this machine alone: who reaches it can be handed memory.
  Who comes has to be the same user and to know the secret, which goes to actors through Ray;
- each brings two sockets: the *line*, over which it is given work (as any worker process), and its
  *life*, which ends when the process does, however that happens, and in whatever container it is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from splitpipe.runtime.deaths import LOST
from splitpipe.runtime.standby import Line

__all__ = ["Door", "Doorway", "NearProcess", "enter"]

HELLO = struct.Struct("<32sIB")
_PEER = struct.Struct("3i")
_LINE, _LIFE = range(2)
_HELLO_S = 10.0
_END_S = 30.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where an owner is met: the name of a socket, and what opens it."""

    name: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "Door(...)"


def enter(door: Door, number: int) -> tuple[socket.socket, socket.socket] | None:
    """Return line and life of actor `number`; None: the owner is on another machine."""
    made: list[socket.socket] = []
    try:
        for kind in (_LINE, _LIFE):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.append(one)
            one.connect(door.name)
            one.sendall(HELLO.pack(door.secret, number, kind))
    except OSError:
        for one in made:
            one.close()
        return None
    return made[0], made[1]


class Doorway:
    """The owner's side: a socket that listens while a run is on."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.door = Door(f"\0splitpipe-{secrets.token_hex(16)}".encode(), secrets.token_bytes(32))
        self._came: dict[tuple[int, int], tuple[socket.socket, int]] = {}
        self._socket.bind(self.door.name)
        self._socket.listen(1024)
        self._socket.settimeout(_HELLO_S)

    def meet(self, number: int) -> tuple[Line, socket.socket, int] | None:
        """Return line, life and process id of an actor that has entered; None: it is gone again."""
        wanted = [(number, kind) for kind in (_LINE, _LIFE)]
        try:
            while any(one not in self._came for one in wanted):
                self._accept()
        except TimeoutError:
            for one in wanted:
                if one in self._came:
                    self._came.pop(one)[0].close()
            return None
        (line, pid), (life, _) = (self._came.pop(one) for one in wanted)
        return Line(line), life, pid

    def close(self) -> None:
        """Let nobody in any more."""
        self._socket.close()
        for one, _ in self._came.values():
            one.close()
        self._came.clear()

    def _accept(self) -> None:
        """Let one socket in, or turn it away."""
        one, _ = self._socket.accept()
        one.settimeout(_HELLO_S)
        pid, user, _ = _PEER.unpack(
            one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        with contextlib.suppress(OSError):
            hello = one.recv(HELLO.size, socket.MSG_WAITALL)
            if len(hello) == HELLO.size and user == os.getuid():
                secret, number, kind = HELLO.unpack(hello)
                if secrets.compare_digest(secret, self.door.secret):
                    one.settimeout(None)
                    self._came[number, kind] = one, pid
                    return
        one.close()


class NearProcess:
    """An actor on this machine, as `Hand` wants a process.

    Args:
        life: that ends with it.
        pid: its process; 0 where it is in a name space that this one does not see.
        end: asks Ray to end the actor.
    """

    def __init__(self, life: socket.socket, pid: int, end: Callable[[], None]) -> None:
        self.pid = pid
        self._life = life
        self._end = end
        self._code: int | None = None

    @property
    def sentinel(self) -> int:
        """What can be read when it has ended."""
        return self._life.fileno()

    @property
    def exitcode(self) -> int | None:
        """How it ended; None while it has not."""
        if self._code is None:
            try:
                word = self._life.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:
                word = b""
            self._code = 0 if word == b"0" else LOST
        return self._code

    def kill(self) -> None:
        """End it, and do not wait for that."""
        self._end()  # by Ray, which would otherwise report a death that it did not expect

    def join(self) -> None:
        """Wait for its end."""
        if self._code is None:
            poll = select.poll()
            poll.register(self._life, select.POLLIN)
            poll.poll(1e3 * _END_S)

    def close(self) -> None:
        """Let go of it; the actor is ended."""
        self._end()
        self._life.close()
