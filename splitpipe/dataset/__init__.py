"""A dataset as a sequence of records.

Responsible for: what users hold of records of any kind. ``opening`` finds out what a path holds;
``dataset`` has `Dataset` and its fast lane for plain bytes; ``telling`` is what a dataset says of
its records beside giving them.

Rules:
- a `Dataset` is a snapshot: what a writer commits later is seen by datasets opened later;
- reading keeps no lock and no seek position: any number of threads and forked children may read
  through one object;
- memory is bounded whatever the order: a few MiB of records are held ahead, or one record.

Bytes, checksums and files are the business of ``storage/``, views that of ``views/``.
"""

from __future__ import annotations

from splitpipe.dataset.dataset import BinDataset, Dataset, OrderLike, concat, dataset_of
from splitpipe.dataset.opening import open_dataset

__all__ = ["BinDataset", "Dataset", "OrderLike", "concat", "dataset_of", "open_dataset"]
