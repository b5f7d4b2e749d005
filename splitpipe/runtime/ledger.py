"""What the sequential tasks of a run know of where they are, for whoever wants to save its state.

Responsible for: `Ladder`, notes of one process, many of what was a moment ago and few of what was
long ago; and `Ledger`, the shared memory in which a worker lays them open.

Rules:
- a note is facts that are true by themselves (see `splitpipe.pipeline.resuming`): it needs no place
  in the stream, so that no message has to carry it, and it outlives who wrote it;
- a worker writes to one half of its ledger while readers read the other, and then points to it.
  Nobody waits; a half that is written while it is read has the wrong checksum, and is read again;
- notes are thinned out so that there always is one near before what is wanted, however far back
  that is: what has to be made again is a fraction of the way back.
"""

from __future__ import annotations

import json
import mmap
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from splitpipe.pipeline.resuming import Fact
from splitpipe.transport.anonymous import Descriptor, anonymous_file, map_shared, reserve

__all__ = ["Ladder", "Ledger"]

NOTE_S = 0.05
"""How long it takes from one note to the next."""

NOTES = 16
"""Notes that are kept."""

_HALF = 128 << 10
_WHICH = struct.Struct("@Q")
_HEAD = struct.Struct("@QI")
_RECORD = struct.Struct("@IHQI")
_FIRST = 64
"""Where the first half begins."""


@dataclass(frozen=True, slots=True)
class _Note:
    time_s: float
    epoch: int
    facts: tuple[tuple[str, Fact], ...]
    data: bytes


class Ladder:
    """Notes of one process.

    Args:
        ledger: where they are laid open; None: only here.

    Example:
        >>> ladder = Ladder()
        >>> for number in range(100):
        ...     ladder.add(0, [("keep", Fact(number, (2 * number,)))], time_s=float(number))
        >>> [fact.first for _, fact in ladder.facts(0)][-4:]
        [96, 97, 98, 99]
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._notes: list[_Note] = []
        self._write = None if ledger is None else ledger.writer()
        self._last = time.perf_counter()
        self._encoded = ledger is not None

    def due(self) -> bool:
        """Whether it is time for a note."""
        return time.perf_counter() - self._last >= NOTE_S

    def add(
        self, epoch: int, facts: Iterable[tuple[str, Fact]], *, time_s: float | None = None
    ) -> None:
        """Take a note: `facts` about nodes, by their keys."""
        self._last = time.perf_counter()
        some = tuple(facts)
        if not some:
            return
        data = b"".join(_record(epoch, key, fact) for key, fact in some) if self._encoded else b""
        self._notes.append(_Note(self._last if time_s is None else time_s, epoch, some, data))
        while len(self._notes) > NOTES or sum(len(n.data) for n in self._notes) > _HALF:
            if len(self._notes) == 1:
                self._notes.clear()  # too large for anybody to see
                return
            del self._notes[self._most_superfluous()]
        if self._write is not None:
            self._write(b"".join(note.data for note in self._notes))

    def close(self) -> None:
        """Lay nothing open any more. Safe to call twice."""
        write, self._write = self._write, None
        if write is not None:
            write.close()

    def facts(self, epoch: int) -> Iterator[tuple[str, Fact]]:
        """Yield what was noted of an epoch."""
        for note in self._notes:
            if note.epoch == epoch:
                yield from note.facts

    def _most_superfluous(self) -> int:
        """Return which note closes the smallest gap, for how long ago it is; never the last."""
        notes = self._notes
        last = notes[-1].time_s
        best, least = 0, float("inf")
        for number in range(len(notes) - 1):
            before = notes[number - 1].time_s if number else notes[0].time_s
            gap = notes[number + 1].time_s - before
            size = gap / (last - before + 1e-9)
            if number and size < least:
                best, least = number, size
        return best


def _record(epoch: int, key: str, fact: Fact) -> bytes:
    name = key.encode()
    text = json.dumps(fact.to_json(), separators=(",", ":")).encode()
    return _RECORD.pack(epoch, len(name), fact.first, len(text)) + name + text


class _Writer:
    """Replaces the notes in a ledger's memory; `close` has to follow."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._turn = 0

    def __call__(self, data: bytes) -> None:
        self._turn += 1
        start = _FIRST + self._turn % 2 * _HALF
        if len(data) > _HALF - _HEAD.size:
            return
        _HEAD.pack_into(self._memory, start, len(data), zlib.crc32(data))
        self._memory[start + _HEAD.size : start + _HEAD.size + len(data)] = data
        _WHICH.pack_into(self._memory, 0, self._turn)

    def close(self) -> None:
        """Let go of the memory; not when the garbage collector comes by."""
        self._memory.close()


class Ledger:
    """Memory that a worker and the owner of the run share; an argument of a child process."""

    def __init__(self) -> None:
        self._memory = Descriptor(anonymous_file("splitpipe-ledger"))
        self._seen: tuple[int, tuple[tuple[int, str, int, bytes], ...]] = (0, ())
        self._map: mmap.mmap | None = None
        try:
            reserve(self._memory.fd, 0, _FIRST + 2 * _HALF)
        except BaseException:
            self._memory.close()
            raise

    def writer(self) -> _Writer:
        """Return what replaces the notes in it; for one thread of one process."""
        return _Writer(self._mapped())

    def facts(self, epoch: int, below: Callable[[str], int | None]) -> Iterator[tuple[str, Fact]]:
        """Yield what was noted of an epoch.

        Args:
            epoch: which.
            below: of a node, by its key, up to which item facts are of use; None: not at all.
        """
        for which, key, first, text in self._records():
            most = below(key) if which == epoch else None
            if most is not None and first <= most:
                yield key, Fact.of_json(json.loads(text))

    def close(self) -> None:
        """Let go of the memory. Safe to call twice."""
        self._memory.close()
        if self._map is not None:
            self._map.close()
            self._map = None

    def __reduce__(self) -> tuple[object, ...]:
        return _adopted, (self._memory,)

    def _mapped(self) -> mmap.mmap:
        return map_shared(self._memory.fd, 0, _FIRST + 2 * _HALF)

    def _records(self) -> tuple[tuple[int, str, int, bytes], ...]:
        if self._map is None:
            if self._memory.fd < 0:
                return ()
            self._map = self._mapped()
        memory = self._map
        for _ in range(8):
            (turn,) = _WHICH.unpack_from(memory, 0)
            if turn == self._seen[0]:
                break
            start = _FIRST + turn % 2 * _HALF
            length, crc = _HEAD.unpack_from(memory, start)
            data = memory[start + _HEAD.size : start + _HEAD.size + min(length, _HALF)]
            if zlib.crc32(data) == crc:
                self._seen = turn, tuple(_split(data))
                break
        return self._seen[1]


def _split(data: bytes) -> Iterator[tuple[int, str, int, bytes]]:
    at = 0
    while at < len(data):
        epoch, name, first, text = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        yield epoch, data[at : at + name].decode(), first, data[at + name : at + name + text]
        at += name + text


def _adopted(memory: Descriptor) -> Ledger:
    ledger = Ledger.__new__(Ledger)
    ledger._memory = memory
    ledger._seen = (0, ())
    ledger._map = None
    return ledger
