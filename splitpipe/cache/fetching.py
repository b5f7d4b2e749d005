"""Having blocks there, of any number of objects at once.

Responsible for: `ensure`, `read`: claims, flights on the pool, waiting for what others fetch, and
when to give up.

Rules:
- all that is missing is claimed and asked for before anything is waited for;
- the thread that waits works on its own flights: a full pool never holds it up;
- a claim that is not begun when something goes wrong is let go.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

import numpy as np

from splitpipe.cache.flight import Flight, give_up
from splitpipe.cache.opened import Opened
from splitpipe.cache.pool import Pool
from splitpipe.cache.ranges import Blocks, pieces, runs
from splitpipe.cache.token import Token
from splitpipe.distinct import distinct
from splitpipe.errors import CacheFull

__all__ = ["ensure", "read"]

_ROUNDS: Final = 12
_READ_ROUNDS: Final = 3
_WINDOW: Final = 16  # flights of one read at a time

Wanted = Sequence[tuple[Opened, Blocks]]


def ensure(pool: Pool, wanted: Wanted, *, extent_nbytes: int) -> Token:
    """Have blocks there, all at one moment.

    Raises:
        CacheFull: they cannot be: more than the limit, a full disk, or others need the room as
            fast as this process fills it.
    """
    for turn in range(_ROUNDS):
        flights: list[Flight] = []
        try:
            token, busy = _look(wanted, turn, flights, extent_nbytes)
            if token is not None:
                return token
            fly(pool, flights)
        finally:
            give_up(flights)
        for opened, block in busy:
            opened.wait(block)
    raise CacheFull(
        errno.EAGAIN,
        "blocks are thrown out as fast as they come: the limit is too small for what all "
        "processes need at once",
        wanted[0][0].space.layout.root,
    )


def _look(
    wanted: Wanted, turn: int, flights: list[Flight], extent_nbytes: int
) -> tuple[Token | None, list[tuple[Opened, int]]]:
    """See what is there, and claim what is not.

    Args:
        wanted: blocks.
        turn: how often that was done before.
        flights: takes what was claimed.
        extent_nbytes: how much a request may ask for.

    Returns:
        the token, if all is there; and what others work on.
    """
    state = wanted[0][0].space.account.state
    seen = state.evictions[0]
    parts = []
    busy: list[tuple[Opened, int]] = []
    missed = 0
    for opened, blocks in wanted:
        marks = opened.marks.marks
        found = marks.take(blocks)
        if np.count_nonzero(found) == len(blocks):
            parts.append((marks, blocks, found))
            continue
        if not turn:
            _refuse_too_much(wanted)
        missing = distinct(blocks[found == 0])
        missed += len(missing)
        others = opened.claim(missing, flights, most=opened.most_blocks(extent_nbytes))
        busy += [(opened, block) for block in others]
    if not turn:
        total = sum(len(blocks) for _, blocks in wanted)
        wanted[0][0].counters.add(hits=total - missed, misses=missed, waits=len(busy))
    if len(parts) < len(wanted):
        return None, busy
    _stamp(wanted)
    return Token(state.evictions, seen, parts), busy


def _refuse_too_much(wanted: Wanted) -> None:
    space = wanted[0][0].space
    total = sum(opened.identity.cost_of(distinct(blocks)) for opened, blocks in wanted)
    limit = space.account.state.limit
    if total > limit:
        text = f"{total} bytes are wanted at once, the cache may have {limit}"
        raise CacheFull(errno.ENOSPC, text, space.layout.root)


def _stamp(wanted: Wanted) -> None:
    now = wanted[0][0].space.account.tick()
    for opened, blocks in wanted:
        opened.marks.stamps[blocks] = now


def fly(pool: Pool, flights: Sequence[Flight]) -> None:
    """Have flights land. Whoever claimed them gives them up when this was interrupted.

    Raises:
        BaseException: what went wrong with the first of them that failed.
    """
    for flight in flights[1:]:
        pool.submit(flight.run)
    for flight in flights:
        flight.run()
    for flight in flights:
        flight.landed.wait()
    for flight in flights:
        if flight.error is not None:
            raise flight.error


def read(pool: Pool, opened: Opened, start: int, stop: int, *, extent_nbytes: int) -> bytes:
    """Bytes of an object, through the cache where it has room, and past it where not."""
    result = bytearray(stop - start)
    identity = opened.identity
    block_nbytes = identity.block_nbytes
    most = opened.most_blocks(extent_nbytes)
    first, last = start // block_nbytes, -(-stop // block_nbytes)
    with memoryview(result) as view:
        for begin, count in pieces(first, last - first, most=most * _WINDOW):
            _read_window(pool, opened, begin, count, most=most, into=view, start=start, stop=stop)
    return bytes(result)


def _read_window(
    pool: Pool,
    opened: Opened,
    first: int,
    count: int,
    *,
    most: int,
    into: memoryview,
    start: int,
    stop: int,
) -> None:
    left = np.arange(first, first + count)
    for turn in range(_READ_ROUNDS):
        left = _copied(opened, left, into, start=start, stop=stop)
        if not turn:
            opened.counters.add(hits=count - len(left), misses=len(left))
        if not len(left):
            return
        flights: list[Flight] = []
        try:
            busy = opened.claim(left, flights, most=most, keep=True)
            fly(pool, flights)
        finally:
            give_up(flights)
        for flight in flights:
            _deliver(opened, flight.first, flight.data or b"", into, start=start, stop=stop)
            left = left[(left < flight.first) | (left >= flight.first + flight.count)]
        if not turn:
            opened.counters.add(waits=len(busy))
        for block in busy:
            opened.wait(block)
    left = _copied(opened, left, into, start=start, stop=stop)
    for begin, length in runs(left):
        data = opened.fetch(begin, length, streamed=True)
        _deliver(opened, begin, data, into, start=start, stop=stop)


def _copied(opened: Opened, blocks: Blocks, into: memoryview, *, start: int, stop: int) -> Blocks:
    """Copy what is there; the blocks that were not."""
    left = [
        opened.copy(first, count, into, start=start, stop=stop) for first, count in runs(blocks)
    ]
    found = np.concatenate([np.empty(0, np.int64), *left])
    # What went meanwhile is fetched now, and gets a stamp of its own.
    opened.marks.stamps[blocks] = opened.space.account.state.clock
    return found


def _deliver(
    opened: Opened, first: int, data: bytes, into: memoryview, *, start: int, stop: int
) -> None:
    """Put fetched blocks where they are wanted."""
    begin = opened.identity.extent(first, 1)[0]
    low, high = max(begin, start), min(begin + len(data), stop)
    if low < high:
        with memoryview(data) as view:
            into[low - start : high - start] = view[low - begin : high - begin]
