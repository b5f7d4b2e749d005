"""Parts of a dataset: exact, disjoint, and together everything.

Responsible for: `sampled` (some rows, drawn), `split` (all rows, dealt to parts: by chance, whole
groups together, or cut by time), and how many records a fraction is.

Rules:
- a pure function of the dataset, the fractions, and the seed;
- the rows of a part are in row order: shuffling is the business of orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from operator import index as as_integer
from typing import Any, Final

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.storage.base import Records, Rows, Values
from splitpipe.views.named import named_values
from splitpipe.views.selection import Selection, drawn

__all__ = ["sampled", "sizes_of", "split"]

# What a key is drawn for; orders have 1, 2 and 3.
_SAMPLE: Final = 16
_SPLIT: Final = 17
_GROUPS: Final = 18

# Fractions such as 0.7 + 0.2 + 0.1 are not exactly one.
_TOLERANCE: Final = Fraction(1, 10**9)


def sampled(rows: int, amount: Any, seed: int) -> Selection:
    """A draw of rows without repetition: so many, or such a fraction.

    Raises:
        FormatError: there are not so many, or a fraction is not from 0 to 1.

    Example:
        >>> len(sampled(1000, 0.25, seed=1)), len(sampled(1000, 7, seed=1))
        (250, 7)
    """
    count: Any
    if isinstance(amount, float | np.floating):
        if not 0 <= amount <= 1:
            raise FormatError(f"a fraction to sample is from 0.0 to 1.0, not {amount}")
        count = round(rows * Fraction(str(amount)))
    else:
        try:
            count = as_integer(amount)
        except TypeError:
            raise FormatError(
                f"sample() takes a number of records or a fraction, not {amount!r}"
            ) from None
        if isinstance(amount, bool) or not 0 <= count <= rows:
            raise FormatError(f"cannot sample {amount!r} of {rows} records")
    return drawn(rows, derive_key(as_integer(seed), _SAMPLE), 0, count)


def sizes_of(rows: int, fractions: Any) -> dict[str, int]:
    """How many records each part has: they add up to all, each as near as can be.

    What is left over after rounding down goes to the largest remainders, of equal ones to the
    first.

    Raises:
        FormatError: fractions do not add up to one, or one is negative.

    Example:
        >>> sizes_of(10, {"train": 0.8, "val": 0.15, "test": 0.05})
        {'train': 8, 'val': 2, 'test': 0}
    """
    if not isinstance(fractions, Mapping) or not fractions:
        raise FormatError(
            f"split() takes parts and their fractions, such as {{'train': 0.9, 'val': 0.1}}, not "
            f"{fractions!r}"
        )
    exact: dict[str, Fraction] = {}
    for name, fraction in fractions.items():
        try:
            # By its digits: 0.1 is a tenth, not the binary number next to it.
            exact[name] = Fraction(str(fraction))
        except (ValueError, ZeroDivisionError):
            raise FormatError(
                f"the fraction of part {name!r} must be a number, not {fraction!r}"
            ) from None
        if not 0 <= exact[name] <= 1 + _TOLERANCE:
            raise FormatError(f"the fraction of part {name!r} is from 0 to 1, not {fraction}")
    total = sum(exact.values(), Fraction(0))
    if abs(total - 1) > _TOLERANCE:
        raise FormatError(
            f"the fractions add up to {float(total)}, not to 1: parts cover all records, give "
            "the rest a name too"
        )
    shares = {name: rows * fraction / total for name, fraction in exact.items()}
    sizes = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: sizes[name] - shares[name])
    for name in by_remainder[: rows - sum(sizes.values())]:
        sizes[name] += 1
    return sizes


def split(
    records: Records,
    fractions: Mapping[str, float],
    *,
    by: str | None,
    how: str | None,
    seed: int,
) -> dict[str, Selection]:
    """The rows of every part, see ``Dataset.split``."""
    sizes = sizes_of(len(records), fractions)
    if how not in (None, "group", "time"):
        raise FormatError(f'how must be "group" or "time", not {how!r}')
    if by is None:
        if how is not None:
            raise FormatError(f"how={how!r} needs by=: the column or metadata to split by")
        return _by_chance(len(records), sizes, as_integer(seed))
    values = named_values(records, by, "split by")
    if how is None:
        dates = isinstance(values, np.ndarray) and values.dtype.kind == "M"
        how = "time" if dates else "group"
    if how == "time":
        return _by_time(values, sizes, by)
    return _by_group(values, sizes, derive_key(as_integer(seed), _GROUPS))


def _by_chance(rows: int, sizes: Mapping[str, int], seed: int) -> dict[str, Selection]:
    key = derive_key(seed, _SPLIT)
    parts: dict[str, Selection] = {}
    start = 0
    for name, size in sizes.items():
        parts[name] = drawn(rows, key, start, start + size)
        start += size
    return parts


def _by_time(values: Values, sizes: Mapping[str, int], by: str) -> dict[str, Selection]:
    """Earlier records in earlier parts; of equal times, lower rows are earlier."""
    if not isinstance(values, np.ndarray):
        lost = next((row for row, value in enumerate(values) if value is None), None)
        if lost is not None:
            raise FormatError(
                f"{by!r} of record {lost} is missing: a record without a time is in no part"
            )
        kinds = {str if isinstance(value, str) else float for value in values}
        if len(kinds) > 1 or any(isinstance(value, bytes | bool) for value in values):
            raise FormatError(f"{by!r} holds values that have no common order as times")
        values = np.array(values)
    unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    if values.dtype.kind in "mM":
        unknown = np.isnat(values)
    if unknown.any():
        raise FormatError(
            f"{by!r} of record {int(np.argmax(unknown))} is no time: such a record is in no part"
        )
    order = np.argsort(values, kind="stable").astype(np.int64)
    parts: dict[str, Selection] = {}
    start = 0
    for name, size in sizes.items():
        parts[name] = Selection(np.sort(order[start : start + size]))
        start += size
    return parts


def _by_group(values: Values, sizes: Mapping[str, int], key: int) -> dict[str, Selection]:
    """Whole groups, in shuffled order, each to the part that lacks most records."""
    numbers, groups = _numbered(values)
    counts = np.bincount(numbers, minlength=groups).tolist()
    names = list(sizes)
    lacking = [sizes[name] for name in names]
    owner = np.zeros(groups, dtype=np.int64)
    for group in KeyedPermutation(groups, key).between(0, groups).tolist():
        part = max(range(len(names)), key=lacking.__getitem__)
        owner[group] = part
        lacking[part] -= counts[group]
    of_row = owner[numbers]
    return {
        name: Selection(np.flatnonzero(of_row == part).astype(np.int64))
        for part, name in enumerate(names)
    }


def _numbered(values: Values) -> tuple[Rows, int]:
    """Groups by number, counted as they come; what is missing is a group too."""
    if isinstance(values, np.ndarray):
        found, first, numbers = np.unique(values, return_index=True, return_inverse=True)
        rank = np.empty(len(found), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(found))
        return rank[numbers.reshape(-1)], len(found)
    known: dict[Any, int] = {}
    plain = (_plain(value) for value in values)
    counted = [known.setdefault(value, len(known)) for value in plain]
    return np.array(counted, dtype=np.int64), len(known)


def _plain(value: Any) -> Any:
    # NaN is not equal to itself, but all of them are one group.
    return ("nan",) if isinstance(value, float) and value != value else value
