"""What a plan says of ranks.

Responsible for: `RankStatistics`, what becomes of the ends of a source that is dealt out, and how
even its steps are; and `rank_notes`, the lines of `explain` about ranks. They decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from splitpipe.pipeline.balancing import told
from splitpipe.pipeline.dealing import Deal
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import (
    Cache,
    Join,
    Operation,
    Repeat,
    Shard,
    Shuffle,
    Skip,
    Take,
    Window,
)

__all__ = ["RankStatistics", "rank_notes", "rank_statistics"]


@dataclass(frozen=True, slots=True)
class RankStatistics:
    """What one rank has of a source, in every epoch.

    Attributes:
        rank: which it is.
        world_size: of how many.
        ends: what becomes of a last round that is not full.
        positions: how many it has.
        left_out: positions that no rank has, because of `ends`.
        repeated: of its own, how many another rank has, too.
        imbalance: the largest cost of a rank over the mean one, as mean over the steps; None where
            nothing is balanced. Of a long epoch 64 windows are looked at.
        worst: the largest of them.
        plain: the mean, had nothing been balanced.

    Example:
        >>> import splitpipe as sp
        >>> with sp.Pipeline(range(7)).shard(1, 3, ends="pad").loader(executor="inline") as loader:
        ...     stages = {stage.name: stage.ranks for stage in loader.stats()[-1].stages}
        >>> stages["source"].positions, stages["source"].repeated
        (3, 1)
    """

    rank: int
    world_size: int
    ends: str
    positions: int
    left_out: int
    repeated: int
    imbalance: float | None = None
    worst: float | None = None
    plain: float | None = None


def rank_statistics(source: SequenceSource, epoch: int) -> RankStatistics | None:
    """Return what a rank has of a source; None where it is not dealt out."""
    deal = source.deal
    if deal is None:
        return None
    hand, balanced = source.hand(), source.balanced(epoch)
    even = (None, None, None) if balanced is None else told(balanced)
    return RankStatistics(
        deal.rank,
        deal.world_size,
        deal.ends,
        hand.positions,
        hand.left_out,
        hand.repeated,
        *even,
    )


_KEEP_COUNTS = (Cache, Repeat, Shuffle, Skip, Take, Window)


def rank_notes(bodies: Iterable[Body]) -> list[str]:
    """Return a line for all that a user with several ranks should know of a plan."""
    return [line for body in bodies for line in _notes(body)]


def _notes(body: Body) -> Iterator[str]:
    behind: set[int] = set()  # parts of which every rank has as many items as it was dealt
    for number, part in enumerate(body.parts):
        source = part.source
        if isinstance(source, SequenceSource) and source.deal is not None:
            behind.add(number)
            yield _of_source(source)
        elif part.stage is not None:
            operation = part.stage.operation
            if isinstance(operation, Shard):
                behind.add(number)
                yield (
                    f"{part.stage.name}: rank {operation.rank} of {operation.world_size}, ends "
                    f"{operation.ends!r}; it takes its items out of the whole stream, which every "
                    "rank makes"
                )
            elif behind.intersection(part.inputs):
                if _keeps_counts(operation, len(part.inputs)):
                    behind.add(number)
                else:
                    yield (
                        f"{part.stage.name}: behind shard it may give ranks different numbers of "
                        "items; where they must end together put shard behind it, or end every "
                        "epoch by .repeat().take(n)"
                    )


def _keeps_counts(operation: Operation, inputs: int) -> bool:
    if isinstance(operation, Join):
        return operation.length([1] * inputs) is not None
    return operation.ratio is not None or isinstance(operation, _KEEP_COUNTS)


def _of_source(source: SequenceSource) -> str:
    deal, hand = source.deal, source.hand()
    assert deal is not None
    text = f"rank {deal.rank} of {deal.world_size}: {hand.positions:,} positions"
    if hand.left_out:
        text += f"; the last {hand.left_out:,} of all are left out (ends='drop')"
    if hand.repeated:
        text += f"; the last {hand.repeated:,} of them repeat the beginning (ends='pad')"
    if source.lanes > 1:
        text += f"; {_of_lanes(source.lanes, deal)}"
    if source.balance is not None:
        text += f"; steps of {source.balance.size:,} samples are balanced by cost"
        if source.balance.window > 1:
            text += f", {source.balance.window} at a time"
    return text


def _of_lanes(lanes: int, deal: Deal) -> str:
    if deal.unit > 1:
        return f"of all {lanes} lanes, since whole batches are dealt: put shard() before batch()"
    if lanes % deal.world_size:
        return f"of all {lanes} lanes, since {deal.world_size} ranks do not divide them"
    return f"{lanes // deal.world_size} of {lanes} lanes, which no other rank reads"
