"""What travels in the body of an Item: values, as streams and buffers.

Responsible for: `Packer`, which turns values into the parts of a body as they are handed to it,
and `unpack`.

Rules:
- a value is serialised at the moment it is added: what its maker does to it afterwards changes
  nothing. Only values that nobody can change (numbers, strings, tuples of them) may wait, and are
  then serialised all at once;
- what is plain is a tree (`splitpipe.transport.native.twin`), everything else a pickle;
- buffers of `OUT_OF_BAND` bytes and more leave the stream (PEP 574) and lie in the producer's
  slots; an array that was built in the slot is not copied again;
- a value is either packed whole or not at all: an error while packing leaves the packer as it was;
- a body that needs no slot takes none;
- a stage may be making an array while another thread sends what is pending: one lock for both;
- tables are taken apart as bytes of their own: an iterator of `struct` over a view crashes the
  interpreter when both are garbage in a cycle (seen with CPython 3.11 and 3.13), as they are when
  an exception goes through a loop over it.

Body, little endian: ``u32 flags, u32 segments, u32 buffers, u32 streams``; a segment is ``u64
index, offset, nbytes``; a buffer the place of a tree, ``u64 segment (from 1; 0: inline), offset,
nbytes``; a stream ``u64 nbytes, buffers``; then the place of the streams as one more buffer, the
inline buffers, and the inline streams.
"""

from __future__ import annotations

import math
import pickle
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from splitpipe.transport.arena import Arena, ArenaView
from splitpipe.transport.base import Buffer, Watcher
from splitpipe.transport.native.kernel import MARK, PLACE, address, read, write
from splitpipe.transport.objects import ObjectPacker, Shelf
from splitpipe.transport.pickling import dump, load
from splitpipe.transport.slot import CACHE_LINE, PHASE, Segment, Slot

__all__ = [
    "ATOMS",
    "BULK",
    "OUT_OF_BAND",
    "SINGLE",
    "Packer",
    "Table",
    "UnpackError",
    "make_packer",
    "parse",
    "release",
    "unpack",
]

OUT_OF_BAND = 2048
"""Bytes from which a buffer leaves the stream; below, a copy is cheaper than a table entry."""

STREAMS_IN_ARENA = 32 << 10
"""Bytes of streams from which they lie in a slot instead of in the message."""

SMALLEST_SLOT = 256 << 10

ATOMS = frozenset(
    {int, float, complex, bool, str, bytes, type(None)}
    | {np.float64, np.float32, np.float16, np.bool_, np.int8, np.int16, np.int32, np.int64}
    | {np.uint8, np.uint16, np.uint32, np.uint64}
)
"""Types whose values cannot change."""

_HEAD = struct.Struct("<IIII")
_STREAM = struct.Struct("<QQ")
_NOTHING = np.empty(0, np.uint8)
_NO_PLACE = bytes(PLACE.size)
_TREE = MARK[0]
_segment = partial(tuple.__new__, Segment)
BULK = 1
"""A flag: the only value is a list of values."""
SINGLE = 2
"""A flag: one slot, one stream, which is inline; all buffers are in the slot, at least one."""

