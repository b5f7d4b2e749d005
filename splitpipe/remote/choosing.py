"""Whether records of an order are fetched in blocks that are kept, or one by one.

Responsible for: `cheaper_alone`: what both cost for a stretch of the order that a cache can hold.

Rules:
- a cache that holds all of a dataset keeps blocks: nobody needs to ask;
- what decides is how close to each other in their files the next records lie, whatever the order
  is called and whoever deals it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitpipe.remote.columns import RemoteColumn
from splitpipe.storage.base import Rows

__all__ = ["REQUEST_NBYTES", "cheaper_alone"]

# As many bytes as come in the time that a request costs.
REQUEST_NBYTES = 128 << 10


def cheaper_alone(columns: Sequence[RemoteColumn], rows: Rows, *, extent_nbytes: int) -> bool:
    """Whether rows cost less when each is fetched for itself than in whole blocks.

    Args:
        columns: what is read.
        rows: physical, those that come next; their index entries are here.
        extent_nbytes: most bytes of one request for blocks.
    """
    alone = kept = 0
    for column in columns:
        lengths = column.values.reader.raw_lengths(rows)
        there = int(np.count_nonzero(lengths))
        alone += int(lengths.sum()) + REQUEST_NBYTES * there
        for _, ranges in column.files.wanted(column.data_spans(rows)):
            sizes = ranges[:, 1] - ranges[:, 0]
            requests = int((-(-sizes // extent_nbytes)).sum())
            kept += int(sizes.sum()) + REQUEST_NBYTES * requests
    return alone < kept
