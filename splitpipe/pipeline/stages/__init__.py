"""What stages do: one file an operation.

Responsible for: the operations that a `Pipeline` is put together from. Each is a frozen value that
turns iterators into an iterator; see `base` for what all of them must keep true.
"""

from __future__ import annotations

from splitpipe.pipeline.stages.base import Context, Join, Operation
from splitpipe.pipeline.stages.batch import Batch
from splitpipe.pipeline.stages.filter import Filter
from splitpipe.pipeline.stages.flat_map import FlatMap
from splitpipe.pipeline.stages.map import Map
from splitpipe.pipeline.stages.take import Take
from splitpipe.pipeline.stages.through import Through
from splitpipe.pipeline.stages.unbatch import Unbatch

__all__ = [
    "Batch",
    "Context",
    "Filter",
    "FlatMap",
    "Join",
    "Map",
    "Operation",
    "Take",
    "Through",
    "Unbatch",
]
