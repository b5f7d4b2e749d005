"""Datasets of ours, read by Ray Data.

Responsible for: `Datasource`, which cuts an order of a dataset into ranges, one for each read task;
and `to_ray`.

Rules:
- all tasks together read every position of the order once: ranges follow each other, and counts
  are exact before anything is read;
- a task reads by itself, from a snapshot: the dataset travels as its path and commit, so its
  folder (or url) is to be reached from every node by the same name;
- who reads in which order is arithmetic: no task waits for another, and nothing is shuffled
  through Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from splitpipe.dataset import Dataset
from splitpipe.errors import FormatError
from splitpipe.integrations.arrow import record_batches
from splitpipe.integrations.labelled import label_fields, with_labels
from splitpipe.integrations.ray_data.blocks import block_of
from splitpipe.order import Order, make_order

__all__ = ["Datasource", "to_ray"]

# Of what a task holds at a time; Ray puts them together as it wants them.
_BLOCK_NBYTES: Final = 32 << 20
_MOST_ROWS: Final = 1 << 16
_SAMPLES: Final = 8


@dataclass(frozen=True)
class Reading:
    """What read tasks have in common; travels to them.

    Attributes:
        dataset: what is read.
        columns: which of its columns.
        shuffle, seed, epoch, window: the order, as for `splitpipe.Pipeline`.
        tensors: whether arrays become Ray's tensors.
    """

    dataset: Dataset
    columns: tuple[str, ...]
    shuffle: str | None
    seed: int
    epoch: int
    window: int
    tensors: bool

    @cached_property
    def order(self) -> Order:
        """Which record comes at which position."""
        how = {"seed": self.seed, "epoch": self.epoch, "window": self.window}
        return make_order(self.dataset, self.shuffle, **how)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[pa.Table]:
        """The records at positions ``start`` to ``stop - 1``, about ``rows`` at a time."""
        for first in range(start, stop, rows):
            yield self.block(first, min(first + rows, stop))

    def block(self, start: int, stop: int) -> pa.Table:
        """The records at positions ``start`` to ``stop - 1``; at least one."""
        rows = self.order.indices(start, stop)
        return block_of(self.dataset, rows, self.columns, tensors=self.tensors)


class Datasource(ray.data.Datasource):  # type: ignore[misc]  # Ray's are not read for types
    """A dataset for ``ray.data.read_datasource``.

    Args:
        dataset: any dataset or view; its files must be reached from every node by the same path or
            url.
        columns: which columns, all of them unless said; `ray.data.Dataset.select_columns` right
            behind it leaves the others unread, too.
        shuffle: ``None`` reads it in its own order, ``"global"`` and ``"binwise"`` as a `Pipeline`
            does. Set ``DataContext.execution_options.preserve_order`` to have Ray keep that order.
        seed, epoch, window: of that order.
        tensors: whether arrays become Ray's tensors; else lists, which may be missing.
        keys: the column that keys of records become; unless said there is none.
        metas: the column that their metadata becomes, as JSON; unless said there is none.

    Raises:
        FormatError: there is no such column, or Ray has no type for one.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"a", b"b", b"c"])
        >>> source = Datasource(sp.open_dataset(path), shuffle="global", seed=1)
        >>> [block.to_pydict() for task in source.get_read_tasks(1) for block in task()]
        [{'data': [b'c', b'b', b'a']}]
    """

    def __init__(
        self,
        dataset: Dataset,
        columns: Sequence[str] | None = None,
        *,
        shuffle: str | None = None,
        seed: int = 0,
        epoch: int = 0,
        window: int = 1,
        tensors: bool = True,
        keys: str | None = None,
        metas: str | None = None,
    ) -> None:
        super().__init__()
        schema = dataset.schema
        names = tuple(schema) if columns is None else schema.checked_names(columns)
        names = (*names, *label_fields(keys, metas))
        if not names:
            raise FormatError("at least one column is to be read")
        dataset = with_labels(dataset, keys, metas)
        self._reading = Reading(dataset, names, shuffle, seed, epoch, window, tensors)
        self._reading.order  # noqa: B018  an order that cannot be is refused here, not in a task
        self._projection_map: dict[str, str] | None = None
        self._record_nbytes = self._mean_nbytes()

    def supports_projection_pushdown(self) -> bool:
        """Columns that nobody asks for are not read."""
        return True

    def get_name(self) -> str:
        """What read tasks are called."""
        return "Splitpipe"

    def estimate_inmemory_data_size(self) -> int | None:
        """About how many bytes all blocks have, from a sample."""
        return self._record_nbytes * len(self._reading.order)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,
    ) -> list[ReadTask]:
        """The read tasks: at most ``parallelism``, each of a range of positions."""
        count = len(self._reading.order)
        if not count:
            return [_task(self._nothing, 0, 0, None, None)]
        reading = replace(self._reading, columns=self._columns())
        rows = max(1, min(_MOST_ROWS, _BLOCK_NBYTES // max(1, self._record_nbytes)))
        schema = reading.block(0, 1).schema
        tasks = max(1, min(parallelism, count))
        bounds = [number * count // tasks for number in range(tasks + 1)]
        return [
            _task(
                _Range(reading, start, stop, rows),
                stop - start,
                self._record_nbytes * (stop - start),
                schema,
                per_task_row_limit,
            )
            for start, stop in pairwise(bounds)
        ]

    def _columns(self) -> tuple[str, ...]:
        """Columns that are wanted; one where none is, since a table without has no rows."""
        names = self._reading.columns
        if self._projection_map is None:
            return names
        return tuple(name for name in names if name in self._projection_map) or names[:1]

    def _nothing(self) -> list[pa.Table]:
        reading = self._reading
        return [record_batches(reading.dataset, self._columns()).schema.empty_table()]

    def _mean_nbytes(self) -> int:
        """About how many bytes a record has in a block."""
        reading = self._reading
        count = len(reading.order)
        if not count:
            return 0
        places = np.unique(np.linspace(0, count - 1, min(_SAMPLES, count), dtype=np.int64))
        rows = reading.order.at(places)
        block = block_of(reading.dataset, rows, reading.columns, tensors=reading.tensors)
        return int(block.nbytes) // len(rows)


@dataclass(frozen=True)
class _Range:
    """What one read task does."""

    reading: Reading
    start: int
    stop: int
    rows: int

    def __call__(self) -> Iterator[pa.Table]:
        return self.reading.blocks(self.start, self.stop, self.rows)


def _task(
    function: Any, rows: int, nbytes: int, schema: pa.Schema | None, limit: int | None
) -> ReadTask:
    metadata = BlockMetadata(num_rows=rows, size_bytes=nbytes, input_files=None, exec_stats=None)
    return ReadTask(function, metadata, schema=schema, per_task_row_limit=limit)


def to_ray(
    dataset: Dataset,
    columns: Sequence[str] | None = None,
    *,
    ray_options: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A dataset as a ``ray.data.Dataset``, which reads it in parallel tasks when it is used.

    Args:
        dataset: any dataset or view.
        columns: which columns, all of them unless said.
        ray_options: for ``ray.data.read_datasource``: ``override_num_blocks``, ``concurrency``,
            ``ray_remote_args``.
        options: ``shuffle``, ``seed``, ``epoch``, ``window``, ``tensors``, ``keys`` and ``metas``:
            see `Datasource`.

    Raises:
        FormatError: there is no such column, or Ray has no type for one.
    """
    return ray.data.read_datasource(Datasource(dataset, columns, **options), **(ray_options or {}))
