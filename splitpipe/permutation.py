"""A keyed bijection on range(n): a shuffle that needs no list.

Responsible for: `KeyedPermutation` and the derivation of its keys.

The method is format-preserving encryption in small: a Feistel network permutes the numbers of k
bits, where 2**k is the first power of two that holds n, and a result that is n or more is
permuted again until it falls below ("cycle walking"; Black and Rogaway, "Ciphers with Arbitrary
Finite Domains", CT-RSA 2002). At most every second number walks on, so that it costs two
passes on average at worst. The round function is the finaliser of MurmurHash3 on 32 bits, the
keys come from SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
OOPSLA 2014). It is a good shuffle and no encryption.

Below `SMALL` numbers a Feistel network has too few bits to be a good shuffle, and a table is
cheap: the numbers are sorted by a 64-bit hash of key and number.

Rules:
- the vectorised way, the scalar one and the one in C (``storage/native``, used by ``order``) give
  the same numbers; tests hold them together;
- integer arithmetic on 32 and 64 bits only: the same everywhere, for ever.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["SMALL", "KeyedPermutation", "derive_key"]

SMALL: Final = 1024

_ROUNDS: Final = 6
_MASK32: Final = 0xFFFFFFFF
_MASK64: Final = 0xFFFFFFFFFFFFFFFF
_GOLDEN: Final = 0x9E3779B97F4A7C15
# Numbers permuted at a time: the arrays of one pass stay in the first-level cache.
_BLOCK: Final = 4096

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


def _mix64(value: int) -> int:
    """The finaliser of SplitMix64: every bit of the result depends on every bit given."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK64
    return value ^ (value >> 31)


def _mix64_array(values: U64) -> U64:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def derive_key(*parts: int) -> int:
    """A 64-bit key from any integers; other integers, or another order of them, another key.

    Example:
        >>> derive_key(1, 2) == derive_key(1, 2), derive_key(1, 2) == derive_key(2, 1)
        (True, False)
    """
    key = 0
    for part in parts:
        value = int(part)
        # The sign and every 64 bits count, so that no two integers are the same part.
        words = [1 if value < 0 else 0]
        value = abs(value)
        while True:
            words.append(value & _MASK64)
            value >>= 64
            if not value:
                break
        for word in (*words, len(words)):
            key = _mix64((key ^ _mix64((word + _GOLDEN) & _MASK64)) + _GOLDEN & _MASK64)
    return key


