"""Which keys were seen, without keeping them.

Responsible for: `Hashes`, a set of 64-bit numbers that grows by blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Hashes"]

I64 = npt.NDArray[np.int64]


class Hashes:
    """A set of 64-bit numbers in 8 bytes each: sorted arrays, each at least twice the next.

    Example:
        >>> seen = Hashes()
        >>> seen.add(np.array([3, 1]))
        >>> seen.any_of(np.array([2, 3])), seen.any_of(np.array([4]))
        (True, False)
    """

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[I64] = []

    def any_of(self, hashes: I64) -> bool:
        """Whether one of these numbers is in the set, or there twice."""
        wanted = np.sort(hashes)
        if bool((wanted[1:] == wanted[:-1]).any()):
            return True
        for level in self._levels:
            places = np.searchsorted(level, wanted)
            places[places == len(level)] = 0
            if bool((level[places] == wanted).any()):
                return True
        return False

    def add(self, hashes: I64) -> None:
        """Add numbers that may be in the set already."""
        merged = np.sort(hashes)
        while self._levels and len(self._levels[-1]) < 2 * len(merged):
            # A stable sort merges two sorted runs in one pass.
            merged = np.sort(np.concatenate((self._levels.pop(), merged)), kind="stable")
        if len(merged):
            self._levels.append(merged)
