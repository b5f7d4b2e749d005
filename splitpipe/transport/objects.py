"""Values on their way from one thread to another of the same process.

Responsible for: `ObjectPacker`, with which a task's outbox packs values that stay objects, and the
`Shelf` on which they wait. It is the payload's third place, beside the message and the arena: the
channel carries a ticket, as it carries the place of a slot.

Rules:
- a value passes as it is when nobody else can change it any more, and is copied otherwise, at the
  moment it is added (see `splitpipe.transport.ownership`);
- an array that `allocate` made is its reader's once it was sent, and read-only for its maker, as it
  is between processes;
- a shelf is bounded in bytes: who puts more on it waits until its reader has taken something; one
  value of any size always fits, so that nobody waits for ever;
- what nobody takes goes with the shelf.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from splitpipe.errors import BrokenChannel, NotPicklable
from splitpipe.transport.arena import ArenaStatistics
from splitpipe.transport.base import Buffer, Watcher
from splitpipe.transport.native.kernel import address
from splitpipe.transport.ownership import (
    COUNTED,
    Probe,
    constant,
    contents,
    copied,
    duplicate,
    probes,
    references,
    sole_base,
    weight_of,
)
from splitpipe.transport.tensors import copied_tensor, is_tensor

__all__ = ["ObjectPacker", "Shelf"]

_TICKET = struct.Struct("<4sQ")
_MARK = b"here"
_MOST_HELD = 8
"""References that the way to the packer may hold. More were no way, but somebody looking on."""

_MADE = np.dtype(np.uint8, metadata={"splitpipe": "made by allocate"})
"""Marks memory that is handed over with the array that its maker still holds."""


class Shelf:
    """Where the values of one producer wait for their readers.

    Args:
        limit: bytes that may wait; beyond them `put` waits.

    Example:
        >>> shelf = Shelf(1 << 20)
        >>> ticket = shelf.put([1, "two"], 11)
        >>> shelf.take(ticket)
        [1, 'two']
    """

    copies = 0
    """As of `ArenaView`: payloads that had to be copied because the reader kept too many."""
    leases = 0

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[int, tuple[list[Any], int]] = {}
        self._taken = threading.Condition(threading.Lock())
        self._nbytes = 0
        self._number = 0
        self._shut = False
        self._watcher: Watcher | None = None

    def watch(self, watcher: Watcher) -> None:
        """As of `Arena`."""
        self._watcher = watcher

    def wake(self) -> None:
        """As of `Arena`."""
        with self._taken:
            self._taken.notify_all()

    def put(self, values: list[Any], nbytes: int, *, wait: bool = True) -> bytes:
        """Lay `values` down; return what `take` wants.

        Raises:
            BrokenChannel: the run was shut.
        """

        def full() -> bool:
            return bool(self._values) and self._nbytes + nbytes > self._limit and not self._shut

        watcher = self._watcher
        if wait and watcher is not None and full():
            watcher.begin_wait(full)
            try:
                with self._taken:
                    self._taken.wait_for(lambda: not full() or watcher.unwanted())
            finally:
                watcher.end_wait()
            wait = not watcher.unwanted()
        with self._taken:
            while wait and full():
                self._taken.wait()
            if self._shut:
                raise BrokenChannel("the shelf was shut")
            self._number += 1
            self._nbytes += nbytes
            self._values[self._number] = values, nbytes
            return _TICKET.pack(_MARK, self._number)

    def take(self, body: Buffer) -> list[Any]:
        """Return the values of a ticket; they are the caller's now. Once."""
        mark, number = _TICKET.unpack(body)
        if mark != _MARK:
            raise ValueError("a body is no ticket of a shelf: a fault of splitpipe")
        with self._taken:
            if number not in self._values:
                raise BrokenChannel("what lay on the shelf went with it")
            values, nbytes = self._values.pop(number)
            self._nbytes -= nbytes
            self._taken.notify_all()
        return values

    def keep(self) -> None:
        """As of `ArenaView`: what a reader keeps is no concern of a shelf."""

    def writer(self) -> Shelf:
        """As of `ArenaLink`: the producer's side."""
        return self

    def reader(self, *, warn: bool = False) -> Shelf:
        """As of `ArenaLink`: a reader's side; nothing here is worth a warning."""
        del warn
        return self

    def wait_for_shut(self, timeout_s: float | None = None) -> None:
        """Wait until the run is over, or for so long.

        Raises:
            BrokenChannel: it is over.
        """
        with self._taken:
            if not self._taken.wait_for(lambda: self._shut, timeout_s):
                return
        raise BrokenChannel("the shelf was shut")

    def shut(self) -> None:
        """Wake a producer that waits: nothing more will be taken."""
        with self._taken:
            self._shut = True
            self._taken.notify_all()

    def close(self) -> None:
        """Let go of what nobody took."""
        self.shut()
        with self._taken:
            left, self._values = self._values, {}
            self._nbytes = 0
        del left  # its end may run anything: not under the lock

    def statistics(self) -> ArenaStatistics:
        """Return what waits, as an arena says what it has: messages, bytes, and the limit."""
        with self._taken:
            return ArenaStatistics(len(self._values), self._nbytes, self._limit, 0)


