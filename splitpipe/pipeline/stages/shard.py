"""`shard`: the part of a stream that belongs to one rank.

Responsible for: `Shard`, the stage that takes it out of a whole stream. Behind a source with random
access it never runs: the source reads that part alone (see `splitpipe.pipeline.graph`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from splitpipe.errors import GraphError
from splitpipe.pipeline.dealing import ENDS, Numbering, Rest
from splitpipe.pipeline.stages.base import Context, Operation, Progress
from splitpipe.pipeline.stages.checks import choice, settle, whole

__all__ = ["Shard"]

_NOTHING = object()


@dataclass(frozen=True)
class Shard(Operation):
    """Every `world_size`-th item, the `rank`-th first.

    What the others get is made, let go of and counted as dropped. With ``ends="drop"`` an item is
    given when the round of which it is one is full; with ``"pad"`` ranks that have none in the last
    round get copies of the stream's first items, for which as many of them as `rank` says are kept.

    Args:
        rank: from 0.
        world_size: how many ranks.
        ends: ``"drop"``: a last round that is not full is nobody's; ``"pad"``: it is filled up with
            items of the beginning; ``"uneven"``: some ranks have one item more.
        rest: where an epoch goes on that other ranks have begun.
    """

    rank: int
    world_size: int
    ends: str = "drop"
    rest: Rest | None = None
    holds: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    unsigned: ClassVar[tuple[str, ...]] = ("rank", "world_size", "rest")

    def __post_init__(self) -> None:
        settle(
            self,
            rank=whole("rank", self.rank, least=0),
            world_size=whole("world_size", self.world_size, least=1),
            ends=choice("ends", self.ends, ENDS),
        )
        if self.rank >= self.world_size:
            raise GraphError(f"there is no rank {self.rank} of {self.world_size}")

    @property
    def label(self) -> str:
        return "shard"

    @property
    def measures(self) -> tuple[str, ...]:
        return "left out", "repeated"

    def needs(self, output: int) -> int | None:
        if self.rest is not None or (self.ends == "pad" and self.rank):
            return None if output else 0
        return output * self.world_size

    def least(self, output: int) -> int:
        if self.rest is not None or not output:
            return 0
        if self.ends == "drop":
            return output * self.world_size
        return (output - 1) * self.world_size + 1

    @property
    def numbering(self) -> Numbering:
        """Which numbers its items have, and those of everything behind it."""
        return Numbering(self.rank, self.world_size, rest=self.rest, dealt=True)

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        if self.rest is not None and self.rest.epoch == context.epoch:
            items = self.rest.over(items)
        world, rank, ends = self.world_size, self.rank, self.ends
        first: list[Any] = []
        read = context.begun()
        if self.needs(1) is not None:
            context.tell = lambda: Progress((read,))  # the last round may be a smaller one
        while True:
            mine, count = _NOTHING, 0
            for item in islice(items, world):
                if ends == "pad" and len(first) < rank:
                    first.append(copy.deepcopy(item))
                if count == rank:
                    mine = item
                count += 1
                del item
            read += count
            if count < world:
                break
            context.dropped += count - 1
            yield mine
            del mine
        given = mine is not _NOTHING and ends != "drop"
        context.dropped += count - given
        if given:
            yield mine
        elif count and ends == "drop":
            context.measured["left out"] += count
        elif count and ends == "pad":
            context.measured["repeated"] += 1
            yield first[(rank - count) % len(first)]
