"""Records in an Arrow table that is in memory.

Responsible for: `ArrowTable`, records over a ``pyarrow.Table`` without copying it. Imports pyarrow.

Rules:
- every value stays what it is, or the column is refused when the table is taken, by its name;
- numbers without a missing one are read where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from splitpipe.errors import FormatError
from splitpipe.formats.chunks import ChunkedRecords, Chunks, Values
from splitpipe.formats.columnar.arrowfields import (
    noted_schema,
    reading_as,
    schema_of,
    strict_reading,
)
from splitpipe.formats.columnar.arrowtypes import Reading, refused
from splitpipe.formats.names import column_names
from splitpipe.schema import Field
from splitpipe.storage.base import (
    Catalog,
    Rows,
    consecutive_layout,
)
from splitpipe.storage.layout import BinLayout

__all__ = ["ArrowTable"]


class ArrowTable(ChunkedRecords):
    """The rows of a table.

    Args:
        table: a ``pyarrow.Table``.

    Raises:
        FormatError: a column's values would become something else here.
    """

    catalog: Catalog | None = None

    def __init__(self, table: pa.Table) -> None:
        if not table.num_columns:
            raise FormatError("the table has no columns")
        if len(set(table.column_names)) != table.num_columns:
            raise FormatError(f"two columns of the table have one name: {table.column_names}")
        self._table = table
        self._batches = table.to_batches()
        names = column_names(table.column_names)
        self._places = {name: place for place, name in enumerate(names)}
        noted: Mapping[str, Field] = noted_schema(table.schema) or {}
        self._readings = {
            name: _reading(noted.get(given), table.schema.field(place).type, given)
            for place, (name, given) in enumerate(names.items())
        }
        self.schema = schema_of(table.schema, self._readings)
        self._chunks = Chunks([batch.num_rows for batch in self._batches])

    def __repr__(self) -> str:
        return f"ArrowTable({len(self)} rows of {', '.join(self._readings)})"

    def layout(self) -> BinLayout:
        """Rows that lie in no bins."""
        return consecutive_layout(len(self))

    def close(self) -> None:
        """The table is its owner's."""

    def _values(self, chunk: int, local: Rows, columns: Sequence[str]) -> dict[str, Values]:
        values: dict[str, Values] = {}
        for name in columns:
            with refused(f"column {name!r} of a table", FormatError):
                column = self._batches[chunk].column(self._places[name])
                values[name] = self._readings[name].values(column, local)
        return values

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrowTable, (self._table,)


def _reading(field: Field | None, kind: pa.DataType, given: str) -> Reading:
    known = None if field is None else reading_as(field, kind)
    return known or strict_reading(kind, f"column {given!r}")
