"""What travels in the body of an Item: values, as streams and buffers.

Responsible for: `Packer`, which turns values into the parts of a body as they are handed to it,
and `unpack`.

Rules:
- a value is serialised at the moment it is added: what its maker does to it afterwards changes
  nothing. Only values that nobody can change (numbers, strings, tuples of them) may wait, and are
  then pickled all at once;
- buffers of `OUT_OF_BAND` bytes and more leave the pickle (PEP 574) and lie in the producer's
  slots; an array that was built in the slot is not copied again;
- a value is either packed whole or not at all: an error while packing leaves the packer as it was;
- a body that needs no slot takes none;
- a stage may be making an array while another thread sends what is pending: one lock for both.

Body, little endian: ``u32 flags, u32 segments, u32 buffers, u32 streams``; a segment is ``u64
index, offset, nbytes``; a buffer ``u64 segment + 1 (0: inline), offset, nbytes``; a stream ``u64
nbytes, buffers``; then the place of the streams as one more buffer, the inline buffers, and the
inline streams.
"""

from __future__ import annotations

import math
import pickle
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from splitpipe.transport.arena import Arena, ArenaView
from splitpipe.transport.base import Buffer, Watcher
from splitpipe.transport.objects import ObjectPacker, Shelf
from splitpipe.transport.pickling import dump, load
from splitpipe.transport.plain import DESCRIPTION, describe, described, is_description, is_plain
from splitpipe.transport.slot import CACHE_LINE, PHASE, Segment, Slot

__all__ = [
    "ATOMS",
    "BULK",
    "OUT_OF_BAND",
    "Packer",
    "UnpackError",
    "make_packer",
    "parse",
    "release",
    "unpack",
]

OUT_OF_BAND = 2048
"""Bytes from which a buffer leaves the pickle; below, a copy is cheaper than a table entry."""

STREAMS_IN_ARENA = 32 << 10
"""Bytes of pickle from which it lies in a slot instead of in the message."""

SMALLEST_SLOT = 256 << 10

ATOMS = frozenset(
    {int, float, complex, bool, str, bytes, type(None)}
    | {np.float64, np.float32, np.float16, np.bool_, np.int8, np.int16, np.int32, np.int64}
    | {np.uint8, np.uint16, np.uint32, np.uint64}
)
"""Types whose values cannot change."""

_HEAD = struct.Struct("<IIII")
_NOTHING = np.empty(0, np.uint8)
BULK = 1
"""A flag: the only value is a list of values."""

_ONE = struct.Struct("<IIII11Q")
_PLAIN = struct.Struct("<IIII5Q")
"""The table of a body that is one stream and nothing else."""

_ONE_NBYTES = _ONE.size + DESCRIPTION.size
"""The commonest body: one slot, one buffer in it, one stream, which describes an array."""


class UnpackError(Exception):
    """A value could not be restored; `values` are the ones before it, the cause is what it
    raised.
    """

    def __init__(self, values: list[Any]) -> None:
        super().__init__("a value could not be restored")
        self.values = values


