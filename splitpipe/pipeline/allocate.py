"""Where the arrays of a stage's output are made.

Responsible for: `empty`, which user code and driven stages call; the runtime says where it leads
to while a stage runs in a worker (into a slot of shared memory, so that a batch is written once
and read in place).

Rules:
- a process whose main thread is a worker has one way for all its threads, those of user code
  included; a thread that is a worker itself has its own;
- `empty` is called for every batch and every row: who has no worker in a thread pays for none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Allocator", "empty", "use_allocator"]

Allocator: TypeAlias = (
    "Callable[[int | Sequence[int], DTypeLike, NDArray[Any] | None], NDArray[Any]]"
)


def _heap(shape: int | Sequence[int], dtype: DTypeLike, near: NDArray[Any] | None) -> NDArray[Any]:
    del near
    return np.empty(shape, dtype)


class _Own(threading.local):
    """What leads elsewhere than the process does."""

    allocator: Allocator | None = None


_own = _Own()
_process: Allocator = _heap


def _by_thread(
    shape: int | Sequence[int], dtype: DTypeLike, near: NDArray[Any] | None
) -> NDArray[Any]:
    return (_own.allocator or _process)(shape, dtype, near)


_allocator: Allocator = _heap
"""`_process`, until a thread needs one of its own."""


def empty(
    shape: int | Sequence[int],
    dtype: DTypeLike = np.uint8,
    *,
    near: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return an uninitialised array for the output of the running stage.

    In a worker process the array lies where its consumer will read it: filling it is the only time
    its bytes are written. Anywhere else it is ``numpy.empty``. Its content is arbitrary until
    written. The array is an ordinary one and stays valid for as long as it is held, sent or not;
    once it was sent it is its reader's, and read-only here: make a new one for every item.

    Args:
        shape: the dimensions.
        dtype: any fixed-size numpy type; object arrays come from the heap.
        near: an array that will be copied to the beginning of the new one: memory is chosen so
            that this copy is fast. It changes nothing else.

    Returns:
        A C-contiguous array of `shape` and `dtype`.

    Example:
        >>> import splitpipe as sp
        >>> def batches(n):
        ...     for i in range(n):
        ...         batch = sp.empty((2, 3), "float32")
        ...         batch[:] = i
        ...         yield batch
        >>> [float(batch.sum()) for batch in sp.MpQItr(batches, 3)]
        [0.0, 6.0, 12.0]
    """
    return _allocator(shape, dtype, near)


def use_allocator(allocator: Allocator | None) -> None:
    """Let `empty` lead to `allocator`, None back to where it led: in this thread, or in the whole
    process when this is its main thread. For the runtime.
    """
    global _allocator, _process
    if threading.current_thread() is not threading.main_thread():
        _own.allocator = allocator
        _allocator = _by_thread
        return
    _process = allocator or _heap
    if _allocator is not _by_thread:
        _allocator = _process