_PLAIN = struct.Struct("<IIII5Q")
"""The table of a body that is one stream and nothing else."""


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
        self._spans: tuple[int, ...] = ()  # where they lie, for `write`
        self._streams: list[bytes] = []
        self._sizes = bytearray()  # of the streams, as the body has them
        self._places = bytearray()  # of the buffers
        self._inline: list[Buffer] = []
        self._largest = SMALLEST_SLOT
        self._lock = threading.RLock()
        self.count = 0
        """Values collected so far."""
        self.nbytes = 0
        """Bytes collected so far."""

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
        phase = address(near) % CACHE_LINE if near is not None else PHASE
        with self._lock:
            found = self._reserve(nbytes, phase if phase % kind.alignment == 0 else PHASE)
            if found is not None:
                slot, start = found
                return np.ndarray(dims, kind, slot.array, start)
        return np.empty(dims, kind)

    def add(self, value: object) -> None:
        """Serialise `value` now.

        Raises:
            NotPicklable: it cannot be; nothing was added.
        """
        with self._lock:
            written = write(value, OUT_OF_BAND, self._spans)
            if written is not None:
                stream, places, outside, nbytes = written
                self._keep(
                    stream, places if outside is None else self._put(places, outside), nbytes
                )
                return
        raws: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < OUT_OF_BAND:
                return True
            raws.append(raw)
            return False

        self.add_packed(dump(value, keep, again=raws.clear), raws)

    def add_atoms(self, values: list[Any]) -> None:
        """Serialise many unchangeable values as one; a body holds either these or single values."""
        written = write(values, OUT_OF_BAND, ())
        stream = dump(values) if written is None else written[0]
        with self._lock:
            self._keep(stream, b"", 0)

    def pack(self, *, bulk: bool = False) -> list[Buffer]:
        """Return the parts of the body and start a new one."""
        with self._lock:
            parts = self._parts(BULK if bulk else 0)
            self._clear()
            return parts

    def _parts(self, flags: int) -> list[Buffer]:
        streams = self._streams[0] if self.count == 1 else b"".join(self._streams)
        place = _NO_PLACE
        if len(streams) >= STREAMS_IN_ARENA:
            found = self._reserve(len(streams))
            if found is not None:
                place = self._fill(found, np.frombuffer(streams, np.uint8))
                streams = b""
        elif self.count == 1 and not self._slots and not self._places:
            return [_PLAIN.pack(flags, 0, 0, 1, len(streams), 0, 0, 0, 0), streams]
        if self.count == len(self._slots) == 1 and self._places and streams and not self._inline:
            flags |= SINGLE
        head = _HEAD.pack(flags, len(self._slots), len(self._places) // PLACE.size, self.count)
        table = b"".join((head, *self._sealed(), self._places, self._sizes, place))
        return [table, *self._inline, streams]

    def add_packed(self, stream: bytes, raws: list[memoryview]) -> None:
        """Take a value as a pickle, or as another packer has serialised it."""
        with self._lock:
            places = b"".join([self._place(raw) for raw in raws])
            self._keep(stream, places, sum([raw.nbytes for raw in raws]))

    def calibrate(self, feed: Callable[[Iterator[Any]], object]) -> None:
        """As `ObjectPacker.calibrate`; what is serialised need not be counted."""

    def discard(self) -> None:
        """Forget what was collected."""
        if self._arena is not None:
            for slot in self._slots:
                self._arena.cancel(slot)
        self._clear()

    def _clear(self) -> None:
        self._slots, self._spans, self._streams, self._inline = [], (), [], []
        self._sizes, self._places, self.count, self.nbytes = bytearray(), bytearray(), 0, 0

    def _sealed(self) -> list[bytes]:
        """The segments of the body; they leave with it."""
        if self._arena is None:
            return []
        send = self._arena.send
        return [PLACE.pack(*send(slot)) for slot in self._slots]

    def _keep(self, stream: bytes, places: Buffer, nbytes: int) -> None:
        """Take note of a value whose buffers have their places."""
        self._largest = max(self._largest, nbytes)
        self._streams.append(stream)
        self._sizes += _STREAM.pack(len(stream), len(places) // PLACE.size)
        self._places += places
        self.count += 1
        self.nbytes += nbytes + len(stream)

    def _put(self, places: bytes, outside: list[tuple[int, NDArray[Any]]]) -> Buffer:
        """Give a place to the arrays of a tree that have none."""
        complete = bytearray(places)
        for number, array in outside:
            flat = array.ravel(order="K").view(np.uint8)
            complete[number * PLACE.size : (number + 1) * PLACE.size] = self._copy(flat)
        return complete

    def _place(self, raw: memoryview) -> bytes:
        """Put the bytes of `raw` where a reader finds them and return their place."""
        source = np.frombuffer(raw, np.uint8)
        for segment, slot in enumerate(self._slots, 1):
            offset = slot.place(source)
            if offset is not None:  # it was built here, and is its reader's now
                if isinstance(raw.obj, np.ndarray):
                    raw.obj.flags.writeable = False  # writing to it again is an error, not a race
                return PLACE.pack(segment, offset, raw.nbytes)
        return self._copy(source)

    def _copy(self, source: NDArray[np.uint8]) -> bytes:
        """Copy bytes to where a reader finds them and return their place."""
        # The consumer's array begins where this one does: as aligned as it was.
        found = self._reserve(source.nbytes, address(source) % CACHE_LINE)
        if found is not None:
            return self._fill(found, source)
        offset = sum(map(len, self._inline))
        self._inline.append(source.tobytes())
        return PLACE.pack(0, offset, source.nbytes)

    def _fill(self, found: tuple[Slot, int], source: NDArray[np.uint8]) -> bytes:
        """Copy `source` to what `_reserve` gave for it; return its place."""
        slot, start = found
        assert slot.array is not None
        np.copyto(slot.array[start : start + source.nbytes], source)
        return PLACE.pack(self._slots.index(slot) + 1, start, source.nbytes)

    def _reserve(self, nbytes: int, phase: int = PHASE) -> tuple[Slot, int] | None:
        """Return a slot of this body and where in it `nbytes` begin, or None when no slot can be
        had.
        """
        if self._arena is None:
            return None
        if self._slots:
            start = self._slots[-1].take(nbytes, phase)
            if start is not None:
                return self._slots[-1], start
        roomy = max(nbytes, self._largest)
        slot = self._arena.acquire(roomy, wait=self._wait)
        if slot is None and roomy > nbytes:
            slot = self._arena.acquire(nbytes, wait=self._wait)
        if slot is None:
            return None
        self._slots.append(slot)
        self._spans += slot.address, slot.nbytes
        start = slot.take(nbytes, phase)
        assert start is not None
        return slot, start


def make_packer(place: Arena | Shelf, *, wait: bool) -> Packer | ObjectPacker:
    """Return what packs values for readers of `place`; see `Packer` for `wait`."""
    return ObjectPacker(place, wait=wait) if isinstance(place, Shelf) else Packer(place, wait=wait)


class Table(NamedTuple):
    """What a body says of itself.

    Attributes:
        flags: `BULK`, or 0.
        segments: the slots that it takes up.
        places: of its buffers; in segment 0 are those that are inline.
        sizes: of its streams: how many bytes each, and how many buffers.
        home: the place of the streams.
        rest: what follows: the inline buffers, and the streams where `home` is in segment 0.
    """

    flags: int
    segments: list[Segment]
    places: bytes
    sizes: list[tuple[int, int]]
    home: tuple[int, int, int]
    rest: memoryview


def parse(body: Buffer) -> Table:
    """Return the table of a body."""
    view = memoryview(body)
    flags, n_segments, n_buffers, n_streams = _HEAD.unpack_from(view)
    begin = _HEAD.size + PLACE.size * n_segments
    middle = begin + PLACE.size * n_buffers
    end = middle + _STREAM.size * n_streams
    return Table(
        flags,
        [_segment(one) for one in PLACE.iter_unpack(bytes(view[_HEAD.size : begin]))],
        bytes(view[begin:middle]),
        list(_STREAM.iter_unpack(bytes(view[middle:end]))),
        PLACE.unpack_from(view, end),
        view[end + PLACE.size :],
    )


def release(body: Buffer, arena: ArenaView | Shelf | None) -> None:
    """Give back the slots of a body that nobody will read."""
    if isinstance(arena, Shelf):
        arena.take(body)
    elif arena is not None:
        for segment in parse(body).segments:
            arena.release(segment)


def unpack(body: Buffer, arena: ArenaView | Shelf | None) -> list[Any]:
    """Return the values of a body; arrays in slots are views, writable, that keep their slot.

    Values that stayed in this process come from their shelf.

    Raises:
        UnpackError: a value could not be restored; it carries the ones before.
    """
    if isinstance(arena, Shelf):
        return arena.take(body)
    view = memoryview(body)
    flags, n_segments, n_buffers, n_streams = _HEAD.unpack_from(view)
    if flags & SINGLE and arena is not None:
        start = _HEAD.size + PLACE.size
        end = start + PLACE.size * n_buffers
        held = [arena.lease(_segment(PLACE.unpack_from(view, _HEAD.size)))]
        places, stream = view[start:end], view[end + _STREAM.size + PLACE.size :]
    elif n_streams == 1 and not n_segments and not n_buffers:
        held, places, stream = [], view[:0], view[_PLAIN.size :]
    else:
        table = parse(body)
        return _values(table, _held(table, arena))
    try:
        value = _restored(stream, places, held)
    except Exception as error:
        raise UnpackError([]) from error
    return cast("list[Any]", value) if flags & BULK else [value]


def _held(table: Table, arena: ArenaView | None) -> list[NDArray[np.uint8]]:
    """The bytes of the segments of a body; none where nothing lies in one."""
    if not table.segments:
        return []
    if arena is None:
        raise ValueError("a body names shared memory, and there is none")
    used = {place[0] for place in (*PLACE.iter_unpack(table.places), table.home)}
    before = arena.leases
    held: list[NDArray[np.uint8]] = []
    for number, slot in enumerate(table.segments, 1):
        if number in used:
            held.append(arena.lease(slot, beside=arena.leases - before))
        else:  # made for an array that was never sent
            arena.release(slot)
            held.append(_NOTHING)
    return held


def _values(table: Table, held: list[NDArray[np.uint8]]) -> list[Any]:
    """The values of a body whose segments are `held`."""
    places, text = _apart(table, held)
    values: list[Any] = []
    position = used = 0
    try:
        for nbytes, count in table.sizes:
            part = text[position : position + nbytes]
            values.append(_restored(part, places[used : used + PLACE.size * count], held))
            position += nbytes
            used += PLACE.size * count
    except Exception as error:
        raise UnpackError(values) from error
    return cast("list[Any]", values[0]) if table.flags & BULK else values


def _apart(table: Table, held: list[NDArray[np.uint8]]) -> tuple[Buffer, memoryview]:
    """Give each inline buffer a segment of its own; return all places, and the streams."""
    places = bytearray(table.places)
    inline = 0
    for at, (segment, offset, nbytes) in enumerate(PLACE.iter_unpack(table.places)):
        if not segment:
            copy = bytearray(table.rest[offset : offset + nbytes])
            held.append(np.frombuffer(copy, np.uint8))
            PLACE.pack_into(places, at * PLACE.size, len(held), 0, nbytes)
            inline += nbytes
    segment, offset, nbytes = table.home
    if segment:
        return places, held[segment - 1][offset : offset + nbytes].data
    return places, table.rest[inline:]


def _restored(stream: memoryview, places: Buffer, held: list[NDArray[np.uint8]]) -> Any:
    """One value."""
    if stream[0] == _TREE:
        return read(stream, places, held)
    return load(
        stream, [held[i - 1][at : at + size] for i, at, size in PLACE.iter_unpack(bytes(places))]
    )
