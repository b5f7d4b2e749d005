"""Chains of stages whose counts are known, and what is pushed through them into their source.

Responsible for: `Counted`, which follows such a chain stage by stage: `take` becomes a bound on the
source's positions, `shard` and `balance` become its order.

Rules:
- a rank that reads a source reads nothing of the others' part;
- what is pushed into a source leaves the chain; stages between keep the numbers that their items
  have among those of all ranks;
- what stands behind a `shard` that could be pushed counts the items of one rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from splitpipe.errors import GraphError, ResumeError
from splitpipe.pipeline.balancing import Balancing
from splitpipe.pipeline.dealing import Deal, Numbering
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import Balance, Batch, Shard, Take
from splitpipe.pipeline.stages.guarded import Guarded

if TYPE_CHECKING:
    from splitpipe.pipeline.graph import Node
    from splitpipe.pipeline.stages import Operation

__all__ = ["Counted", "begin", "check_balance", "check_sized"]


@dataclass(slots=True)
class Counted:
    """A chain behind a source with random access, for as long as its counts are known.

    Attributes:
        positions: of the source that are read.
        dealt: whether they are those of one rank.
        unit: of them that make one item.
        whole: whether a last item of fewer is left out.
        balance: what is to be balanced once it is known how many samples a step has.
        gaps: whether there may be positions without an item, since that failed.
    """

    positions: int
    dealt: bool = False
    unit: int = 1
    whole: bool = False
    balance: Balance | None = None
    gaps: bool = False

    def follow(self, node: Node) -> bool:
        """Whether counts are still known behind `node`; if so, take note of it."""
        assert node.stage is not None
        operation = node.stage.operation
        if isinstance(operation, Guarded) and operation.operation.ratio == 1:
            self.gaps |= operation.ratio is None  # positions are dealt out, whatever fails there
            return True
        if isinstance(operation, Take) and not self.gaps:
            self._check_take(node)
            self.positions = min(self.positions, operation.count * self.unit)
            return True
        if isinstance(operation, Shard):
            return not self.dealt
        if isinstance(operation, Balance):
            return self.unit == 1 and self.balance is None
        ratio = operation.ratio
        if ratio is None or (self.gaps and ratio > 1):
            return False
        if isinstance(operation, Batch) and operation.drop_last:
            if self.unit > 1:
                return False  # rows of a dropped batch must not be counted again by what follows
            self.whole = True
        self.unit *= ratio
        return True

    def _check_take(self, node: Node) -> None:
        source = _source(node).source
        if isinstance(source, SequenceSource) and source.rest is not None:
            raise ResumeError(
                f"{node.name!r} counts the items of one rank, and others have begun this epoch: "
                "put it before shard(), or save the states at the end of an epoch"
            )

    def rebuilt(self, node: Node, before: Node) -> Node:
        """Return `node` behind `before`, or, for what is pushed into the source, `before`."""
        assert node.stage is not None
        operation = node.stage.operation
        if isinstance(operation, Take):
            return _changed(before, lambda source: replace(source, positions=self.positions))
        if isinstance(operation, Shard):
            return self._sharded(operation, before, node.stage.name)
        if isinstance(operation, Balance):
            return self._balanced(operation, before, operation.size)
        if isinstance(operation, Batch) and self.balance is not None:
            before = self._balanced(self.balance, before, operation.size)
        return replace(node, inputs=(before,))

    def _sharded(self, shard: Shard, before: Node, name: str) -> Node:
        source = _source(before)
        assert isinstance(source.source, SequenceSource)
        balance = source.source.balance
        if self.unit > 1 and (balance is not None or self.balance is not None):
            raise GraphError(
                "balance spreads single samples over the ranks: put shard() before batch()"
            )
        world, bound = shard.world_size, self._bound(source.source)
        deal = Deal(shard.rank, world, shard.ends, self.unit, bound, self.whole, name)
        if balance is not None:
            balance = replace(balance, size=balance.size * world)
        dealt = replace(source.source, deal=deal, balance=balance, rest=shard.rest)
        made = _numbered(before, replace(shard.numbering, total=dealt.hand().blocks), deal.unit)
        self.positions, self.dealt = len(dealt), True
        return _changed(made, lambda one: replace(one, source=dealt, positions=len(dealt)))

    def _bound(self, source: SequenceSource) -> int | None:
        return self.positions if self.positions < source.total else None

    def _balanced(self, balance: Balance, before: Node, size: int | None) -> Node:
        self.balance = balance
        if size is None:
            return before
        self.balance = None
        source = _source(before).source
        assert isinstance(source, SequenceSource)
        if source.balance is not None:
            raise GraphError("a source is balanced once: leave one balance() out")
        if source.lanes > 1:
            raise GraphError(
                f"balance() deals records to ranks by what they cost, and lanes={source.lanes} by "
                "where they lie: leave one of them out"
            )
        deal = source.deal or Deal(bound=self._bound(source))
        together = size * deal.world_size
        made = Balancing(balance.cost, together, balance.window, balance.steps, balance.method)
        balanced = replace(source, balance=made, deal=deal)
        return _changed(before, lambda one: replace(one, source=balanced))


def begin(node: Node) -> Counted:
    """Return what is known of the chain that begins with the source `node`."""
    source = node.source
    assert isinstance(source, SequenceSource)
    positions = len(source) if node.positions is None else node.positions
    return Counted(positions, dealt=source.dealt)


def check_balance(node: Node) -> None:
    """Refuse a `balance` that could not be pushed into a source.

    Raises:
        GraphError: `node` is one.
    """
    if node.stage is not None and isinstance(node.stage.operation, Balance):
        raise GraphError(
            f"{node.name!r} orders a source by what its records cost: between it and a source with "
            "random access there may be shard(), take(), repeat() and map(), before batch(), and "
            "nobody else may read them"
        )


def check_sized(counted: Counted) -> None:
    """Refuse a `balance` of which nobody said how many samples a step has.

    Raises:
        GraphError: there is one.
    """
    if counted.balance is not None:
        raise GraphError(
            "balance() cannot tell how many samples a rank has in a step, since no batch() follows "
            "it before counts change: say size="
        )


def _source(node: Node) -> Node:
    while node.source is None:
        node = node.inputs[0]
    return node


def _changed(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return the chain that ends in `node` with another source."""
    if node.source is not None:
        return change(node)
    return replace(node, inputs=(_changed(node.inputs[0], change),))


def _numbered(node: Node, dealt: Numbering, size: int) -> Node:
    """Return the chain with the numbers that its items have among those of all ranks.

    Args:
        node: the last of it, whose items are dealt.
        dealt: numbers of those, without repeated ones.
        size: positions that make one of them.
    """
    line = []
    while node.stage is not None:
        line.append(node)
        node = node.inputs[0]
    unit = 1
    for one in reversed(line):
        assert one.stage is not None
        operation: Operation = one.stage.operation
        unit *= operation.ratio or 1
        assert dealt.total is not None
        block = size // unit
        numbering = replace(dealt, block=block, total=dealt.total * block)
        kept = one.numbering if operation.per_item else numbering
        node = replace(one, inputs=(node,), numbering=kept)
    return node
