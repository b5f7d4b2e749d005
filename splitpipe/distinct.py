"""The distinct numbers of an array, without what the first call of numpy's own costs.

Responsible for: `distinct`. ``numpy.unique`` looks whether it was given a masked array, and
imports ``numpy.ma`` for that: some 40 ms in every process, which a worker would spend between its
start and its first item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["distinct"]


def distinct(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The distinct values of a flat array, ascending.

    Args:
        numbers: array of shape (n,), of a type that can be ordered; without NaN.

    Example:
        >>> distinct(np.array([3, 1, 3, 2])).tolist()
        [1, 2, 3]
    """
    ordered = np.sort(numbers)
    first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
