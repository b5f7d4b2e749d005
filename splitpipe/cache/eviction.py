"""Which blocks go, how they go, and what becomes of what a dead process was about.

Responsible for: `choose`, the blocks that were wanted longest ago; `throw_out`, the one order in
which a block goes; `repair`, a dead process's slot.

Rules:
- a block goes like this: its room is noted as going; its mark is cleared; the clearing is on the
  disk, where the mark was; readers are told (`State.evictions`); its place is given back; its room
  is free. Whoever reads the count before the marks, and finds it the same after copying, has copied
  what the marks said;
- the number in a mark says whose room a block is in: that is how `repair` tells what the dead had
  finished from what others fetched after its death;
- what a dead process marked and did not settle stays until it is repaired.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from splitpipe.cache import files
from splitpipe.cache.account import Account, Slot
from splitpipe.cache.folder import Layout
from splitpipe.cache.locks import Locks
from splitpipe.cache.marks import DURABLE, MarkFile
from splitpipe.cache.objects import is_whole
from splitpipe.cache.ranges import Blocks, runs
from splitpipe.cache.state import EVICTING, FILLING, MAKING
from splitpipe.distinct import distinct
from splitpipe.errors import FormatError

__all__ = ["Victims", "choose", "evict", "oldest", "repair", "throw_out"]

_LOOKED_AT: Final = 2000  # objects, beyond which chance decides


@dataclass(frozen=True, slots=True)
class Victims:
    """Blocks of one object that are to go, sorted, and the stamps that they had."""

    digest: bytes
    blocks: Blocks
    stamps: npt.NDArray[np.uint64]


def choose(
    layout: Layout, nbytes: int, *, used_before: float | None = None, every: bool = False
) -> tuple[list[Victims], list[bytes]]:
    """What goes, so that at least so much does; and the objects that have no block.

    Args:
        layout: of the cache.
        nbytes: how much.
        used_before: only objects that were last used before, in seconds of Unix time.
        every: whether to look at every object, however many there are.
    """
    digests, stamps, blocks, costs, empty = [], [], [], [], []
    for digest in layout.found() if every else _looked_at(layout):
        try:
            if used_before is not None and os.stat(layout.marks(digest)).st_mtime > used_before:
                continue
            marks = MarkFile(layout.marks(digest))
        except (FormatError, FileNotFoundError):
            continue
        present = marks.present()
        if len(present):
            cost = np.full(len(present), marks.identity.block_nbytes, np.int64)
            if present[-1] == marks.identity.blocks - 1:
                cost[-1] = marks.identity.cost(int(present[-1]), 1)
            digests.append(digest)
            blocks.append(present)
            stamps.append(marks.stamps[present])
            costs.append(cost)
        else:
            empty.append(digest)
    if not digests:
        return [], empty
    owners = np.repeat(np.arange(len(digests)), [len(b) for b in blocks])
    every_stamp, every_block = np.concatenate(stamps), np.concatenate(blocks)
    order = np.argsort(every_stamp, kind="stable")
    sums = np.cumsum(np.concatenate(costs)[order])
    chosen = np.sort(order[: int(np.searchsorted(sums, nbytes)) + 1])
    found = []
    for owner in distinct(owners[chosen]).tolist():
        those = chosen[owners[chosen] == owner]
        found.append(Victims(digests[owner], every_block[those], every_stamp[those]))
    return found, empty


def _looked_at(layout: Layout) -> Iterator[bytes]:
    shelves = layout.shelves()
    random.shuffle(shelves)
    looked_at = 0
    for shelf in shelves:
        for digest in layout.found_on(shelf):
            looked_at += 1
            yield digest
        if looked_at >= _LOOKED_AT:
            return


def oldest(victims: list[Victims]) -> list[Victims]:
    """The objects that were wanted longest ago first: for where they go as a whole."""
    return sorted(victims, key=lambda those: int(those.stamps.max()))


def evict(account: Account, layout: Layout, victims: Victims) -> int:
    """Throw out blocks of one object, as far as nobody is at work on them or wanted them since.

    Returns:
        how many bytes went.
    """
    path = layout.marks(victims.digest)
    try:
        locks = layout.locks(path)
    except FileNotFoundError:
        return 0
    gone = 0
    data = -1
    try:
        marks, data = MarkFile(path), files.open_file(layout.data(victims.digest))
        same = marks.stamps[victims.blocks] == victims.stamps
        for first, count in runs(victims.blocks[same]):
            if locks.try_lock(first, count):
                try:
                    gone += throw_out(account, marks, data, locks, first=first, count=count)
                finally:
                    locks.unlock(first, count)
    except (FileNotFoundError, FormatError):
        pass
    finally:
        if data >= 0:
            files.close(data)
        locks.close()
    return gone


def throw_out(
    account: Account, marks: MarkFile, data: int, locks: Locks, *, first: int, count: int
) -> int:
    """Throw out those of some blocks that are there; the caller holds their locks.

    Returns:
        how many bytes went.
    """
    identity, gone = marks.identity, 0
    there = first + np.flatnonzero(marks.marks[first : first + count])
    for start, length in runs(there):
        nbytes = identity.cost(start, length)
        slot = account.take(
            EVICTING, marks.digest, first=start, count=length, nbytes=nbytes, was_used=nbytes
        )
        if slot is None:
            continue
        those = marks.marks[start : start + length]
        durable = bool((those & np.uint64(DURABLE)).any())
        those[:] = 0
        if durable:
            # Else a power cut could leave the mark, and take the bytes.
            files.sync(locks.descriptor)
        account.count_eviction()
        begin, end = identity.extent(start, length)
        files.punch_hole(data, begin, end - begin)
        account.settle(slot, used=0)
        gone += nbytes
    return gone


def repair(account: Account, layout: Layout, slot: Slot) -> None:
    """Settle what a dead process had taken room for; the caller holds its row."""
    used = 0
    path = layout.marks(slot.digest)
    with suppress(FileNotFoundError, FormatError):
        locks = layout.locks(path)
        try:
            marks = MarkFile(path)
            if slot.kind == MAKING:
                used = marks.identity.overhead_nbytes
            elif is_whole(layout, marks, slot.digest):
                used = _repair_blocks(layout, marks, locks, slot)
        finally:
            locks.close()
    account.settle(slot, used=used)


def _repair_blocks(layout: Layout, marks: MarkFile, locks: Locks, slot: Slot) -> int:
    blocks = np.arange(slot.first, min(slot.first + slot.count, marks.identity.blocks))
    found = marks.marks[blocks]
    numbers = found >> np.uint64(2)
    if slot.kind == FILLING:
        ours = numbers == np.uint64(slot.number) + np.arange(len(blocks), dtype=np.uint64)
    else:
        ours = (found != 0) & (numbers < np.uint64(slot.number))
    data = files.open_file(layout.data(slot.digest))
    try:
        for block in blocks[found == 0].tolist():
            if locks.try_lock(block):
                if not marks.marks[block]:
                    start, stop = marks.identity.extent(block, 1)
                    files.punch_hole(data, start, stop - start)
                locks.unlock(block)
    finally:
        files.close(data)
    return marks.identity.cost_of(blocks[ours])
