"""How long records are, from the index alone.

Responsible for: `record_lengths`, through views down to what stores them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitpipe.distinct import distinct
from splitpipe.storage.base import Records, Rows
from splitpipe.storage.table import TableRecords
from splitpipe.views.concat import Concat
from splitpipe.views.subset import Columns, Subset

__all__ = ["record_lengths"]


def record_lengths(
    records: Records, rows: Rows, columns: Sequence[str] | None = None
) -> Rows | None:
    """Stored bytes of records, payloads unread: an int64 array of shape (n,).

    Args:
        records: of our own format, or a view of such.
        rows: checked.
        columns: whose bytes count; ``None`` for all that the records have.

    Returns:
        ``None`` where no index tells.

    Raises:
        FormatError: the index is damaged there.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"", b"22", b"333"])
        >>> with sp.open_dataset(path) as ds:
        ...     record_lengths(ds.subset([2, 1]).records, np.array([0, 1])).tolist()
        [3, 2]
    """
    names = list(records.schema) if columns is None else columns
    if isinstance(records, Subset):
        return record_lengths(records.parent, records.selection.take(rows), names)
    if isinstance(records, Columns):
        return record_lengths(records.parent, rows, names)
    if isinstance(records, TableRecords):
        physical = records.physical(rows)
        found = [records.values(name).reader.lengths(physical) for name in names]
        total: Rows = np.sum(found, axis=0, dtype=np.int64)
        return total
    told = getattr(records, "lengths", None)
    if told is not None:
        there: Rows = told(rows, names)
        return there
    if isinstance(records, Concat):
        return _of_parts(records, rows, names)
    return None


def _of_parts(records: Concat, rows: Rows, names: Sequence[str]) -> Rows | None:
    starts = np.cumsum([0, *map(len, records.parts)])
    owner = np.searchsorted(starts, rows, side="right") - 1
    made = np.empty(len(rows), np.int64)
    for number in distinct(owner).tolist():
        mine = np.flatnonzero(owner == number)
        found = record_lengths(records.parts[number], rows[mine] - starts[number], names)
        if found is None:
            return None
        made[mine] = found
    return made
