"""What a cache did.

Responsible for: `CacheStatistics`, the record, and `Counters`, from which it is made.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

__all__ = ["CacheStatistics", "Counters"]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What one `BlockCache` did since it was opened, and how full its folder is.

    Attributes:
        hits: blocks that were there when they were wanted.
        misses: blocks that were not.
        requests: reads of stores.
        fetched_nbytes: what these gave.
        streamed_nbytes: the part of it that was handed on without being kept, for want of room.
        evicted_nbytes: what this process threw out.
        waits: blocks that another process or thread was fetching already.
        limit_nbytes: the smallest limit of the processes that use the folder.
        used_nbytes: what its objects have on the disk.
        reserved_nbytes: what is being fetched, or thrown out, at this moment.
        processes: how many have the folder open.
    """

    hits: int
    misses: int
    requests: int
    fetched_nbytes: int
    streamed_nbytes: int
    evicted_nbytes: int
    waits: int
    limit_nbytes: int
    used_nbytes: int
    reserved_nbytes: int
    processes: int


class Counters:
    """Counts that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0
        self.requests = 0
        self.fetched_nbytes = 0
        self.streamed_nbytes = 0
        self.evicted_nbytes = 0
        self.waits = 0

    def hit(self, blocks: int) -> None:
        """Blocks were there: the path that has to be short."""
        with self._lock:
            self.hits += blocks

    def add(self, **counts: int) -> None:
        """Add to some of the counts."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def renew(self) -> None:
        """In a forked child: nobody holds the lock, whatever its parent did."""
        self._lock = threading.Lock()
