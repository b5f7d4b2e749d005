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

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitpipe.storage.check import CheckReport, Description, Finding, check_dataset, describe
    from splitpipe.storage.layout import BinLayout
    from splitpipe.storage.writer import DatasetWriter

_HOMES = {
    "BinLayout": "splitpipe.storage.layout",
    "CheckReport": "splitpipe.storage.check",
    "DatasetWriter": "splitpipe.storage.writer",
    "Description": "splitpipe.storage.check",
    "Finding": "splitpipe.storage.check",
    "check_dataset": "splitpipe.storage.check",
    "describe": "splitpipe.storage.check",
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


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'splitpipe.storage' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
