"""Bytes at rest: the format, and who writes, reads and checks it.

In the order of a record's life: ``writer`` (sessions and commits) deals records through
``appender`` to the files that ``format`` describes and ``manifest`` names; ``snapshot`` finds
them again, ``bins`` maps them, ``reader`` returns records, ``stream`` many of them, ``check``
all of them. The format is described byte for byte in ``docs/format.md``.
"""

from __future__ import annotations

from splitpipe.storage.check import CheckReport, Description, Finding, check_dataset, describe
from splitpipe.storage.layout import BinLayout
from splitpipe.storage.writer import DatasetWriter

__all__ = [
    "BinLayout",
    "CheckReport",
    "DatasetWriter",
    "Description",
    "Finding",
    "check_dataset",
    "describe",
]
