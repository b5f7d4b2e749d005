"""Weak references that tell of an array's end without running Python code.

Responsible for: `leasing`, the kind of weak reference that sends a few bytes through a socket when
its object is gone; `returning`, what it sends.

Why: the callback of a weak reference runs wherever the last reference was dropped: in the middle of
a training loop, as a rule. Were it Python code, a signal that came meanwhile would be handled in
it, and whatever its handler raises in a callback (KeyboardInterrupt, the SystemExit of a SIGTERM
handler) is printed as "Exception ignored" and forgotten: of the signals sent to a loop that does
nothing but take batches 18 % were lost that way. So the callback is made of parts that are written
in C throughout: ``operator.methodcaller`` calls the reference's own ``give_back``, which is send(2)
as ctypes calls it: it can neither raise nor wait, and keeps the interpreter lock.

Rules:
- what is sent must be sure to fit into the socket's buffer: nobody learns that it did not;
- nothing is sent any more after `stop_leasing`, which has to come before the socket is closed: its
  number may soon be that of another one. Nor from a fork of this process: it dropped its own copy
  of an array, the parent still holds its.
"""

from __future__ import annotations

import ctypes
import os
import socket
import weakref
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lease", "leasing", "returning", "stop_leasing"]

Lease: TypeAlias = "weakref.ref[NDArray[np.uint8]]"

_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_do_nothing = "".format  # takes whatever arguments there are

_send = ctypes.PyDLL(None).send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t

_kinds: weakref.WeakKeyDictionary[socket.socket, type[Lease]] = weakref.WeakKeyDictionary()


def leasing(channel: socket.socket) -> type[Lease]:
    """Return the kind of weak reference whose callbacks send through `channel`.

    Example:
        >>> from splitpipe.transport.sockets import SocketPair
        >>> pair = SocketPair()
        >>> kind = leasing(pair.write)
        >>> array = np.zeros(3, np.uint8)
        >>> reference = kind(array, returning(b"it is gone"))
        >>> del array
        >>> pair.read.recv(99)
        b'it is gone'
        >>> stop_leasing(pair.write); pair.close()
    """
    kind = _kinds.get(channel)
    if kind is None:

        class Leased(weakref.ref[NDArray[np.uint8]]):
            # Subclasses of a weak reference without slots of their own are as small as it is.
            __slots__ = ()
            give_back: Any = partial(_send, channel.fileno())

        kind = _kinds[channel] = Leased
    return kind


def returning(data: bytes) -> Callable[[Lease], object]:
    """Return the callback that sends `data`, for references of any kind that `leasing` made."""
    return methodcaller("give_back", data, len(data), _FLAGS)


def stop_leasing(channel: socket.socket) -> None:
    """Let references send nothing through `channel` any more. Safe to call twice."""
    kind = _kinds.pop(channel, None)
    if kind is not None:
        kind.give_back = _do_nothing  # type: ignore[attr-defined]


def _stop_all() -> None:
    for channel in list(_kinds):
        stop_leasing(channel)


os.register_at_fork(after_in_child=_stop_all)
