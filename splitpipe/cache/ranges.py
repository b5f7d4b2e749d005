"""Bytes to blocks, and blocks to stretches.

Responsible for: arithmetic on ranges; nothing here knows of files.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from splitpipe.distinct import distinct
from splitpipe.errors import StorageError

__all__ = ["Blocks", "Ranges", "blocks_of", "pieces", "runs", "touched"]

Ranges: TypeAlias = Sequence[tuple[int, int]] | npt.NDArray[np.int64]
"""Half-open ranges of bytes in any order; they may overlap. As an array: of shape (n, 2)."""

Blocks: TypeAlias = npt.NDArray[np.int64]


def blocks_of(ranges: Ranges, *, size: int, block_nbytes: int, name: str = "") -> Blocks:
    """The blocks that some ranges touch, sorted, each once.

    Raises:
        StorageError: a range is not within the object.

    Example:
        >>> blocks_of([(0, 5), (9, 21), (3, 3)], size=30, block_nbytes=8).tolist()
        [0, 1, 2]
    """
    blocks: Blocks = distinct(touched(ranges, size=size, block_nbytes=block_nbytes, name=name))
    return blocks


def touched(ranges: Ranges, *, size: int, block_nbytes: int, name: str = "") -> Blocks:
    """The same in any order, some of them several times: which takes a few microseconds."""
    array = np.asarray(ranges, np.int64).reshape(-1, 2)
    if not len(array):
        return np.empty(0, np.int64)
    starts, stops = array[:, 0], array[:, 1]
    if int(starts.min()) < 0 or int(stops.max()) > size or int((stops - starts).min()) < 0:
        raise StorageError(errno.ERANGE, f"a range is not within its {size} bytes", name)
    shift = block_nbytes.bit_length() - 1  # a power of two
    first: Blocks = starts >> shift
    last: Blocks = (stops - 1) >> shift
    if first.tobytes() == last.tobytes():
        return first
    counts = np.where(stops > starts, last - first + 1, 0)
    offsets = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    blocks: Blocks = np.repeat(first, counts) + offsets
    return blocks


def runs(blocks: Blocks) -> Iterator[tuple[int, int]]:
    """Stretches of neighbours in sorted blocks: first and count.

    Example:
        >>> list(runs(np.array([1, 2, 3, 7, 9])))
        [(1, 3), (7, 1), (9, 1)]
    """
    if not len(blocks):
        return
    cuts = np.flatnonzero(np.diff(blocks) != 1) + 1
    starts = [0, *cuts.tolist()]
    for start, stop in zip(starts, [*starts[1:], len(blocks)]):
        yield int(blocks[start]), stop - start


def pieces(first: int, count: int, *, most: int) -> Iterator[tuple[int, int]]:
    """A stretch in pieces of at most so many blocks.

    Example:
        >>> list(pieces(3, 5, most=2))
        [(3, 2), (5, 2), (7, 1)]
    """
    for start in range(first, first + count, most):
        yield start, min(most, first + count - start)
