"""What of its files a column needs for some rows.

Responsible for: `RemoteColumn`: from rows to blocks of the index and, by what the index says, to
blocks of bins.

Rules:
- an entry is taken for what it is, bytes that may be damaged: what leads out of its bin is left to
  whoever reads it and knows what to say;
- a value without bytes needs none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from splitpipe.remote.extents import Spans
from splitpipe.remote.mirror import ColumnFiles
from splitpipe.storage.base import Rows
from splitpipe.storage.format import ENTRY_NBYTES, FILE_HEADER_NBYTES
from splitpipe.storage.values import ColumnValues

__all__ = ["RemoteColumn"]


class RemoteColumn:
    """One column of a remote dataset.

    Args:
        files: of the column.
        values: as they are read from the mirror.
    """

    __slots__ = ("_sizes", "files", "values")

    def __init__(self, files: ColumnFiles, values: ColumnValues) -> None:
        self.files = files
        self.values = values
        self._sizes = np.array(files.sizes[: files.index], dtype=np.uint64)

    def index_spans(self, rows: Rows) -> Spans:
        """Blocks of the index that have the entries of physical rows."""
        starts = FILE_HEADER_NBYTES + ENTRY_NBYTES * rows
        numbers = np.full(len(rows), self.files.index, dtype=np.int64)
        return self.files.blocks.spans(numbers, starts, starts + ENTRY_NBYTES)

    def data_spans(self, rows: Rows) -> Spans:
        """Blocks of the bins that have the values of physical rows, by what the index says."""
        entries = self.values.reader.raw_entries(rows)
        numbers, offsets, lengths = entries["bin"], entries["offset"], entries["length"]
        fit = (numbers < len(self._sizes)) & (lengths > 0)
        if not fit.all():
            numbers, offsets, lengths = numbers[fit], offsets[fit], lengths[fit]
        sizes = self._sizes.take(numbers)
        fit = (offsets <= sizes) & (lengths <= sizes - np.minimum(offsets, sizes))
        if not fit.all():
            numbers, offsets, lengths = numbers[fit], offsets[fit], lengths[fit]
        starts: npt.NDArray[np.int64] = offsets.astype(np.int64)
        stops = starts + lengths.astype(np.int64)
        return self.files.blocks.spans(numbers.astype(np.int64), starts, stops)

    def page_spans(self) -> Spans:
        """All blocks of the sums, which prove pages of the index."""
        return self.files.blocks.whole(self.files.sums)

    def whole_index_spans(self) -> Spans:
        """All blocks of the index."""
        return self.files.blocks.whole(self.files.index)
