"""Reading records that are not in memory yet.

Responsible for: finding out cheaply whether a batch would wait for the disk, and if so asking
for all of it at once before reading any of it. A map faults page by page, and every fault waits
for the disk: 1.6 thousand records of 80 KiB a second where 14 thousand are possible.

Rules:
- probing costs a few microseconds a batch, and nothing where the system cannot tell;
- a range is announced and read only after its bounds were compared with the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import SplitpipeError
from splitpipe.storage import files
from splitpipe.storage.bins import BinFiles
from splitpipe.storage.format import FILE_HEADER_NBYTES

__all__ = ["announce", "is_cold", "read_announced", "worth_probing"]

Entries = npt.NDArray[Any]

# Batches smaller than this are read through the map: announcing gains nothing.
_WORTHWHILE_RECORDS = 4
_PROBES = 3


def worth_probing(count: int) -> bool:
    """Whether a batch of this many records gains from being announced."""
    return count >= _WORTHWHILE_RECORDS


def is_cold(bins: BinFiles, entries: Entries, *, probes: int = _PROBES) -> bool:
    """Whether any of a few probed records would have to come from the disk.

    The probed records are spread over the batch. A damaged entry counts as not cold: the
    ordinary path finds it.
    """
    last = len(entries) - 1
    for probe in range(probes):
        offset, length, number, _ = entries[last * (probe + 1) // (probes + 1)].item()
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
