"""What stages do: one file an operation.

Responsible for: the operations that a `Pipeline` is put together from. Each is a frozen value that
turns iterators into an iterator; see `base` for what all of them must keep true.

Each is imported when it is first used: a worker process begins with those that it runs, which is a
third of the time that all of them take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.late import late

if TYPE_CHECKING:
    from splitpipe.pipeline.stages.async_map import AsyncMap
    from splitpipe.pipeline.stages.balance import Balance
    from splitpipe.pipeline.stages.base import Context, Join, Operation
    from splitpipe.pipeline.stages.batch import Batch
    from splitpipe.pipeline.stages.batch_by_cost import BatchByCost
    from splitpipe.pipeline.stages.branch import Label, Pick, Tee
    from splitpipe.pipeline.stages.bucket import Bucket, Buckets
    from splitpipe.pipeline.stages.cache import Cache
    from splitpipe.pipeline.stages.concat import Concat
    from splitpipe.pipeline.stages.filling import Length, Limits
    from splitpipe.pipeline.stages.filter import Filter
    from splitpipe.pipeline.stages.flat_map import FlatMap
    from splitpipe.pipeline.stages.interleave import Interleave
    from splitpipe.pipeline.stages.map import Map
    from splitpipe.pipeline.stages.mix import Mix
    from splitpipe.pipeline.stages.pack import Layout, Pack, Packing
    from splitpipe.pipeline.stages.padding import Pad, Ragged
    from splitpipe.pipeline.stages.reading import Reading
    from splitpipe.pipeline.stages.repeat import Repeat
    from splitpipe.pipeline.stages.route import Route
    from splitpipe.pipeline.stages.shard import Shard
    from splitpipe.pipeline.stages.shuffle import Shuffle
    from splitpipe.pipeline.stages.skip import Skip
    from splitpipe.pipeline.stages.take import Take
    from splitpipe.pipeline.stages.through import Through
    from splitpipe.pipeline.stages.unbatch import Unbatch
    from splitpipe.pipeline.stages.window import Window
    from splitpipe.pipeline.stages.zip import Zip

_HOMES = {
    "AsyncMap": ".async_map",
    "Balance": ".balance",
    "Batch": ".batch",
    "BatchByCost": ".batch_by_cost",
    "Bucket": ".bucket",
    "Buckets": ".bucket",
    "Cache": ".cache",
    "Concat": ".concat",
    "Context": ".base",
    "Filter": ".filter",
    "FlatMap": ".flat_map",
    "Interleave": ".interleave",
    "Join": ".base",
    "Label": ".branch",
    "Layout": ".pack",
    "Length": ".filling",
    "Limits": ".filling",
    "Map": ".map",
    "Mix": ".mix",
    "Operation": ".base",
    "Pack": ".pack",
    "Packing": ".pack",
    "Pad": ".padding",
    "Pick": ".branch",
    "Ragged": ".padding",
    "Reading": ".reading",
    "Repeat": ".repeat",
    "Route": ".route",
    "Shard": ".shard",
    "Shuffle": ".shuffle",
    "Skip": ".skip",
    "Take": ".take",
    "Tee": ".branch",
    "Through": ".through",
    "Unbatch": ".unbatch",
    "Window": ".window",
    "Zip": ".zip",
}

__all__ = [
    "AsyncMap",
    "Balance",
    "Batch",
    "BatchByCost",
    "Bucket",
    "Buckets",
    "Cache",
    "Concat",
    "Context",
    "Filter",
    "FlatMap",
    "Interleave",
    "Join",
    "Label",
    "Layout",
    "Length",
    "Limits",
    "Map",
    "Mix",
    "Operation",
    "Pack",
    "Packing",
    "Pad",
    "Pick",
    "Ragged",
    "Reading",
    "Repeat",
    "Route",
    "Shard",
    "Shuffle",
    "Skip",
    "Take",
    "Tee",
    "Through",
    "Unbatch",
    "Window",
    "Zip",
]


__getattr__ = late(__name__, _HOMES)
