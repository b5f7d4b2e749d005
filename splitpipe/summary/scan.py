"""Looking at the records of a dataset.

Responsible for: `summarise`: which records are looked at, in blocks of bounded bytes.

Rules:
- a sample is drawn without repetition and is the same for the same seed;
- missing values, sizes and ranges are exact for the records that were looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from splitpipe.summary.columns import Column, ColumnSummary

if TYPE_CHECKING:
    from splitpipe.dataset import Dataset

__all__ = ["Summary", "summarise"]

_BLOCK_NBYTES: Final = 8 << 20
_FIRST_BLOCK: Final = 16
_MOST_RECORDS: Final = 4096


@dataclass(frozen=True, slots=True)
class Summary:
    """What a dataset is like.

    Attributes:
        path: what it was opened as.
        records: how many there are.
        looked_at: how many of them the figures are of.
        columns: of each column.
    """

    path: str
    records: int
    looked_at: int
    columns: tuple[ColumnSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON: these names, and lists for tuples."""
        return asdict(self)


def summarise(
    dataset: Dataset,
    *,
    sample: int | None = 10_000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Look at the values of every column.

    Args:
        dataset: any dataset.
        sample: how many records to look at; None for all.
        seed: of the sample.
        progress: told how many records of how many were looked at.

    Raises:
        FormatError: there cannot be such a sample.
        CorruptRecord: a record is damaged.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path) as writer:
        ...     writer.write_many({"text": "ab" * n, "n": n} for n in range(5))
        >>> text, n = sp.summarise(sp.open_dataset(path)).columns
        >>> text.nbytes.most, n.numbers.mean
        (8, 2.0)
    """
    looked = dataset
    if sample is not None and sample < len(dataset):
        looked = dataset.sample(sample, seed=seed)
    schema = dataset.schema
    columns = {name: Column(name, field) for name, field in schema.items()}
    start, size = 0, _FIRST_BLOCK
    while start < len(looked):
        rows = np.arange(start, min(start + size, len(looked)), dtype=np.int64)
        values = looked.records.read(rows, tuple(schema))
        nbytes = sum(columns[name].add(values[name]) for name in schema)
        start += len(rows)
        if progress is not None:
            progress(start, len(looked))
        # As large as the last block says, and never many times as large as it was.
        fitting = _BLOCK_NBYTES * len(rows) // max(1, nbytes)
        size = max(1, min(_MOST_RECORDS, 8 * size, fitting))
    found = tuple(column.summary() for column in columns.values())
    return Summary(repr(dataset), len(dataset), len(looked), found)
