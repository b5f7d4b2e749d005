"""What a record costs, without reading it.

Responsible for: `Costs`, which looks numbers up for rows of a source, from its index, one of its
columns, an array, or a function of the row.

Rules:
- no payload is read: lengths stand in the index, and of a column only that column is touched;
- a cost is a finite number of at least 0; anything else is an error that names the record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from splitpipe.errors import GraphError
from splitpipe.order import Rows

__all__ = ["Cost", "check_cost", "costs_of"]

Cost: TypeAlias = "str | Callable[[int], float] | Sequence[float] | npt.NDArray[Any] | None"
"""A column, a function of the row, a number for every row, or None: lengths in the index."""


def check_cost(cost: Any) -> Cost:
    """Return `cost`, numbers as an array.

    Raises:
        GraphError: it is none.
    """
    if cost is None or isinstance(cost, str) or callable(cost):
        return cost  # type: ignore[no-any-return]
    try:
        numbers = np.asarray(cost)
        fine = numbers.ndim == 1 and numbers.dtype.kind in "iuf"
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise GraphError(
            "cost must be None (the length of a record in the index), the name of a column, a "
            f"number for every record, or a function of its index, not {cost!r:.80}"
        )
    return np.asarray(cost)


def costs_of(sequence: Any, cost: Cost, rows: Rows) -> npt.NDArray[Any]:
    """Return what the records at `rows` of `sequence` cost: integers or floats, shape (n,).

    Raises:
        GraphError: it cannot be told, or is no number of at least 0.

    Example:
        >>> costs_of(range(4), [5, 6, 7, 8], np.array([3, 0])).tolist()
        [8, 5]
    """
    if isinstance(cost, np.ndarray):
        if len(cost) != len(sequence):
            raise GraphError(
                f"balance was given {len(cost)} costs for {len(sequence)} records: one for each"
            )
        found: Any = cost[rows]
    elif callable(cost):
        found = np.array([cost(row) for row in rows.tolist()])
    elif isinstance(cost, str):
        found = _column(sequence, cost, rows)
    elif cost is None:
        found = _lengths(sequence, None, rows)
    else:
        return costs_of(sequence, np.asarray(cost), rows)
    return _checked(np.asarray(found), rows)


def _checked(found: npt.NDArray[Any], rows: Rows) -> npt.NDArray[Any]:
    if found.shape != rows.shape or (found.dtype.kind not in "iuf" and len(rows)):
        raise GraphError(
            f"the costs of {len(rows)} records must be as many numbers, not an array of "
            f"{found.dtype} of shape {found.shape}"
        )
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        row, value = int(rows[wrong[0]]), found[wrong[0]]
        raise GraphError(
            f"record {row} costs {value}: a cost must be a finite number of at least 0"
        )
    return found.astype(np.float64 if found.dtype.kind == "f" else np.int64)


def _column(sequence: Any, name: str, rows: Rows) -> Any:
    schema = getattr(sequence, "schema", None)
    if not _is_dataset(sequence) or name not in schema:  # type: ignore[operator]
        known = ", ".join(schema) if _is_dataset(sequence) and schema else "none"
        raise GraphError(
            f"balance(cost={name!r}): there is no such column (there are: {known}); give a number "
            "for every record, or a function of its index"
        )
    if schema[name].kind != "scalar":  # type: ignore[index]
        return _lengths(sequence, [name], rows)
    values = sequence.get_batch(rows, columns=[name])[name]
    if not isinstance(values, np.ndarray):
        missing = next(row for row, one in zip(rows.tolist(), values, strict=True) if one is None)
        raise GraphError(f"record {missing} has no value of {name!r}, which balance takes as cost")
    return values


def _lengths(sequence: Any, names: Sequence[str] | None, rows: Rows) -> Any:
    if _is_dataset(sequence):
        from splitpipe.views.lengths import record_lengths

        found = record_lengths(sequence.records, rows, names)
        if found is not None:
            return found
    what = "lengths" if names is None else f"lengths of {names[0]!r}"
    raise GraphError(
        f"balance cannot tell the {what} of the records of a {type(sequence).__name__} without "
        "reading them; say cost=: a column of numbers, a number for every record, or a function "
        "of its index"
    )


def _is_dataset(sequence: Any) -> bool:
    from splitpipe.dataset import Dataset  # whoever has none needs no storage

    return isinstance(sequence, Dataset)
