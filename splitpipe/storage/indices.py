"""What an index of a dataset may be.

Responsible for: turning whatever a caller indexes with into rows that were checked, or into an
error that says what is wrong with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["checked_rows"]


def checked_rows(indices: Any, count: int) -> npt.NDArray[np.int64]:
    """Indices as int64 rows from 0.

    Args:
        indices: a flat list, tuple, range or array of integers, negative ones counted from the
            end.
        count: how many records there are.

    Raises:
        IndexError: an index is past the end, or they are no integers.

    Example:
        >>> checked_rows([0, -1], 10)
        array([0, 9])
    """
    given = np.asarray(indices)
    if given.size == 0 and given.ndim == 1:
        return np.empty(0, dtype=np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise IndexError(_not_indices(indices, given))
    if given.dtype.kind == "u" and int(given.max()) >= count:
        raise IndexError(f"record {given.max()} of a dataset of {count} records")
    rows = given.astype(np.int64, copy=False)
    # One look where nothing is wrong and nothing is counted from the end: negative ones are large.
    if int(rows.view(np.uint64).max()) < count:
        return rows
    lowest, highest = int(rows.min()), int(rows.max())
    if lowest < -count or highest >= count:
        wrong = highest if highest >= count else lowest
        raise IndexError(f"record {wrong} of a dataset of {count} records")
    return np.where(rows < 0, rows + count, rows) if lowest < 0 else rows


def _not_indices(indices: Any, given: npt.NDArray[Any]) -> str:
    if given.dtype.kind == "b":
        return (
            "an array of booleans is not an index here: use numpy.flatnonzero(mask) to say "
            "which records are meant"
        )
    if isinstance(indices, str):
        return f"indices must be integers, as this dataset has no keys; not {indices!r:.80}"
    if given.ndim == 1:
        return f"indices must be integers, not {given.dtype}"
    return f"indices must be an integer, a slice or a flat list, not {type(indices).__name__}"
