"""Sets of numbers as sorted, disjoint ranges.

Responsible for: `Ranges`, a tuple of ``(start, stop)`` pairs, and the operations on it that the
ledger needs. What is granted, held and given back is nearly always a handful of such pairs, however
many batches it has.

Rules:
- a `Ranges` is sorted, no pair is empty, and no two pairs touch: equal sets are equal values;
- values, never changed in place;
- nothing here trusts its caller's pairs to be in order: `normal` puts what came from outside right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "NOTHING",
    "Ranges",
    "count",
    "difference",
    "intersection",
    "normal",
    "numbers",
    "of_numbers",
    "union",
]

Ranges = tuple[tuple[int, int], ...]
"""A set of numbers: ``((start, stop), ...)``."""

NOTHING: Ranges = ()


def normal(pairs: Iterable[Sequence[int]]) -> Ranges:
    """The set of all numbers of `pairs`, in whatever order and overlap they come.

    Example:
        >>> normal([(5, 7), (0, 2), (2, 3), (6, 9), (4, 4)])
        ((0, 3), (5, 9))
    """
    merged: list[tuple[int, int]] = []
    for start, stop in sorted((one[0], one[1]) for one in pairs if one[0] < one[1]):
        if merged and start <= merged[-1][1]:
            if stop > merged[-1][1]:
                merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def of_numbers(some: Iterable[int]) -> Ranges:
    """The set of these numbers.

    Example:
        >>> of_numbers([3, 1, 2, 7])
        ((1, 4), (7, 8))
    """
    return normal((number, number + 1) for number in some)


def numbers(ranges: Ranges) -> Iterator[int]:
    """All numbers of the set, in order.

    Example:
        >>> list(numbers(((1, 3), (7, 8))))
        [1, 2, 7]
    """
    for start, stop in ranges:
        yield from range(start, stop)


def count(ranges: Ranges) -> int:
    """How many numbers the set has.

    Example:
        >>> count(((1, 3), (7, 8)))
        3
    """
    return sum(stop - start for start, stop in ranges)


def union(one: Ranges, other: Ranges) -> Ranges:
    """Numbers that are in `one` or in `other`.

    Example:
        >>> union(((0, 2),), ((2, 4), (6, 7)))
        ((0, 4), (6, 7))
    """
    if not one or not other:
        return one or other
    return normal((*one, *other))


def intersection(one: Ranges, other: Ranges) -> Ranges:
    """Numbers that are in both.

    Example:
        >>> intersection(((0, 5), (8, 9)), ((3, 10),))
        ((3, 5), (8, 9))
    """
    both: list[tuple[int, int]] = []
    here = there = 0
    while here < len(one) and there < len(other):
        start = max(one[here][0], other[there][0])
        stop = min(one[here][1], other[there][1])
        if start < stop:
            both.append((start, stop))
        if one[here][1] < other[there][1]:
            here += 1
        else:
            there += 1
    return tuple(both)


def difference(one: Ranges, other: Ranges) -> Ranges:
    """Numbers of `one` that are not in `other`.

    Example:
        >>> difference(((0, 10),), ((2, 3), (8, 20)))
        ((0, 2), (3, 8))
    """
    if not one or not other:
        return one
    left: list[tuple[int, int]] = []
    there = 0
    for start, stop in one:
        at = start
        while there < len(other) and other[there][1] <= at:
            there += 1
        index = there
        while index < len(other) and other[index][0] < stop:
            if other[index][0] > at:
                left.append((at, other[index][0]))
            at = max(at, other[index][1])
            index += 1
        if at < stop:
            left.append((at, stop))
    return tuple(left)
