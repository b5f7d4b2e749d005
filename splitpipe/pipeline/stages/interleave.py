"""`interleave`: inputs take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from splitpipe.pipeline.stages.base import Context, Join, Progress
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
        block, count = self.block, 0
        taken = [context.begun(number) for number in range(len(inputs))]
        # Inputs that have not ended: those of this round, whose turn is to come, and those who have
        # had it.
        left, going = list(range(len(inputs))), list[int]()
        if context.start.state is not None:
            left, going, count = (context.start.state[name] for name in ("left", "going", "count"))

        def tell() -> Progress:
            reads = list(taken)
            if left:
                reads[left[0]] += count - begun
            return Progress(
                tuple(reads), {"left": list(left), "going": list(going), "count": count}
            )

        context.tell = tell
        while left:
            while left:
                begun = count
                for item in islice(inputs[left[0]], block - count):
                    count += 1
                    yield item
                    del item
                number = left.pop(0)
                taken[number] += count - begun
                if count == block:
                    going.append(number)
                count = 0
            left, going = going, []
