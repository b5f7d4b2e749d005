"""Pooled shared memory in which payloads lie while messages travel.

Responsible for: the slots of one producing worker, handing them out, and learning when a reader is
done. `ArenaLink` is what the owner of a run makes for a worker; the worker takes its `Arena` from
it (it alone allocates), every reader takes an `ArenaView`.

Rules:
- slots are made when first needed, reserved and faulted in once, and reused, the lowest free one
  first: a hot slot is still in the cache, a fresh page costs more than writing it;
- a slot returns when the last view of it is gone, in the reader *and* in the producer: whoever
  keeps an array, keeps its bytes;
- a reader keeps at most ``lease_limit`` slots of one producer; what it keeps beyond that it gets
  as copies, so that no producer waits for ever for a slot;
- the sum of the slots never exceeds ``limit`` bytes; what does not fit is told to the caller
  (None), who sends it another way;
- a reader that is about to wait says which slots it keeps meanwhile: nobody waits for those;
- slots come back through a socket pair, which is also what a producer without a slot waits on: no
  flag in shared memory whose meaning depends on the order in which a processor makes stores
  visible;
- no Python code runs when a view goes: what a signal's handler raises there, Ctrl-C for one, Python
  would print and forget (see `splitpipe.transport.lease`).

Method: a pool of reused shared-memory slots as in spdl's SegmentPool; out-of-band buffers as in
PEP 574.
"""

from __future__ import annotations

import contextlib
import mmap
import select
import socket
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import BrokenChannel, ChannelError
from splitpipe.transport.anonymous import HUGE, Descriptor, anonymous_file, reserve, reserve_huge
from splitpipe.transport.base import Watcher
from splitpipe.transport.lease import Lease, leasing, returning, stop_leasing
from splitpipe.transport.native.kernel import drain
from splitpipe.transport.slot import CACHE_LINE, Bounds, Segment, Slot, map_slot, slot_nbytes
from splitpipe.transport.sockets import SocketPair

__all__ = ["Arena", "ArenaLink", "ArenaStatistics", "ArenaView"]

_HEADROOM = 16
"""A new slot is 1/16 larger than what it is for, so that something slightly larger can reuse it."""
_INDEX = struct.Struct("<I")
_KEPT = 1 << 31
_WAKE = 2**32 - 1  # the number of no slot
"""Beside an index: the reader keeps this slot, and waits for the producer's next message."""
_MOST_SLOTS = 192
"""More would be more returns under way than a socket's buffer holds on every system (each takes
about 768 bytes of it), and a return that did not fit would be lost."""
_RETURNS_NBYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class ArenaStatistics:
    """Slots and bytes that exist, the limit, and how often something had to go without a slot."""

    slots: int
    nbytes: int
    limit: int
    refused: int


