"""Which combinations of a test's parameters are tried every time.

Responsible for: `sampled`, the arguments of ``pytest.mark.parametrize`` for several parameters,
where some combinations prove what all of them together do.

Rules:
- no combination is lost: those that are not tried every time are marked `long`;
- the choice depends on nothing but the values, so that a failure comes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import Any

import pytest

__all__ = ["sampled", "sampled_ids", "seldom"]


def sampled(strength: int, **values: Iterable[Any]) -> tuple[str, list[Any]]:
    """Name the parameters, and give all their combinations; most of them are marked `long`.

    Args:
        strength: 1: every value is tried with some values of the others; 2: every two values of
            different parameters are tried together; and so on.
        values: of each parameter, by its name.

    Returns:
        What ``pytest.mark.parametrize`` takes: names, and values.

    Example::

        @pytest.mark.parametrize(*sampled(1, shape=SHAPES, workers=[1, 3]))
        def test_exactly_that_item(shape: str, workers: int) -> None: ...
    """
    lists = [list(these) for these in values.values()]
    tried = set(sampled_ids(strength, [len(these) for these in lists]))
    made = []
    for at in product(*(range(len(these)) for these in lists)):
        row = [these[i] for these, i in zip(lists, at, strict=True)]
        made.append(pytest.param(*row, marks=() if at in tried else pytest.mark.long))
    return ",".join(values), made


def seldom(rows: Iterable[Any], keep: Sequence[Any]) -> list[Any]:
    """Mark all but those in `keep` as `long`; a tuple is values of several parameters."""
    return [
        row if row in keep else pytest.param(*_values(row), marks=pytest.mark.long) for row in rows
    ]


def sampled_ids(strength: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Choose combinations of indices below `sizes`, each value about as often as the others.

    Example:
        >>> sampled_ids(1, [4, 2])
        [(0, 0), (1, 1), (2, 0), (3, 1)]
    """
    every = list(product(*map(range, sizes)))
    groups = list(combinations(range(len(sizes)), min(strength, len(sizes))))
    missing = {(group, tuple(at[i] for i in group)) for at in every for group in groups}
    used: Counter[tuple[int, int]] = Counter()
    found: list[tuple[int, ...]] = []

    def worth(at: tuple[int, ...]) -> tuple[int, int]:
        new = sum((group, tuple(at[i] for i in group)) in missing for group in groups)
        return new, -sum(used[axis, i] for axis, i in enumerate(at))

    while missing:
        best = max(every, key=worth)
        found.append(best)
        missing -= {(group, tuple(best[i] for i in group)) for group in groups}
        used.update(enumerate(best))
    return found


def _values(row: Any) -> tuple[Any, ...]:
    return row if isinstance(row, tuple) else (row,)
