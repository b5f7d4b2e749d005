"""The records of the storage cases, made from a seed and checkable one by one.

Responsible for: three shapes of record (short text, incompressible bytes, rows of tokens), and the
check that a stream of records holds every record once, byte for byte.

Rules: a record starts with its own number, so that a swapped record is seen; the rest is a slice
of one random block at a random place, so that making a million of them costs a second and no
record repeats itself (a compressor gains nothing).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.base import WrongResult

__all__ = ["Records", "binary_records", "text_records", "token_records"]

STAMP_NBYTES = 8
_LETTERS = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz ETAOIN,. 0123456789 aeiou", np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """A sequence of records that are computed, not held."""

    block: bytes
    starts: list[int]
    stops: list[int]
    text: bool

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self.starts):
            raise IndexError(number)
        stamp = b"%08d" % number if self.text else number.to_bytes(STAMP_NBYTES, "little")
        return stamp + self.block[self.starts[number] : self.stops[number]]

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Bytes of all records together."""
        return sum(self.stops) - sum(self.starts) + STAMP_NBYTES * len(self)

    def nbytes_of(self, numbers: Iterable[int]) -> int:
        """Bytes of some records together."""
        return sum(self.stops[i] - self.starts[i] + STAMP_NBYTES for i in numbers)

    def number(self, record: bytes) -> int:
        """Which record this is.

        Raises:
            WrongResult: The bytes are not those of the record they claim to be.
        """
        data = bytes(record)
        stamp = data[:STAMP_NBYTES]
        try:
            number = int(stamp) if self.text else int.from_bytes(stamp, "little")
            expected = self[number]
        except (ValueError, IndexError):
            raise WrongResult(f"a record starts with {stamp!r}") from None
        if data != expected:
            raise WrongResult(f"record {number} differs from what was written")
        return number

    def check_all(self, stream: Iterable[bytes]) -> list[int]:
        """Check that `stream` holds every record exactly once; returns the order it came in."""
        order = [self.number(record) for record in stream]
        if len(order) != len(self) or len(set(order)) != len(order):
            raise WrongResult(
                f"{len(order)} records came, {len(set(order))} different, {len(self)} were written"
            )
        return order


def _records(
    block: bytes, count: int, low: int, high: int, rng: np.random.Generator, *, text: bool
) -> Records:
    lengths = rng.integers(low - STAMP_NBYTES, high - STAMP_NBYTES, count, endpoint=True)
    starts = rng.integers(0, len(block) - lengths)
    return Records(block, starts.tolist(), (starts + lengths).tolist(), text)


def text_records(count: int, seed: int, *, low: int = 100, high: int = 300) -> Records:
    """Lines of text of `low` to `high` bytes.

    >>> records = text_records(3, seed=0)
    >>> records.number(records[2])
    2
    """
    rng = np.random.default_rng([seed, 1])
    block = _LETTERS[rng.integers(0, len(_LETTERS), 1 << 24, dtype=np.uint8)].tobytes()
    return _records(block, count, low, high, rng, text=True)


def binary_records(count: int, seed: int, *, low: int, high: int) -> Records:
    """Incompressible records of `low` to `high` bytes."""
    rng = np.random.default_rng([seed, 2])
    return _records(rng.bytes(1 << 26), count, low, high, rng, text=False)


def token_records(count: int, seed: int, *, tokens: int = 2048) -> Records:
    """Rows of `tokens` uint16 token numbers."""
    rng = np.random.default_rng([seed, 3])
    return _records(rng.bytes(1 << 25), count, 2 * tokens, 2 * tokens, rng, text=False)