class Arena:
    """The producer's side. Not for several threads at once."""

    def __init__(
        self,
        memory: Descriptor,
        returns: socket.socket,
        bounds: Bounds,
        waker: socket.socket | None = None,
    ) -> None:
        self._memory = memory
        self._returns = returns
        self._waker = waker
        self._bounds = bounds
        self._poll = select.poll()
        self._poll.register(returns, select.POLLIN)
        self._slots: dict[int, Slot] = {}
        self._outside: set[int] = set()
        self._kept: set[int] = set()
        self._next = 0
        self._end = 0
        self._nbytes = 0
        self._largest = 0
        self._refused = 0
        self._full = False
        self._watcher: Watcher | None = None

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of every wait for a slot."""
        self._watcher = watcher

    def wake(self) -> None:
        """Let a wait look whether it is unwanted now; from any thread."""
        if self._waker is not None:
            with contextlib.suppress(OSError):  # it was shut, or is woken already
                self._waker.send(_INDEX.pack(_WAKE), socket.MSG_DONTWAIT)

    def acquire(self, nbytes: int, *, wait: bool = True) -> Slot | None:
        """Return an open slot of at least `nbytes`, waiting for one that a reader holds if need be.

        None means: no slot can be had, now or by waiting (too large for the limit, out of memory,
        or all of them are held by the producer itself).

        Raises:
            BrokenChannel: the run was shut while waiting.
        """
        self._largest = max(self._largest, nbytes)
        self._collect(block=False)
        while True:
            slot = self._lowest(nbytes)
            if slot is not None:
                slot.open()
                return slot
            new = self._grow(nbytes) or self._replace(nbytes)
            if new is not None:
                return new
            if not wait or self._outside <= self._kept or nbytes > self._bounds.limit:
                self._refused += 1
                return None
            if self._watcher is None:
                self._collect(block=True)
            elif not self._await(self._watcher):
                return None

    def _await(self, watcher: Watcher) -> bool:
        """Wait for a slot to come back, unless nobody wants it."""
        watcher.begin_wait(self._nothing_came_back)
        try:
            if not watcher.unwanted():
                self._collect(block=True)
        finally:
            watcher.end_wait()
        return not watcher.unwanted()

    def _nothing_came_back(self) -> bool:
        """For other threads, while this one waits."""
        poll = select.poll()  # the other one may be in use
        poll.register(self._returns, select.POLLIN)
        return not poll.poll(0)

    def _lowest(self, nbytes: int) -> Slot | None:
        for slot in self._slots.values():
            if slot.free and slot.nbytes >= nbytes and not slot.pinned:
                return slot
        return None

    def send(self, slot: Slot) -> Segment:
        """Seal `slot`: a message that names it is about to leave."""
        self._outside.add(slot.index)
        self._kept.discard(slot.index)
        slot.array = None
        return slot.segment

    def cancel(self, slot: Slot) -> None:
        """Take `slot` back: no message names it."""
        slot.array = None
        slot.free = True

    def wait_for_shut(self) -> None:
        """Wait until the run is over.

        Raises:
            BrokenChannel: it is.
        """
        while True:
            self._collect(block=True)

    def statistics(self) -> ArenaStatistics:
        return ArenaStatistics(len(self._slots), self._nbytes, self._bounds.limit, self._refused)

    def close(self) -> None:
        """Let go of descriptors; arrays that still live keep their memory."""
        self._slots.clear()
        self._memory.close()
        self._returns.close()

    def _collect(self, *, block: bool) -> None:
        """Take note of the slots that came back; with `block`, of at least one."""
        try:
            if block:
                self._poll.poll()
            came = drain(self._returns.fileno())
        except OSError as error:
            raise BrokenChannel("the arena was shut") from error
        if came is None:
            raise BrokenChannel("the arena was shut")
        for index in came:
            if index == _WAKE:
                continue
            if index & _KEPT:
                self._kept.add(index ^ _KEPT)
                continue
            self._outside.discard(index)
            self._kept.discard(index)
            self._slots[index].free = True

    def _grow(self, nbytes: int) -> Slot | None:
        size = slot_nbytes(max(nbytes + nbytes // _HEADROOM, self._largest) + CACHE_LINE)
        if self._nbytes + size > self._bounds.limit:
            size = slot_nbytes(nbytes + CACHE_LINE)
        bounds = self._bounds
        full = len(self._slots) >= bounds.most(size) or self._nbytes + size > bounds.limit
        if full or (self._full and self._outside):
            return None
        if size % HUGE == 0:
            self._end = -(-self._end // HUGE) * HUGE
        try:
            (reserve_huge if size % HUGE == 0 else reserve)(self._memory.fd, self._end, size)
            memory = map_slot(self._memory.fd, self._end, size)
        except OSError:
            self._full = True  # ask again only when nothing comes back by waiting
            return None
        slot = Slot(self._next, self._end, size, memory)
        self._slots[slot.index] = slot
        self._next += 1
        self._end += size
        self._nbytes += size
        slot.open()
        return slot

    def _replace(self, nbytes: int) -> Slot | None:
        """Give up free slots that are too small, the smallest first, until a large one fits."""
        small = [slot for slot in self._slots.values() if slot.free and not slot.pinned]
        for slot in sorted(small, key=lambda slot: slot.nbytes):
            del self._slots[slot.index]
            self._nbytes -= slot.nbytes
            slot.retire()
            self._full = False
            new = self._grow(nbytes)
            if new is not None:
                return new
        return None


class ArenaView:
    """A reader's side of one producer's arena."""

    def __init__(
        self, memory: Descriptor, returns: socket.socket, bounds: Bounds, *, warn: bool = False
    ) -> None:
        self._memory = memory
        self._returns = returns
        self._bounds = bounds
        self._warn = warn
        # By place and size: a slot that is mapped, and how many of its size this reader may keep.
        self._maps: OrderedDict[tuple[int, int], tuple[mmap.mmap, int]] = OrderedDict()
        self._lease = leasing(returns)
        self._leases: dict[int, Lease] = {}
        self._told: set[int] = set()
        self.copies = 0

    def lease(self, segment: Segment, *, beside: int = 0) -> NDArray[np.uint8]:
        """Return the bytes of `segment`; the slot goes back when the last view of them is gone.

        When this reader already holds as many slots as it may, the bytes are a copy (see `copies`);
        `beside` slots, of the same message, do not count.
        """
        index, offset, nbytes = segment
        mapped = self._maps.get((offset, nbytes))
        if mapped is None:
            mapped = self._map(segment), self._bounds.leases(nbytes)
            self._maps[offset, nbytes] = mapped
            # More than that are slots that the producer has retired.
            if len(self._maps) > 4 * self._bounds.lease_limit + 16:
                self._maps.popitem(last=False)
        memory, limit = mapped
        array = np.frombuffer(memory, np.uint8, nbytes)
        if len(self._leases) - beside >= limit and self.leases - beside >= limit:
            self._note_copy(limit)
            array = array.copy()
            self.release(segment)
            return array
        self._told.discard(index)
        self._leases[index] = self._lease(array, _returning(index))
        return array

    def release(self, segment: Segment) -> None:
        """Give the slot back unread."""
        self._send(segment.number)

    def keep(self) -> None:
        """Say which slots will not come back before the producer's next message has come."""
        for index, lease in list(self._leases.items()):
            array = lease()  # while this is held, it cannot return before it is told of
            if array is not None and index not in self._told:
                self._told.add(index)
                self._send(index | _KEPT)

    @property
    def leases(self) -> int:
        """How many slots views of this process keep from returning."""
        for index, lease in list(self._leases.items()):
            if lease() is None:
                del self._leases[index]
        return len(self._leases)

    def close(self) -> None:
        """Let go of descriptors; arrays that still live keep their memory."""
        stop_leasing(self._returns)
        self._maps.clear()
        self._memory.close()
        self._returns.close()

    def _map(self, segment: Segment) -> mmap.mmap:
        try:
            return map_slot(self._memory.fd, segment.offset, segment.nbytes)
        except OSError as error:
            raise ChannelError(
                f"{segment.nbytes} bytes of shared memory could not be mapped: {error}; "
                "lower arena_bytes or prefetch"
            ) from error

    def _note_copy(self, limit: int) -> None:
        self.copies += 1
        if self._warn and self.copies == 1:
            warnings.warn(
                f"{limit} batches of one worker are being kept: further ones are "
                "copied out of shared memory. Let go of batches, or raise prefetch",
                RuntimeWarning,
                stacklevel=2,
            )

    def _send(self, number: int) -> None:
        with contextlib.suppress(OSError):  # the run is over
            self._returns.send(_INDEX.pack(number), socket.MSG_DONTWAIT)