class ObjectPacker:
    """As `splitpipe.transport.envelope.Packer`, for readers in this process.

    Args:
        shelf: where values wait.
        wait: whether to wait for room on it. Who may have to send something that the reader needs
            before it can go on must not.
    """

    def __init__(self, shelf: Shelf, *, wait: bool = True) -> None:
        self._shelf = shelf
        self._wait = wait
        self._values: list[Any] = []
        self._held = -1  # until it is measured, nothing is ours
        self.nbytes = 0
        """Bytes collected so far."""

    @property
    def count(self) -> int:
        """Values collected so far."""
        return len(self._values)

    def watch(self, watcher: Watcher) -> None:
        """See `Shelf.watch`."""
        self._shelf.watch(watcher)

    def wake(self) -> None:
        """See `Shelf.wake`."""
        self._shelf.wake()

    def calibrate(self, feed: Callable[[Iterator[Any]], object]) -> None:
        """Measure what the way to `add` holds of a value: `feed` sends each of some items there.

        Values that come another way are then taken for shared rather than for ours.
        """
        if COUNTED:
            feed(probes())

    def allocate(
        self,
        shape: int | Sequence[int],
        dtype: DTypeLike = np.uint8,
        near: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return an uninitialised array that passes without a copy, also if its maker keeps it."""
        del near
        kind = np.dtype(dtype)
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = math.prod(dims) * kind.itemsize
        if kind.hasobject or nbytes == 0:
            return np.empty(dims, kind)
        return np.empty(nbytes, _MADE).view(kind).reshape(dims)

    def add(self, value: object) -> None:
        """Take `value`, or a copy of it, now.

        Raises:
            NotPicklable: somebody else holds it, and it cannot be copied; nothing was added.
        """
        held = references(value)  # as measured: no call may come between
        if type(value) is Probe:
            self._learn(held)
            return
        ours = held <= self._held
        weight = contents(value) if ours else constant(value)
        if weight is None:
            value, weight = self._copy(value, ours=ours)
        self._values.append(value)
        self.nbytes += weight

    def add_atoms(self, values: list[Any]) -> None:
        """Take many values that cannot change; a body holds either these or single values."""
        self._values = values
        self.nbytes += weight_of(values)

    def pack(self, *, bulk: bool = False) -> list[Buffer]:
        """Lay down what was collected, and return the parts of the body."""
        del bulk
        values, nbytes = self._values, self.nbytes
        self._values, self.nbytes = [], 0
        return [self._shelf.put(values, nbytes, wait=self._wait)]

    def discard(self) -> None:
        """Forget what was collected."""
        self._values, self.nbytes = [], 0

    def _learn(self, held: int) -> None:
        if held <= _MOST_HELD:
            self._held = held if self._held < 0 else min(self._held, held)

    @staticmethod
    def _copy(value: Any, *, ours: bool) -> tuple[Any, int]:
        if type(value) is np.ndarray and not value.dtype.hasobject:
            handed = _handed_over(value)
            return (value.copy(order="K") if handed is None else handed), value.nbytes
        if is_tensor(type(value)) and (tensor := copied_tensor(value)) is not None:
            return tensor, value.nbytes
        # Before the attempt: what fails leaves references behind.
        weight = contents(value, strict=False) if ours else None
        try:
            return duplicate(value, _take, plainly=weight is not None)
        except NotPicklable as error:
            if weight is not None:
                return value, weight
            raise NotPicklable(
                f"a value of type {type(value).__qualname__} may still be held by its maker, "
                f"and cannot be copied for the next stage: {error.__cause__ or error}"
            ) from error


def _take(raw: memoryview) -> Any:
    """The bytes of an array: its own, if they are handed over, or a copy."""
    array: Any = raw.obj
    handed = _handed_over(array) if type(array) is np.ndarray else None
    if handed is None or not handed.flags.forc:
        return copied(raw)
    return handed.ravel(order="K").view(np.uint8)


def _handed_over(array: NDArray[Any]) -> NDArray[Any] | None:
    """Another array over the memory of `array`, if `allocate` made it and nothing else uses it.

    Its maker can read it for as long as he likes, and cannot write to it any more.
    """
    base = sole_base(array)
    if type(base) is not np.ndarray or base.dtype is not _MADE:
        return None
    offset = address(array) - address(base)
    array.flags.writeable = False  # writing to it again is an error, not a race
    return np.ndarray(array.shape, array.dtype, base, offset, array.strides)
