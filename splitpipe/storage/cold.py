"""Reading records that are not in memory yet.

Responsible for: finding out cheaply whether a batch would wait for the disk, and if so asking
for all of it at once before reading any of it. A map faults page by page, and every fault waits
for the disk: 1.6 thousand records of 80 KiB a second where 14 thousand are possible.

Rules:
- probing costs a few microseconds a batch, and nothing where the system cannot tell;
- a range is announced and read only after its bounds were compared with the file.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import SplitpipeError
from splitpipe.storage import files
from splitpipe.storage.bins import BinFiles
from splitpipe.storage.format import FILE_HEADER_NBYTES

__all__ = ["HELPERS", "announce", "is_cold", "read_announced"]

Entries = npt.NDArray[Any]

_PROBES = 3
# Threads that read beside the caller, where the kernel can: one copies and checks while another
# waits. More of them than processors gain nothing once all is announced.
HELPERS = max(1, min(3, (os.cpu_count() or 2) - 1))


def is_cold(bins: BinFiles, entries: Entries) -> bool:
    """Whether any of a few probed records would have to come from the disk.

    The probed records are spread over the batch. A damaged entry counts as not cold: the
    ordinary path finds it.
    """
    last = len(entries) - 1
    for probe in range(_PROBES):
        offset, length, number, _ = entries[last * (probe + 1) // (_PROBES + 1)].item()
        if offset + length > bins.size(number):
            return False
        # The middle: the ends may share a page with a neighbour that was read before.
        if length and _is_cold_at(bins, number, offset + length // 2):
            return True
    return False


def _is_cold_at(bins: BinFiles, number: int, offset: int) -> bool:
    try:
        return bins.is_cold(number, offset)
    except SplitpipeError:
        return False


def announce(bins: BinFiles, entries: Entries) -> bool:
    """Ask the system to fetch all ranges; False if one of them cannot be."""
    if not _within_files(bins, entries):
        return False
    for offset, length, number, _ in entries.tolist():
        bins.announce(number, offset, length)
    return True


def read_announced(bins: BinFiles, entries: Entries) -> list[bytes] | None:
    """Announce all ranges, then read them; ``None`` if an entry is out of bounds.

    Raises:
        StorageError: a bin is missing or cannot be read.
    """
    if not announce(bins, entries):
        return None
    return [
        files.read_at(bins.descriptor(number).number, length, offset, bins.path(number))
        for offset, length, number, _ in entries.tolist()
    ]


def _within_files(bins: BinFiles, entries: Entries) -> bool:
    """Whether every range lies in a file; entries come from a file that may be damaged."""
    numbers = entries["bin"]
    offsets = entries["offset"]
    lengths = entries["length"]
    if int(numbers.max(initial=0)) >= len(bins.maps):
        return False
    sizes = bins.sizes.take(numbers)
    return bool(
        (offsets >= FILE_HEADER_NBYTES).all()
        and (offsets <= sizes).all()
        and (lengths <= sizes - np.minimum(offsets, sizes)).all()
    )
