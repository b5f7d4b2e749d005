"""Raw samples: tables and folders whose columns are files, fetched when a sample is read.

Responsible for: everything between a table that names files and a `Dataset` of samples: what the
table is (``sources``, ``tables``, ``folders``, ``copies``, ``catalog``), what it may name
(``locations``), how files come (``fetching``, ``pool``), what a sample is (``records``,
``transforms``), how media are decoded (``media``), and what a user holds (``opening``, ``dataset``,
``planning``).

Rules:
- a sample is what its row says, or an error: never another one, never a part of one;
- the order of the table is the order of the samples; a run goes on with this table or not at all;
- a table is not trusted: it reaches what lies below its folder or on its origin, and what the user
  allows.
"""

from __future__ import annotations

from splitpipe.raw import media
from splitpipe.raw.dataset import RawDataset
from splitpipe.raw.locations import Location, Rules
from splitpipe.raw.opening import open_raw
from splitpipe.raw.planning import ColumnPlan, RawPlan

__all__ = ["ColumnPlan", "Location", "RawDataset", "RawPlan", "Rules", "media", "open_raw"]
