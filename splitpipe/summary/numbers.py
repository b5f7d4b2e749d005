"""Numbers seen in passing: exact where a running sum is enough, a fair part of them for the rest.

Responsible for: `Numbers`, which takes arrays of any length, and the `Histogram` that it ends in.

Rules:
- count, range, mean and deviation are of all numbers; integers keep their exact range;
- memory is bounded: quantiles and bins are of at most `MOST_VALUES` numbers, every k-th of all;
- what comes out is finite, so that JSON can hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "MOST_VALUES", "QUANTILES", "Histogram", "Numbers"]

BINS: Final = 10
MOST_VALUES: Final = 1 << 20
QUANTILES: Final = (0.01, 0.25, 0.5, 0.75, 0.99)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How numbers are spread.

    Attributes:
        count: how many numbers, those that are not finite included.
        not_finite: how many were NaN, infinite or no time.
        least, most: of the finite ones; integers where the numbers are.
        mean, deviation: of the finite ones; the standard deviation of a population.
        quantiles: at 1, 25, 50, 75 and 99 per cent; empty without finite numbers.
        edges: of the histogram's bins, one more than `counts`.
        counts: numbers in each bin.
        exact: whether quantiles and counts are of all numbers; else of every k-th one.
    """

    count: int
    not_finite: int
    least: float | None
    most: float | None
    mean: float | None
    deviation: float | None
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    exact: bool

    @classmethod
    def of(cls, numbers: npt.NDArray[Any]) -> Histogram:
        """The histogram of some numbers.

        Example:
            >>> found = Histogram.of(np.arange(5))
            >>> found.least, found.mean, found.quantiles[2], found.exact
            (0, 2.0, 2.0, True)
        """
        seen = Numbers()
        seen.add(numbers)
        return seen.histogram()


class Numbers:
    """Numbers that come array by array.

    Example:
        >>> seen = Numbers()
        >>> seen.add(np.array([1.0, np.nan]))
        >>> seen.add(np.array([3.0]))
        >>> seen.histogram().mean, seen.histogram().not_finite
        (2.0, 1)
    """

    def __init__(self) -> None:
        self._count = 0
        self._lost = 0
        self._seen = 0
        self._least: int | float | None = None
        self._most: int | float | None = None
        self._mean = 0.0
        # Sum of squared distances from the mean; Chan, Golub and LeVeque (1979) join two of them.
        self._squares = 0.0
        self._kept: list[Floats] = []
        self._room = MOST_VALUES
        self._stride = 1

    @property
    def count(self) -> int:
        """How many numbers came."""
        return self._count

    def add(self, numbers: npt.NDArray[Any]) -> None:
        """Look at numbers: booleans, integers, floats; of complex ones at their magnitude, of
        times at what they are stored as.
        """
        flat = numbers.reshape(-1)
        first = self._count
        self._count += len(flat)
        flat, places = self._finite(flat, first)
        if not len(flat):
            return
        least, most = flat.min().item(), flat.max().item()
        self._least = least if self._least is None else min(self._least, least)
        self._most = most if self._most is None else max(self._most, most)
        floats: Floats = flat.astype(np.float64)
        self._join(floats)
        self._keep(floats, places)

    def _finite(
        self, flat: npt.NDArray[Any], first: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The finite ones, and which of all numbers these are."""
        places = np.arange(first, first + len(flat), dtype=np.int64)
        kind = flat.dtype.kind
        if kind in "biu":
            return flat.astype(np.uint8) if kind == "b" else flat, places
        if kind in "mM":
            fine = ~np.isnat(flat)
            flat = flat.view(np.int64)
        else:
            flat = (np.abs(flat) if kind == "c" else flat).astype(np.float64)
            fine = np.isfinite(flat)
        self._lost += len(flat) - int(np.count_nonzero(fine))
        return flat[fine], places[fine]

    def _join(self, floats: Floats) -> None:
        before = self._seen
        count = len(floats)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(floats.mean())
            squares = float(np.square(floats - mean).sum())
            apart = mean - self._mean
            total = before + count
            self._mean += apart * (count / total)
            self._squares += squares + apart * apart * (before * count / total)
        self._seen = total

    def _keep(self, floats: Floats, places: npt.NDArray[np.int64]) -> None:
        """Keep every k-th number of all; where there is no room, every second of those."""
        chosen = floats[places % self._stride == 0] if self._stride > 1 else floats
        self._kept.append(chosen)
        self._room -= len(chosen)
        while self._room < 0:
            everything = np.concatenate(self._kept)[::2]
            self._kept, self._stride = [everything], self._stride * 2
            self._room = MOST_VALUES - len(everything)

    def histogram(self) -> Histogram:
        """What was seen."""
        if self._least is None or self._most is None:
            return Histogram(
                self._count, self._lost, None, None, None, None, (), (), (), exact=True
            )
        kept = np.concatenate(self._kept)
        least, most = float(self._least), float(self._most)
        # Numbers so far apart that their distance overflows are halved for the while.
        scale = 1.0 if math.isfinite(most - least) else 0.5
        counts, edges = _bins(kept * scale, least * scale, most * scale)
        return Histogram(
            self._count,
            self._lost,
            self._least,
            self._most,
            _finite(self._mean),
            _finite(math.sqrt(max(0.0, self._squares / self._seen))),
            tuple((np.quantile(kept * scale, QUANTILES) / scale).tolist()) if len(kept) else (),
            tuple((edges / scale).tolist()),
            tuple(counts.tolist()),
            exact=self._stride == 1,
        )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _bins(numbers: Floats, least: float, most: float) -> tuple[npt.NDArray[Any], Floats]:
    """Counts and edges."""
    try:
        return np.histogram(numbers, bins=BINS, range=(least, most))
    except ValueError:  # so near each other that no ten different edges lie between them
        return np.array([len(numbers)]), np.array([least, most])
