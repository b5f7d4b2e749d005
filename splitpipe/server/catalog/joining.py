"""Putting the column sets of a dataset side by side.

Responsible for: `match`, which rows of a set belong to those of the main one; `matched`, which rows
of all sets make a record, by the rule of a dataset, with what does not fit counted; and
`side_by_side`, the records that these are.

Rules:
- records come in the order of the main set, each once;
- by uid, equal values belong together; of several rows of a set with one value the first counts,
  and the others are counted as duplicates. A missing value belongs to nothing;
- by row, equal row numbers belong together;
- the rule decides about what has no partner: ``inner`` leaves the record out, ``left`` keeps it
  with missing values, ``strict`` refuses the dataset, as it refuses all else that is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.schema import Schema
from splitpipe.storage.base import Records, Rows
from splitpipe.views.join import Join
from splitpipe.views.named import named_values
from splitpipe.views.selection import Selection
from splitpipe.views.subset import subset

__all__ = ["RULES", "Match", "Matched", "Side", "match", "matched", "side_by_side"]

RULES: Final = ("inner", "left", "strict")


@dataclass(frozen=True, slots=True)
class Side:
    """A column set in a join.

    Attributes:
        name: of it.
        records: its rows.
        rows: how many.
        no_uid: rows without a uid.
        duplicates: rows whose uid an earlier row has.
        missing: rows of the main set that have no partner here.
        extra: rows here that are no row's partner, duplicates and rows without a uid left aside.
    """

    name: str
    rows: int
    no_uid: int = 0
    duplicates: int = 0
    missing: int = 0
    extra: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "column_set": self.name,
            "rows": self.rows,
            "no_uid": self.no_uid,
            "duplicates": self.duplicates,
            "missing": self.missing,
            "extra": self.extra,
        }

    @property
    def fits(self) -> bool:
        """Whether nothing is counted."""
        return not (self.no_uid or self.duplicates or self.missing or self.extra)


@dataclass(frozen=True, slots=True)
class Match:
    """Which rows of a set belong to those of the main one.

    Attributes:
        partners: for every row of the main set the row of this one, or -1.
        duplicates, no_uid, extra: see `Side`.
    """

    partners: Rows
    duplicates: int
    no_uid: int
    extra: int


def match(left: Any, right: Any) -> Match:
    """Match rows by their values.

    Args:
        left: those of the main set: an array, or a list with ``None`` for a missing one.
        right: those of the other.

    Example:
        >>> found = match(["a", None, "c"], ["c", "x", "c", "a"])
        >>> found.partners.tolist(), found.duplicates, found.extra
        ([3, -1, 0], 1, 1)
    """
    arrays = all(isinstance(v, np.ndarray) and v.dtype.kind in "iu" for v in (left, right))
    if arrays and np.result_type(left, right).kind in "iu":  # else they would become floats
        return _match_sorted(left, right)
    first: dict[Any, int] = {}
    no_uid = duplicates = 0
    for row, value in enumerate(_plain(right)):
        if value is None or value != value:
            no_uid += 1
        elif first.setdefault(value, row) != row:
            duplicates += 1
    used: set[int] = set()
    partners = np.empty(len(left), dtype=np.int64)
    for row, value in enumerate(_plain(left)):
        partner = -1 if value is None else first.get(value, -1)
        partners[row] = partner
        if partner >= 0:
            used.add(partner)
    return Match(partners, duplicates, no_uid, len(first) - len(used))


def _match_sorted(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Match:
    if not len(right):
        return Match(np.full(len(left), -1, dtype=np.int64), 0, 0, 0)
    order = np.argsort(right, kind="stable")  # of equal ones the first comes first
    ordered = right[order]
    distinct = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    values, rows = ordered[distinct], order[distinct]
    places = np.minimum(np.searchsorted(values, left), len(values) - 1)
    found = values[places] == left
    used = np.zeros(len(values), dtype=np.bool_)
    used[places[found]] = True
    partners = np.where(found, rows[places], -1).astype(np.int64)
    duplicates = len(right) - len(values)
    return Match(partners, duplicates, 0, int(len(values) - np.count_nonzero(used)))


def _plain(values: Any) -> Any:
    if not isinstance(values, np.ndarray):
        return values
    return list(values) if values.dtype.kind in "mM" else values.tolist()


@dataclass(frozen=True, slots=True)
class Matched:
    """Which rows of all sets make a record.

    Attributes:
        rows: int64 array of shape (sets, records): the rows of the main set, and those of each
            other one, -1 for none; ``None`` where there is one set alone.
        sides: what did not fit, for every set.
    """

    rows: Rows | None
    sides: list[Side]


def matched(sets: Sequence[tuple[str, Records]], uid: str | None, rule: str | None) -> Matched:
    """Match the rows of all sets.

    Args:
        sets: name and rows of each, the main one first; apart from the uid, columns have different
            names.
        uid: the column by which they are joined; ``None``: by row.
        rule: one of `RULES`, or ``None`` to count only: what has no partner stays.

    Raises:
        FormatError: the uid is not in every set, or is of types that are never equal; or the rule
            refuses what there is.
    """
    main_name, main = sets[0]
    values = None if uid is None else _uids(main_name, main, uid)
    sides = [_main_side(main_name, main, values)]
    found: list[Rows] = [np.arange(len(main), dtype=np.int64)]
    for name, records in sets[1:]:
        if values is None or uid is None:
            one = _by_row(len(main), len(records))
        else:
            others = _uids(name, records, uid)
            _check_kinds(uid, main_name, main.schema, name, records.schema)
            one = match(values, others)
        lost = int(np.count_nonzero(one.partners < 0))
        sides.append(Side(name, len(records), one.no_uid, one.duplicates, lost, one.extra))
        found.append(one.partners)
    if rule == "strict":
        _check_strict(sides, uid)
    if len(sets) == 1:
        return Matched(None, sides)
    rows = np.stack(found)
    if rule == "inner":
        keep = (rows >= 0).all(axis=0)
        rows = rows if keep.all() else rows[:, keep]
    return Matched(rows, sides)


def _by_row(left: int, right: int) -> Match:
    rows = np.arange(left, dtype=np.int64)
    return Match(np.where(rows < right, rows, -1), 0, 0, max(0, right - left))


def _uids(name: str, records: Records, uid: str) -> Any:
    if uid not in records.schema:
        raise FormatError(
            f"column set {name!r} has no column {uid!r}, by which this dataset is joined; its "
            f"columns: {', '.join(records.schema)}"
        )
    return named_values(records, uid, "join by")


def _check_kinds(uid: str, left: str, one: Schema, right: str, other: Schema) -> None:
    """Refuse values that are never equal, such as numbers and text."""
    if (one[uid].kind == "scalar") != (other[uid].kind == "scalar"):
        raise FormatError(
            f"column {uid!r} is {one[uid].description} in column set {left!r} and "
            f"{other[uid].description} in {right!r}: no record would have a partner; declare the "
            "same type for both"
        )


def _main_side(name: str, records: Records, values: Any) -> Side:
    if values is None:
        return Side(name, len(records))
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return Side(name, len(records), 0, len(values) - len(np.unique(values)))
    there = [value for value in _plain(values) if value is not None and value == value]
    return Side(name, len(records), len(values) - len(there), len(there) - len(set(there)))


def _check_strict(sides: Sequence[Side], uid: str | None) -> None:
    for side in sides:
        if not side.fits:
            by = "row" if uid is None else f"column {uid!r}"
            raise FormatError(
                f"the dataset is joined strictly by {by}, and column set {side.name!r} does not "
                f"fit: {side.missing} records of the main set have no row in it, {side.extra} of "
                f"its rows belong to no record, {side.duplicates} have a uid that an earlier one "
                f"has, {side.no_uid} have none. Mend it, or join by 'inner' or 'left'"
            )


def side_by_side(
    sets: Sequence[tuple[str, Records]], uid: str | None, rows: Rows | None
) -> Records:
    """The records of a dataset.

    Args:
        sets: as for `matched`.
        uid: as for `matched`.
        rows: see `Matched`.
    """
    made: Records = sets[0][1]
    if rows is None:
        return made
    selection = Selection(rows[0])
    if not isinstance(selection.rows, range) or selection.rows != range(len(made)):
        made = subset(made, selection)
    for (_, records), partners in zip(sets[1:], rows[1:], strict=True):
        names: Mapping[str, str] = {name: name for name in records.schema if name != uid}
        if names:
            made = Join(made, records, names, Selection(range(len(made))), partners)
    return made
