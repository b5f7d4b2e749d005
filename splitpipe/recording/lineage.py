"""Which positions of its sources went into an item, by arithmetic.

Responsible for: `origins`, from the place of an item in an epoch back to the records, where counts
are known beforehand; and the keys of the random numbers that its stages drew for it.

Rules:
- what only running tells is not guessed: it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import Node, make_graph
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import (
    AsyncMap,
    Batch,
    Cache,
    Label,
    Operation,
    Skip,
    Take,
    Tee,
    Window,
    Zip,
)

__all__ = ["Origin", "origins", "records_of"]

MOST_RECORDS = 4096
"""Records of an item that are listed, at most."""


@dataclass(frozen=True)
class Origin:
    """What an item took of one source.

    Attributes:
        source: its name.
        epoch: of the source.
        start, stop: positions in that epoch, the first and behind the last.
        exact: whether these positions and no others went into the item; otherwise they are those
            that were read while it was made.
        records: which records lie there; of a source without random access none are known.
    """

    source: str
    epoch: int
    start: int
    stop: int
    exact: bool = True
    records: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """It, in words.

        Example:
            >>> Origin("read", 1, 64, 67, records=(7, 1, 5)).text
            'read, epoch 1, positions 64 to 66: records 7, 1, 5'
        """
        many = f"positions {self.start} to {self.stop - 1}"
        where = f"position {self.start}" if self.stop - self.start == 1 else many
        if self.stop <= self.start:
            where = "nothing"
        read = "" if self.exact else " (read while it was made)"
        shown = ", ".join(map(str, self.records[:16]))
        more = ", ..." if len(self.records) > 16 or self.stop - self.start > 16 else ""
        told = f": records {shown}{more}" if self.records else ""
        return f"{self.source}, epoch {self.epoch}, {where}{read}{told}"


def origins(pipeline: Pipeline, epoch: int, ordinal: int) -> tuple[Origin, ...]:
    """Return what went into item `ordinal` of `epoch`; of sources where that is known beforehand.

    Example:
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(100), shuffle="global", seed=1).map(abs).batch(4)
        >>> origin, = origins(pipe, 0, 3)
        >>> origin.start, origin.stop, len(origin.records)
        (12, 16, 4)
    """
    graph = make_graph({"": pipeline.node})
    return tuple(dict.fromkeys(_origins(graph.outputs[""], epoch, ordinal, ordinal + 1)))


def records_of(source: SequenceSource, epoch: int, start: int, stop: int) -> tuple[int, ...]:
    """Return which records lie at these positions; the first ones, where there are many."""
    stop = min(stop, len(source), start + MOST_RECORDS)
    if stop <= start:
        return ()
    return tuple(map(int, source.order(epoch).indices(start, stop).tolist()))


def _origins(node: Node, epoch: int, start: int, stop: int) -> Iterator[Origin]:
    while node.stage is not None:
        operation = node.stage.operation
        span = _before(operation, start, stop)
        if span is None:
            return
        start, stop = span
        if operation.first_epoch:
            epoch = 0
        for other in node.inputs[1:]:
            yield from _origins(other, epoch, start, stop)
        node = node.inputs[0]
    source = node.source
    assert source is not None
    if not isinstance(source, SequenceSource):
        yield Origin(source.name, epoch, start, stop)
        return
    last = len(source) if node.positions is None else node.positions
    stop = min(stop, last)
    yield Origin(source.name, epoch, start, stop, True, records_of(source, epoch, start, stop))


def _before(operation: Operation, start: int, stop: int) -> tuple[int, int] | None:
    """Return which inputs make the outputs ``start:stop``; None where only running tells."""
    if isinstance(operation, Batch):
        return start * operation.size, stop * operation.size
    if isinstance(operation, Window):
        return start * operation.step, (stop - 1) * operation.step + operation.size
    if isinstance(operation, Skip):
        return start + operation.count, stop + operation.count
    if isinstance(operation, Label) and operation.drop:
        return None
    if isinstance(operation, (Take, Tee, Zip, Cache, AsyncMap, Label)):
        return start, stop
    if operation.per_item and operation.ratio == 1:
        return start, stop
    return None
