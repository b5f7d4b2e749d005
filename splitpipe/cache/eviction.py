"""Which blocks go, how they go, and what becomes of what a dead process was about.

Responsible for: `choose`, the blocks that were wanted longest ago; `evict`, which throws many out
together, and `throw_out`, a few; `repair`, a dead process's slot.

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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from splitpipe.cache import files
from splitpipe.cache.account import Account, Slot
from splitpipe.cache.folder import Layout
from splitpipe.cache.journal import Journal
from splitpipe.cache.locks import Locks
from splitpipe.cache.marks import DURABLE, MarkFile
from splitpipe.cache.objects import is_whole
from splitpipe.cache.ranges import Blocks, runs
from splitpipe.cache.state import EVICTING, FILLING, MAKING
from splitpipe.distinct import distinct
from splitpipe.errors import CacheFull, FormatError

__all__ = ["Victims", "choose", "evict", "oldest", "repair", "throw_out"]

_LOOKED_AT: Final = 2000  # objects, beyond which chance decides
_TOGETHER: Final = 16  # stretches that go at once: half of the slots of a process


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


@dataclass(frozen=True, slots=True)
class _Going:
    """A stretch of blocks whose marks are cleared, and what is needed to go on with it."""

    slot: Slot
    durable: bool
    marks: int
    data: int
    extent: tuple[int, int]


def evict(account: Account, layout: Layout, journal: Journal, victims: list[Victims]) -> int:
    """Throw out blocks, as far as nobody is at work on them or wanted them since.

    The caller holds the lock of evictors. Many stretches go through each step together, so that
    they share what has to be on the disk between two steps.

    Returns:
        how many bytes went.
    """
    gone = 0
    waiting = [(those, run) for those in victims for run in runs(those.blocks)]
    for start in range(0, len(waiting), _TOGETHER):
        together = groupby(waiting[start : start + _TOGETHER], lambda pair: pair[0].digest)
        going: list[_Going] = []
        with ExitStack() as held:
            try:
                for _, group in together:
                    pairs = list(group)
                    stretches = [run for _, run in pairs]
                    with suppress(FileNotFoundError, FormatError):
                        going += _cleared(account, layout, pairs[0][0], stretches, held)
                _note([each for each in going if each.durable], journal)
                if going:
                    account.count_eviction()
                for each in going:
                    begin, end = each.extent
                    files.punch_hole(each.data, begin, end - begin)
                    gone += each.slot.nbytes
            finally:
                for each in going:
                    account.settle(each.slot, used=0)
    return gone


def _note(durable: list[_Going], journal: Journal) -> None:
    """Have it on the disk that marks were cleared: else a power cut leaves them, and no bytes."""
    if not durable:
        return
    slots = [each.slot for each in durable]
    try:
        journal.write([(slot.digest, slot.first, slot.count) for slot in slots])
    except CacheFull:
        # There is no room for that, on a disk that is to have more: the marks have their places.
        for descriptor in {each.marks for each in durable}:
            files.sync(descriptor)


def _cleared(
    account: Account,
    layout: Layout,
    victims: Victims,
    stretches: list[tuple[int, int]],
    held: ExitStack,
) -> Iterator[_Going]:
    """Lock stretches of an object and clear their marks; ``held`` lets go of all in the end."""
    path = layout.marks(victims.digest)
    locks = layout.locks(path)
    held.callback(locks.close)
    marks, data = MarkFile(path), files.open_file(layout.data(victims.digest))
    held.callback(files.close, data)
    seen = dict(zip(victims.blocks.tolist(), victims.stamps.tolist()))
    for first, count in stretches:
        if not locks.try_lock(first, count):
            continue
        stamps = [seen[block] for block in range(first, first + count)]
        same = (marks.marks[first : first + count] != 0) & (
            marks.stamps[first : first + count] == np.array(stamps, np.uint64)
        )
        for start, length in runs(first + np.flatnonzero(same)):
            cleared = _clear(account, marks, start, length)
            if cleared is not None:
                extent = marks.identity.extent(start, length)
                yield _Going(*cleared, locks.descriptor, data, extent)


def _clear(account: Account, marks: MarkFile, first: int, count: int) -> tuple[Slot, bool] | None:
    """Note the room of blocks as going, and clear their marks.

    Returns:
        the slot, and whether a mark was durable.
    """
    nbytes = marks.identity.cost(first, count)
    slot = account.take(
        EVICTING, marks.digest, first=first, count=count, nbytes=nbytes, was_used=nbytes
    )
    if slot is None:
        return None
    those = marks.marks[first : first + count]
    durable = bool((those & np.uint64(DURABLE)).any())
    those[:] = 0
    return slot, durable


def throw_out(
    account: Account, marks: MarkFile, data: int, locks: Locks, *, first: int, count: int
) -> int:
    """Throw out those of some blocks that are there; the caller holds their locks.

    Returns:
        how many bytes went.
    """
    gone = 0
    there = first + np.flatnonzero(marks.marks[first : first + count])
    for start, length in runs(there):
        cleared = _clear(account, marks, start, length)
        if cleared is None:
            continue
        slot, durable = cleared
        if durable:
            files.sync(locks.descriptor)
        account.count_eviction()
        begin, end = marks.identity.extent(start, length)
        files.punch_hole(data, begin, end - begin)
        account.settle(slot, used=0)
        gone += slot.nbytes
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
    # Somebody may have been killed between clearing a mark and having that on the disk.
    files.sync(locks.descriptor)
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
