"""`interleave`: inputs take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.pipeline.stages.base import Context, Join
from splitpipe.pipeline.stages.checks import settle, whole

__all__ = ["Interleave"]


@dataclass(frozen=True)
class Interleave(Join):
    """Up to `block` items of each input in turn; an input that has ended leaves the round.

    Nothing is lost: every input is read to its end, however uneven they are.
    """

    block: int = 1

    def __post_init__(self) -> None:
        settle(self, block=whole("block", self.block, least=1))

    @property
    def label(self) -> str:
        return "interleave"

    def length(self, lengths: Sequence[int]) -> int | None:
        return sum(lengths)

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        block, left = self.block, list(inputs)
        while left:
            going = []
            for items in left:
                count = 0
                for item in islice(items, block):
                    count += 1
                    yield item
                    del item
                if count == block:
                    going.append(items)
            left = going
