"""Bytes at rest: the format, and who writes, reads and checks it.

In the order of a record's life: ``writer`` takes records and changes, ``buffer`` holds them,
``session`` makes commits of them, ``intake`` and ``appender`` deal each column's values to the
files that ``format`` describes and ``manifest`` names. ``snapshot`` finds them again, ``bins`` maps
them, ``reader`` returns stored bytes, ``stream`` many of them, ``values`` and ``table`` what they
mean. ``check``, ``compact`` and ``repair`` care for datasets; ``catalog`` has their keys and
metadata. ``base`` is what all of this, and every other kind of data, offers to those above. The
format is described byte for byte in ``docs/format.md``.

Each name is imported when it is first used: an order needs the layout of bins, not the writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.late import late

if TYPE_CHECKING:
    from splitpipe.storage.check import CheckReport, Description, Finding, check_dataset, describe
    from splitpipe.storage.layout import BinLayout
    from splitpipe.storage.writer import DatasetWriter

_HOMES = {
    "BinLayout": ".layout",
    "CheckReport": ".check",
    "DatasetWriter": ".writer",
    "Description": ".check",
    "Finding": ".check",
    "check_dataset": ".check",
    "describe": ".check",
}

__all__ = [
    "BinLayout",
    "CheckReport",
    "DatasetWriter",
    "Description",
    "Finding",
    "check_dataset",
    "describe",
]


__getattr__ = late(__name__, _HOMES)