@lru_cache(4 * _MOST_SLOTS)
def _returning(index: int) -> Callable[[Lease], object]:
    return returning(_INDEX.pack(index))


class ArenaLink:
    """One producer's arena as the owner of a run sees it.

    Args:
        bounds: how large it may become.
    """

    def __init__(self, bounds: Bounds) -> None:
        if bounds.slots > _MOST_SLOTS:
            kept = min(bounds.lease_limit, _MOST_SLOTS - 2)
            bounds = replace(bounds, slots=_MOST_SLOTS, lease_limit=kept)
        self.bounds = bounds
        self._returns = SocketPair(buffer_nbytes=_RETURNS_NBYTES)
        self._memory = Descriptor(anonymous_file("splitpipe-arena"))

    def writer(self) -> Arena:
        """Return the producer's side; once, in the process that will use it."""
        return Arena(self._memory, self._returns.read, self.bounds, self._returns.write)

    def reader(self, *, warn: bool = False) -> ArenaView:
        """Return a reader's side; once a process. With `warn` it warns when it first has to
        copy.
        """
        return ArenaView(self._memory, self._returns.write, self.bounds, warn=warn)

    def shut(self) -> None:
        """Wake a producer that waits for a slot: none will come."""
        self._returns.shut()

    def close(self) -> None:
        """Let go of the owner's handles."""
        stop_leasing(self._returns.write)
        self._returns.close()
        self._memory.close()
