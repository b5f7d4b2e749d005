"""Which graphs can be a job, and how their source is cut.

Responsible for: `Shape`, what a job must know of its graph, and `Ranges`, the parts of the source
that workers are given.

Rules:
- a job has one source with random access: its positions are what is done or not done;
- stages that treat each record by itself mean the same however the source is cut. So does `batch`
  right behind them, where cuts fall between batches; and `async_map`, which keeps the order. Any
  other stage sees one task at a time, and only where the job says so (``by_task``): then the size
  of a task is part of what the job means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.guarding import policies
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import AsyncMap, Batch

__all__ = ["Ranges", "Shape", "shape_of", "task_size"]

_TASK_NBYTES = 16 << 20
_LEAST, _USUAL, _MOST = 256, 4096, 8192
"""Records of a task, where nobody says it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a job must know of its graph.

    Attributes:
        body: the graph, to be run in one process.
        source: where its records come from; of several that are the same, one.
        positions: how many records are read.
        group: records that are treated together: 1, or those of a batch.
        ahead: how many records a stage may have taken beyond those it gave.
        whole: names of stages over whole streams.
        guarded: whether a stage may leave out what fails.
    """

    body: Body
    source: SequenceSource
    positions: int
    group: int
    ahead: int
    whole: tuple[str, ...]
    guarded: bool


def shape_of(pipeline: Pipeline) -> Shape:
    """Return what a job must know of `pipeline`.

    Raises:
        GraphError: it cannot be a job; the message says why, and what to do.

    Example:
        >>> pipe = Pipeline(range(100)).map(abs).batch(8).unbatch()
        >>> shape = shape_of(pipe)
        >>> shape.positions, shape.group, shape.whole
        (100, 8, ())
    """
    body = plan({"": pipeline.node}, RunOptions(executor="inline")).locals[0].body
    source, positions = _source_of(body)
    group, ahead, whole, known = 1, 0, [], True
    for part in body.parts:
        if part.stage is None:
            continue
        operation = part.stage.operation
        if len(part.inputs) != 1:
            whole.append(part.stage.name)
        elif isinstance(operation, AsyncMap):
            ahead = max(ahead, operation.concurrency * group)
        elif isinstance(operation, Batch) and known:
            group *= operation.size
        elif not operation.per_item:
            whole.append(part.stage.name)
        known = known and operation.ratio is not None
    readers = [one for part in body.parts for one in part.inputs]
    if len(readers) != len(set(readers)):
        whole.append("a branch")
    guarded = any(policy.leaves_out for policy in policies(body.stages))
    return Shape(body, source, positions, group, ahead, tuple(whole), guarded)


def _source_of(body: Body) -> tuple[SequenceSource, int]:
    heads = [body.parts[head] for head in body.heads]
    for head in heads:
        if not isinstance(head.source, SequenceSource):
            raise GraphError(
                f"the source {head.source!r} has no len() and no [i], so that a job cannot go on "
                "in the middle of it: write its records into a dataset first, with a DatasetWriter"
            )
    sources = [head.source for head in heads if isinstance(head.source, SequenceSource)]
    first, positions = sources[0], heads[0].positions
    assert positions is not None
    if not all(_same(source, first) for source in sources) or len({h.positions for h in heads}) > 1:
        raise GraphError(
            "a job has one source, whose records are done one after the other, and this pipeline "
            f"has {len(heads)}: join them as datasets (Dataset.concat, Dataset.join), or write "
            "the parts by jobs of their own"
        )
    return first, positions


def _same(one: SequenceSource, other: SequenceSource) -> bool:
    """Whether two sources give the same records in the same order."""
    same = one.sequence is other.sequence and one.streams is other.streams
    return same and (one.shuffle, one.seed, one.window, one.lanes, one.passes) == (
        other.shuffle,
        other.seed,
        other.window,
        other.lanes,
        other.passes,
    )


def task_size(asked: int | None, shape: Shape) -> int:
    """Return how many records a task has: a multiple of those that are treated together.

    Args:
        asked: by the user; ``None`` for about 16 MiB of the source.
        shape: of the graph.

    Example:
        >>> task_size(None, shape_of(Pipeline(range(10**6)).batch(3000)))
        6000
    """
    if asked is None:
        asked = _usual(shape.source.sequence)
    return -(-asked // shape.group) * shape.group


def _usual(sequence: Any) -> int:
    manifest = getattr(getattr(sequence, "records", None), "manifest", None)
    if manifest is None or not manifest.rows:
        return _USUAL
    nbytes = sum(sum(column.bin_sizes) for column in manifest.columns)
    records = _TASK_NBYTES // max(1, nbytes // manifest.rows)
    return int(max(_LEAST, min(_MOST, records)))


@dataclass(frozen=True, slots=True)
class Ranges(Sequence[tuple[int, int]]):
    """The parts of a range of positions that workers are given, none across the end of a task.

    Attributes:
        start: the first position.
        stop: the one after the last.
        task: positions of a task; tasks begin at multiples of it.
        unit: most positions of a part.

    Example:
        >>> list(Ranges(3, 25, task=10, unit=4))
        [(3, 4), (4, 8), (8, 10), (10, 14), (14, 18), (18, 20), (20, 24), (24, 25)]
    """

    start: int
    stop: int
    task: int
    unit: int

    @property
    def _each(self) -> int:
        return -(-self.task // self.unit)

    def _number(self, position: int) -> int:
        """Which part of all, from position 0 on, a position lies in."""
        task, rest = divmod(position, self.task)
        return task * self._each + rest // self.unit

    def __len__(self) -> int:
        if self.stop <= self.start:
            return 0
        return self._number(self.stop - 1) - self._number(self.start) + 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"part {index} of {len(self)}")
        task, part = divmod(index + self._number(self.start), self._each)
        first = task * self.task + part * self.unit
        last = min(first + self.unit, (task + 1) * self.task)
        return max(first, self.start), min(last, self.stop)

    def __repr__(self) -> str:
        return f"ranges of at most {self.unit} records"