class KeyedPermutation:
    """A bijection on ``range(size)`` chosen by a key.

    Args:
        size: how many numbers.
        key: 64 bits, from `derive_key`; ``None`` is the identity.

    Example:
        >>> shuffle = KeyedPermutation(10_000, derive_key(42))
        >>> len(set(shuffle.between(0, 10_000).tolist()))
        10000
        >>> shuffle[123] == int(shuffle.between(123, 124)[0])
        True
    """

    __slots__ = ("_bits", "_keys", "key", "size")

    def __init__(self, size: int, key: int | None) -> None:
        self.size = size
        self.key = key
        self._bits = max(1, (size - 1).bit_length())
        self._keys: list[int] = []
        if key is not None and size > SMALL:
            self._keys = [derive_key(key, number) & _MASK32 for number in range(_ROUNDS)]

    def __reduce__(self) -> Any:
        return KeyedPermutation, (self.size, self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyedPermutation) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self.size, self.key))

    def __repr__(self) -> str:
        return f"KeyedPermutation(size={self.size}, key={self.key})"

    @property
    def network(self) -> tuple[int, tuple[int, ...]] | None:
        """Bits and round keys of the Feistel network; ``None`` where a table or nothing is used."""
        return (self._bits, tuple(self._keys)) if self._keys else None

    def __getitem__(self, position: int) -> int:
        """The number at a position from 0 to ``size - 1``."""
        if self.key is None:
            return position
        if self.size <= SMALL:
            return int(_table(self.size, self.key)[position])
        value = self._permute(position)
        while value >= self.size:
            value = self._permute(value)
        return value

    def between(self, start: int, stop: int) -> I64:
        """The numbers at positions ``start`` to ``stop - 1``: an int64 array."""
        if self.key is None:
            return np.arange(start, stop, dtype=np.int64)
        if self.size <= SMALL:
            return _table(self.size, self.key)[start:stop].copy()
        result = np.empty(stop - start, dtype=np.uint64)
        for at in range(0, len(result), _BLOCK):
            block = result[at : at + _BLOCK]
            block[:] = np.arange(start + at, start + at + len(block), dtype=np.uint64)
            self._permute_block(block)
        self._walk(result)
        return result.view(np.int64)

    def at(self, positions: I64) -> I64:
        """The numbers at any positions from 0 to ``size - 1``: an int64 array."""
        if self.key is None:
            return positions.copy()
        if self.size <= SMALL:
            found: I64 = _table(self.size, self.key)[positions]
            return found
        result = positions.astype(np.uint64)
        for first in range(0, len(result), _BLOCK):
            self._permute_block(result[first : first + _BLOCK])
        self._walk(result)
        return result.view(np.int64)

    def _walk(self, values: U64) -> None:
        """Permute again what fell outside, until nothing does."""
        size = np.uint64(self.size)
        outside = np.flatnonzero(values >= size)
        while len(outside):
            moved = values[outside]
            for at in range(0, len(moved), _BLOCK):
                self._permute_block(moved[at : at + _BLOCK])
            values[outside] = moved
            outside = outside[moved >= size]

    def _permute(self, value: int) -> int:
        """One pass of the network over the numbers of ``_bits`` bits."""
        low_bits = self._bits // 2
        high_bits = self._bits - low_bits
        low, high = value & ((1 << low_bits) - 1), value >> low_bits
        for number, key in enumerate(self._keys):
            if number % 2:
                low ^= _round(high, key) >> (32 - low_bits)
            else:
                high ^= _round(low, key) >> (32 - high_bits)
        return high << low_bits | low

    def _permute_block(self, values: U64) -> None:
        """The same pass over an array, in place."""
        low_bits = self._bits // 2
        shift = np.uint64(low_bits)
        high: U32 = (values >> shift).astype(np.uint32)
        low: U32 = values.astype(np.uint32)
        low &= np.uint32((1 << low_bits) - 1)
        scratch = np.empty_like(low)
        other = np.empty_like(low)
        for number, key in enumerate(self._keys):
            source, target, bits = (
                (high, low, low_bits) if number % 2 else (low, high, self._bits - low_bits)
            )
            _round_array(source, np.uint32(key), scratch, other)
            scratch >>= np.uint32(32 - bits)
            target ^= scratch
        np.left_shift(high.astype(np.uint64), shift, out=values)
        values |= low


def _round(value: int, key: int) -> int:
    """The finaliser of MurmurHash3 over value and key; its high bits are the good ones."""
    value ^= key
    value ^= value >> 16
    value = value * 0x85EBCA6B & _MASK32
    value ^= value >> 13
    return value * 0xC2B2AE35 & _MASK32


def _round_array(source: U32, key: np.uint32, scratch: U32, other: U32) -> None:
    np.bitwise_xor(source, key, out=scratch)
    np.right_shift(scratch, np.uint32(16), out=other)
    scratch ^= other
    scratch *= np.uint32(0x85EBCA6B)
    np.right_shift(scratch, np.uint32(13), out=other)
    scratch ^= other
    scratch *= np.uint32(0xC2B2AE35)


@lru_cache(maxsize=64)
def _table(size: int, key: int) -> I64:
    """A shuffle of few numbers: they are sorted by a hash, equal hashes by number."""
    numbers = np.arange(1, size + 1, dtype=np.uint64)
    hashes = _mix64_array(numbers * np.uint64(_GOLDEN) + np.uint64(key))
    table = np.argsort(hashes, kind="stable").astype(np.int64)
    table.setflags(write=False)
    return table