class Packer:
    """Collects values for one body at a time; `pack` hands them out and starts the next.

    Args:
        arena: where buffers go; without one they travel inside the message.
        wait: whether to wait for a slot that a reader holds. Who may have to send something that
            the reader needs before it can give a slot back must not.
    """

    def __init__(self, arena: Arena | None, *, wait: bool = True) -> None:
        self._arena = arena
        self._wait = wait
        self._slots: list[Slot] = []
        self._streams: list[bytes] = []
        self._counts: list[int] = []
        self._buffers: list[tuple[int, int, int]] = []
        self._inline: list[Buffer] = []
        # What `allocate` made last for this body: the array, its segment + 1, its offset.
        self._made: tuple[NDArray[Any], int, int] | None = None
        self._largest = SMALLEST_SLOT
        self._lock = threading.RLock()
        self.nbytes = 0
        """Bytes collected so far."""

    def __len__(self) -> int:
        return len(self._streams)

    def watch(self, watcher: Watcher) -> None:
        """See `Arena.watch`."""
        if self._arena is not None:
            self._arena.watch(watcher)

    def wake(self) -> None:
        """See `Arena.wake`."""
        if self._arena is not None:
            self._arena.wake()

    def allocate(
        self,
        shape: int | Sequence[int],
        dtype: DTypeLike = np.uint8,
        near: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return an uninitialised array for a value to come, in a slot when one can be had.

        Also right when the array is never added, or kept: it is an ordinary array. It lies so that
        copying `near` to its beginning is fast.
        """
        kind = np.dtype(dtype)
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = math.prod(dims) * kind.itemsize
        if self._arena is None or nbytes < OUT_OF_BAND or kind.hasobject:
            return np.empty(dims, kind)
        phase = _phase(near) if near is not None else PHASE
        with self._lock:
            place = self._reserve(nbytes, phase if phase % kind.alignment == 0 else PHASE)
            if place is None:
                return np.empty(dims, kind)
            array = place[1].view(kind).reshape(dims)
            self._made = array, place[0] + 1, self._slots[place[0]].top - nbytes
        return array

    def add(self, value: object) -> None:
        """Serialise `value` now.

        Raises:
            NotPicklable: it cannot be; nothing was added.
        """
        if is_plain(value) and value.nbytes >= OUT_OF_BAND:
            if self._store_made(value):
                return
            raw = pickle.PickleBuffer(cast(Any, value)).raw()
            self._store(describe(value), [raw])
            return
        raws: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < OUT_OF_BAND:
                return True
            raws.append(raw)
            return False

        stream = dump(value, keep, again=raws.clear)
        self._store(stream, raws)

    def add_atoms(self, values: list[Any]) -> None:
        """Serialise many unchangeable values as one; a body holds either these or single values."""
        self._store(dump(values), [])

    def pack(self, *, bulk: bool = False) -> list[Buffer]:
        """Return the parts of the body and start a new one."""
        with self._lock:
            return self._pack(bulk=bulk)

    def _pack(self, *, bulk: bool) -> list[Buffer]:
        if len(self._streams) == 1 and not self._slots and not self._buffers:
            stream = self._streams[0]
            if len(stream) < STREAMS_IN_ARENA:
                self._streams, self._counts, self.nbytes = [], [], 0
                flags = BULK if bulk else 0
                return [_PLAIN.pack(flags, 0, 0, 1, len(stream), 0, 0, 0, 0), stream]
        streams = b"".join(self._streams)
        place = (0, 0, 0)
        if len(streams) >= STREAMS_IN_ARENA:
            found = self._reserve(len(streams))
            if found is not None:
                place = self._fill(found, np.frombuffer(streams, np.uint8))
                streams = b""
        segments = self._seal()
        table: list[int] = []
        for segment in segments:
            table += segment
        for buffer in self._buffers:
            table += buffer
        for stream, count in zip(self._streams, self._counts, strict=True):
            table += (len(stream), count)
        table += place
        head = _HEAD.pack(
            BULK if bulk else 0, len(segments), len(self._buffers), len(self._streams)
        )
        parts: list[Buffer] = [
            head + struct.pack(f"<{len(table)}Q", *table),
            *self._inline,
            streams,
        ]
        self._clear()
        return parts

    def add_packed(self, stream: bytes, raws: list[memoryview]) -> None:
        """Take a value as another packer has serialised it."""
        self._store(stream, raws)

    def calibrate(self, feed: Callable[[Iterator[Any]], object]) -> None:
        """As `ObjectPacker.calibrate`; what is serialised need not be counted."""

    def discard(self) -> None:
        """Forget what was collected."""
        if self._arena is not None:
            for slot in self._slots:
                self._arena.cancel(slot)
        self._clear()

    def _clear(self) -> None:
        self._slots, self._streams, self._counts, self._made = [], [], [], None
        self._buffers, self._inline, self.nbytes = [], [], 0

    def _seal(self) -> list[Segment]:
        if self._arena is None:
            return []
        return [self._arena.send(slot) for slot in self._slots]

    def _store(self, stream: bytes, raws: list[memoryview]) -> None:
        total = sum(raw.nbytes for raw in raws)
        self._largest = max(self._largest, total)
        with self._lock:
            for raw in raws:
                self._buffers.append(self._place(raw))
            self._streams.append(stream)
            self._counts.append(len(raws))
            self.nbytes += total + len(stream)

    def _store_made(self, array: NDArray[Any]) -> bool:
        """As `_store`, if `allocate` has just made this very array for this body."""
        with self._lock:
            if self._made is None or self._made[0] is not array:
                return False
            _, segment, offset = self._made
            nbytes = array.nbytes
            array.flags.writeable = False  # writing to it again is an error, not a race
            self._largest = max(self._largest, nbytes)
            self._buffers.append((segment, offset, nbytes))
            stream = describe(array)
            self._streams.append(stream)
            self._counts.append(1)
            self.nbytes += nbytes + len(stream)
            return True

    def _place(self, raw: memoryview) -> tuple[int, int, int]:
        """Put the bytes of `raw` where a reader finds them and return (segment + 1, offset,
        nbytes).
        """
        source = np.frombuffer(raw, np.uint8)
        for index, slot in enumerate(self._slots):
            offset = slot.place(source)
            if offset is not None:  # it was built here, and is its reader's now
                if isinstance(raw.obj, np.ndarray):
                    raw.obj.flags.writeable = False  # writing to it again is an error, not a race
                return index + 1, offset, raw.nbytes
        # The consumer's array begins where this one does: as aligned as it was.
        place = self._reserve(raw.nbytes, _phase(source))
        if place is None:
            offset = sum(map(len, self._inline))
            self._inline.append(source.tobytes())
            return 0, offset, raw.nbytes
        return self._fill(place, source)

    def _fill(
        self, reserved: tuple[int, NDArray[np.uint8]], source: NDArray[np.uint8]
    ) -> tuple[int, int, int]:
        """Copy `source` to what `_reserve` gave for it; return (segment + 1, offset, nbytes)."""
        index, target = reserved
        np.copyto(target, source)
        offset = self._slots[index].place(target)
        assert offset is not None
        return index + 1, offset, source.nbytes

    def _reserve(self, nbytes: int, phase: int = PHASE) -> tuple[int, NDArray[np.uint8]] | None:
        """Return the number of a slot of this body and `nbytes` of it, or None when no slot can be
        had.
        """
        if self._arena is None:
            return None
        if self._slots:
            target = self._slots[-1].take(nbytes, phase)
            if target is not None:
                return len(self._slots) - 1, target
        roomy = max(nbytes, self._largest)
        slot = self._arena.acquire(roomy, wait=self._wait)
        if slot is None and roomy > nbytes:
            slot = self._arena.acquire(nbytes, wait=self._wait)
        if slot is None:
            return None
        self._slots.append(slot)
        target = slot.take(nbytes, phase)
        assert target is not None
        return len(self._slots) - 1, target


def make_packer(place: Arena | Shelf, *, wait: bool) -> Packer | ObjectPacker:
    """Return what packs values for readers of `place`; see `Packer` for `wait`."""
    return ObjectPacker(place, wait=wait) if isinstance(place, Shelf) else Packer(place, wait=wait)


def _phase(array: NDArray[Any]) -> int:
    """Return where in a cache line an array begins."""
    address: int = array.__array_interface__["data"][0]
    return address % CACHE_LINE


def _one_array(body: Buffer, arena: ArenaView) -> NDArray[Any] | None:
    """The array of a body that holds nothing else, or None: look closer."""
    *head, number, start, size, segment, offset, nbytes, _, _, elsewhere, _, _ = _ONE.unpack_from(
        body
    )
    words = memoryview(body)[_ONE.size :]
    if head != [0, 1, 1, 1] or segment != 1 or elsewhere or not is_description(words):
        return None
    flat = arena.lease(Segment(number, start, size))
    return described(words, flat[offset : offset + nbytes])


def parse(body: Buffer) -> tuple[int, list[Segment], list[int], list[int], memoryview]:
    """Return flags, segments, buffers and streams as the table has them, and what follows it."""
    view = memoryview(body)
    flags, n_segments, n_buffers, n_streams = _HEAD.unpack_from(view)
    words = 3 * n_segments + 3 * n_buffers + 2 * n_streams + 3
    table = struct.unpack_from(f"<{words}Q", view, _HEAD.size)
    segments = [Segment(*table[i : i + 3]) for i in range(0, 3 * n_segments, 3)]
    middle = 3 * (n_segments + n_buffers)
    buffers, streams = list(table[3 * n_segments : middle]), list(table[middle:])
    return flags, segments, buffers, streams, view[_HEAD.size + 8 * words :]


def release(body: Buffer, arena: ArenaView | Shelf | None) -> None:
    """Give back the slots of a body that nobody will read."""
    if isinstance(arena, Shelf):
        arena.take(body)
    elif arena is not None:
        for segment in parse(body)[1]:
            arena.release(segment)


def unpack(body: Buffer, arena: ArenaView | Shelf | None) -> list[Any]:
    """Return the values of a body; arrays in slots are views, writable, that keep their slot.

    Values that stayed in this process come from their shelf.

    Raises:
        UnpackError: a value could not be restored; it carries the ones before.
    """
    if isinstance(arena, Shelf):
        return arena.take(body)
    if len(body) == _ONE_NBYTES and arena is not None:
        array = _one_array(body, arena)
        if array is not None:
            return [array]
    flags, n_segments, n_buffers, n_streams = _HEAD.unpack_from(body)
    if n_streams == 1 and not n_segments and not n_buffers:
        try:
            value = load(memoryview(body)[_PLAIN.size :])
        except Exception as error:
            raise UnpackError([]) from error
        return cast("list[Any]", value) if flags & BULK else [value]
    flags, segments, table, streams, rest = parse(body)
    held: list[NDArray[np.uint8]] = []
    if segments:
        if arena is None:
            raise ValueError("a body names shared memory, and there is none")
        used = {*table[::3], streams[-3]}
        before = arena.leases
        for number, slot in enumerate(segments, 1):
            if number in used:
                held.append(arena.lease(slot, beside=arena.leases - before))
            else:  # made for an array that was never sent
                arena.release(slot)
                held.append(_NOTHING)
    buffers: list[Any] = []
    inline = 0
    for i in range(0, len(table), 3):
        segment, offset, nbytes = table[i : i + 3]
        if segment:
            buffers.append(held[segment - 1][offset : offset + nbytes])
        else:
            buffers.append(bytearray(rest[offset : offset + nbytes]))
            inline += nbytes
    segment, offset, nbytes = streams[-3:]
    text = rest[inline:]
    if segment:
        text = held[segment - 1][offset : offset + nbytes].data
    return _restore(text, streams[:-3], buffers, bulk=bool(flags & BULK))


def _restore(text: memoryview, streams: list[int], buffers: list[Any], *, bulk: bool) -> list[Any]:
    values: list[Any] = []
    position = used = 0
    try:
        for i in range(0, len(streams), 2):
            nbytes, count = streams[i : i + 2]
            part = text[position : position + nbytes]
            if is_description(part):
                values.append(described(part, buffers[used]))
            else:
                values.append(load(part, buffers[used : used + count]))
            position += nbytes
            used += count
    except Exception as error:
        raise UnpackError(values) from error
    return values[0] if bulk else values
