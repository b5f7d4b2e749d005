"""Keeping freed memory for the next batch.

Responsible for: one call that makes the C library's allocator keep what large batches free.
glibc gives blocks above 128 KiB back to the system when they are freed and fetches them again,
page by page and zeroed, for the next batch: reading batches of 80 KiB records then spends two
thirds of its time in page faults. glibc raises that threshold by itself once it has seen a
larger block freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): so one is freed, untouched.

The price is up to 64 MiB that the process keeps. Other allocators are not affected.
"""

from __future__ import annotations

__all__ = ["keep_freed_memory"]

_LARGEST_THRESHOLD = 32 << 20
_done = False


def keep_freed_memory() -> None:
    """Raise the allocator's threshold, once a process. Costs microseconds."""
    global _done
    if not _done:
        _done = True
        # Zeroed memory of this size is not touched by anyone before it is freed.
        bytes(_LARGEST_THRESHOLD - (64 << 10))
