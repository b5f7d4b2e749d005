"""Orders without bins: as the rows are, and a shuffle of all of them.

Responsible for: `Order`, what every order is, and its two kinds for any sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from operator import index as as_integer
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.errors import GraphError
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.storage.native import kernel

__all__ = [
    "GlobalOrder",
    "Order",
    "Rows",
    "SequentialOrder",
    "check_rows",
    "global_order",
    "numbers",
    "sequential_order",
]

Rows = npt.NDArray[np.int64]

# What a key is for: the same seed and epoch never give two things the same key. See also
# ``binwise`` (2, 3) and ``lanes`` (4).
_GLOBAL: Final = 1


# Small ranges are cut from a block of this many positions, computed once: a block costs 0.5 ms,
# and a range of 64 positions computed by itself would cost half as much.
_BLOCK: Final = 16384


class Order(ABC):
    """A bijection from positions to rows.

    Example:
        >>> order = global_order(5, seed=0, epoch=0)
        >>> sorted(order[position] for position in range(len(order)))
        [0, 1, 2, 3, 4]
    """

    __slots__ = ("_block",)

    def __init__(self) -> None:
        # First position and rows of the block computed last; replaced whole, so that threads
        # see the old one or the new one.
        self._block: tuple[int, Rows] = (0, np.empty(0, dtype=np.int64))

    @abstractmethod
    def __len__(self) -> int:
        """Number of positions, which is the number of rows."""

    @property
    def apart(self) -> bool:
        """Whether rows that lie among its own are likely to be read by another machine."""
        return False

    @abstractmethod
    def _between(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``, computed."""

    @abstractmethod
    def _row(self, position: int) -> int:
        """The row at one position from 0, by the shortest way."""

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``: an int64 array of shape (n,)."""
        size = len(self)
        if not 0 <= start <= stop <= size:
            raise IndexError(f"positions {start} to {stop} of an order of {size}")
        if stop - start >= _BLOCK // 2:
            return self._between(start, stop)
        first, rows = self._block
        if not first <= start <= stop <= first + len(rows):
            first = start - start % _BLOCK
            if stop > first + _BLOCK:
                first = start
            rows = self._between(first, min(first + _BLOCK, size))
            self._block = first, rows
        return rows[start - first : stop - first].copy()

    def at(self, positions: Rows) -> Rows:
        """The rows at any positions from 0, in the order given: an int64 array of shape (n,)."""
        return np.array([self._row(at) for at in positions.tolist()], dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        """The row at one position, negative ones counted from the end."""
        size = len(self)
        at = as_integer(position)
        at += size if at < 0 else 0
        if not 0 <= at < size:
            raise IndexError(f"position {position} of an order of {size}")
        return self._row(at)

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self), _BLOCK):
            yield from self.indices(start, min(start + _BLOCK, len(self))).tolist()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())


class SequentialOrder(Order):
    """Every row at its own position.

    Args:
        rows: number of rows.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``: an int64 array of shape (n,)."""
        if not 0 <= start <= stop <= self._rows:
            raise IndexError(f"positions {start} to {stop} of an order of {self._rows}")
        return self._between(start, stop)

    def at(self, positions: Rows) -> Rows:
        return positions.copy()

    def _between(self, start: int, stop: int) -> Rows:
        return np.arange(start, stop, dtype=np.int64)

    def _row(self, position: int) -> int:
        return position

    def __reduce__(self) -> Any:
        return SequentialOrder, (self._rows,)

    def __repr__(self) -> str:
        return f"SequentialOrder(rows={self._rows})"


class GlobalOrder(Order):
    """A shuffle of all rows.

    Args:
        permutation: the keyed bijection.
    """

    __slots__ = ("_permutation",)

    def __init__(self, permutation: KeyedPermutation) -> None:
        super().__init__()
        self._permutation = permutation

    def __len__(self) -> int:
        return self._permutation.size

    def at(self, positions: Rows) -> Rows:
        return self._permutation.at(positions)

    def _between(self, start: int, stop: int) -> Rows:
        return numbers(self._permutation, start, stop)

    def _row(self, position: int) -> int:
        return self._permutation[position]

    def __reduce__(self) -> Any:
        return GlobalOrder, (self._permutation,)

    def __repr__(self) -> str:
        return f"GlobalOrder({self._permutation!r})"


def numbers(permutation: KeyedPermutation, start: int, stop: int) -> Rows:
    """``permutation.between(start, stop)``, in C where that was built: 8 ns a number, not 25."""
    network = permutation.network
    if kernel.permuted is None or network is None:
        return permutation.between(start, stop)
    bits, keys = network
    numbers: Rows = np.empty(stop - start, dtype=np.int64)
    kernel.permuted(numbers, start, permutation.size, bits, keys)
    return numbers


def sequential_order(rows: int) -> SequentialOrder:
    """Rows in their own order.

    Example:
        >>> sequential_order(3).indices(1, 3).tolist()
        [1, 2]
    """
    return SequentialOrder(check_rows(rows, "rows"))


def global_order(rows: int, seed: int, epoch: int) -> GlobalOrder:
    """A shuffle of all rows, in O(1) memory.

    Args:
        rows: number of rows, from 0 to 2**63 - 1.
        seed: any integer.
        epoch: any integer; every epoch is another shuffle.

    Example:
        >>> first = global_order(1000, seed=7, epoch=0)
        >>> first.indices(0, 5).tolist() == first.indices(0, 1000)[:5].tolist()
        True
    """
    key = derive_key(seed, epoch, _GLOBAL)
    return GlobalOrder(KeyedPermutation(check_rows(rows, "rows"), key))


def check_rows(value: int, name: str) -> int:
    """An integer that a number of rows can be."""
    count = as_integer(value)
    if not 0 <= count < 1 << 63:
        raise GraphError(f"{name} must be from 0 to 2**63 - 1, not {value}")
    return count
