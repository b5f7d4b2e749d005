"""Datasets and their column sets.

Responsible for: what there is and where it lies, putting column sets side by side, and what is told
of them. In the order of a column set's life: ``locations`` says where it may lie, ``listing`` which
files it has, ``columns`` which columns, ``examine`` puts that together; ``parts`` and ``copies``
read one file, ``joining`` joins sets, ``snapshot`` is a dataset pinned; ``datasets`` keeps all of
it in the database, ``uploads`` and ``sinks`` write what clients send.

Each name is imported when it is first used: what reads a snapshot needs no database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.late import late

if TYPE_CHECKING:
    from splitpipe.server.catalog.datasets import Datasets
    from splitpipe.server.catalog.locations import Locations
    from splitpipe.server.catalog.snapshot import SnapshotDataset, blamed, open_snapshot
    from splitpipe.server.catalog.uploads import Uploads

_HOMES = {
    "Datasets": ".datasets",
    "Locations": ".locations",
    "SnapshotDataset": ".snapshot",
    "Uploads": ".uploads",
    "blamed": ".snapshot",
    "open_snapshot": ".snapshot",
}

__all__ = ["Datasets", "Locations", "SnapshotDataset", "Uploads", "blamed", "open_snapshot"]


__getattr__ = late(__name__, _HOMES)
