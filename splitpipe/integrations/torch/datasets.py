"""Datasets and pipelines as what torch's own `DataLoader` takes.

Responsible for: `MapDataset`, for samplers and collate functions of torch; `IterableDataset`, a
pipeline that the worker processes of a `DataLoader` run.

Rules:
- both travel to workers, however those are started, as what they describe: a path and a
  generation, stages. No file is open in what is pickled;
- the batches of an `IterableDataset` are those of its pipeline, in its order, for any number of
  workers: `DataLoader` takes them from its workers in turn, and each makes those of its turns;
- where a `StatefulDataLoader` stopped, each worker goes on by a state of its own;
- a new iteration is the next epoch, also in workers that are started anew for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset as _IterableDataset
from torch.utils.data import get_worker_info

from splitpipe.dataset import Dataset
from splitpipe.errors import GraphError, ResumeError
from splitpipe.pipeline.stage import check_count

if TYPE_CHECKING:
    from splitpipe.pipeline.builder import Pipeline

__all__ = ["IterableDataset", "MapDataset"]

_WORKERS = 1024
"""Workers of one `DataLoader` at most: each counts its epochs."""


class MapDataset(torch.utils.data.Dataset):  # type: ignore[misc]  # torch's types are not followed
    """The records of a dataset for a `DataLoader` with samplers of torch.

    A batch is read with one call (``__getitems__``), as fast as `Dataset.get_batch` reads records.

    Args:
        dataset: a dataset, a view of one, or any other sequence.
        transform: makes an item of a record.

    Example:
        >>> import tempfile, splitpipe as sp, torch
        >>> from splitpipe.integrations.torch import MapDataset
        >>> with sp.DatasetWriter(path := tempfile.mkdtemp()) as writer:
        ...     writer.write_many({"x": n, "y": n % 2} for n in range(5))
        >>> loader = torch.utils.data.DataLoader(MapDataset(sp.open_dataset(path)), batch_size=4)
        >>> [batch["x"].tolist() for batch in loader]
        [[0, 1, 2, 3], [4]]
    """

    def __init__(
        self, dataset: Dataset | Sequence[Any], transform: Callable[[Any], Any] | None = None
    ) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        record = self.dataset[index]
        return record if self.transform is None else self.transform(record)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items of one batch."""
        if isinstance(self.dataset, Dataset):
            records = self.dataset[list(indices)]
        else:
            records = [self.dataset[index] for index in indices]
        return records if self.transform is None else [self.transform(one) for one in records]

    def __repr__(self) -> str:
        return f"MapDataset({self.dataset!r})"


class IterableDataset(_IterableDataset):  # type: ignore[misc]  # torch's types are not followed
    """The items of a pipeline for a `DataLoader`, or a `StatefulDataLoader`, with any number of
    workers.

    Let the pipeline make the batches, and give the `DataLoader` ``batch_size=None``: then they are
    the same for any number of workers. Each worker runs the pipeline inline and makes every
    ``num_workers``-th batch, which costs nothing where `Pipeline.shard` costs nothing; behind a
    `filter` or a `mix` every worker makes the whole stream. `Pipeline.loader` has no such cost.

    Args:
        pipeline: what to iterate over; not sharded over ranks.
        rank: the part of which rank this is; None: all of it.
        world_size: how many ranks there are; steps that not all of them have are left out.

    Example:
        >>> import splitpipe as sp
        >>> from torch.utils.data import DataLoader
        >>> from splitpipe.integrations.torch import IterableDataset
        >>> pipe = sp.Pipeline(range(6), shuffle="global", seed=1).batch(2)
        >>> batches = list(DataLoader(IterableDataset(pipe), batch_size=None))
        >>> [type(one).__name__ for one in batches], sum(int(one.sum()) for one in batches)
        (['Tensor', 'Tensor', 'Tensor'], 15)
    """

    def __init__(
        self, pipeline: Pipeline, *, rank: int | None = None, world_size: int | None = None
    ) -> None:
        if (rank is None) is not (world_size is None):
            raise GraphError("give rank= and world_size= both, or neither of them")
        self.pipeline = pipeline
        self._rank, self._world_size = (rank or 0), (world_size or 1)
        self._ranked = pipeline if world_size is None else pipeline.shard(rank, world_size)
        # Which epoch each worker begins next, in memory that all of them see.
        self._next = torch.zeros(_WORKERS, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._ranked)

    def __iter__(self) -> _Items:
        worker = get_worker_info()
        number = 0 if worker is None else worker.id
        if number >= _WORKERS:
            raise GraphError(f"worker {number}: a DataLoader may have {_WORKERS} workers here")
        part = self._ranked if worker is None else self._part(worker.id, worker.num_workers)
        return _Items(part, self._next[number])

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch; without it, it is the one behind the last."""
        check_count("epoch", epoch, least=0)
        self._next.fill_(epoch)

    def __repr__(self) -> str:
        return f"IterableDataset({self.pipeline!r})"

    def _part(self, worker: int, workers: int) -> Pipeline:
        """Return what one worker makes: every `workers`-th item, so that they come in turn."""
        rank, world_size = self._rank, self._world_size
        if world_size == 1:
            return self.pipeline.shard(worker, workers, ends="uneven")
        try:
            even = len(self.pipeline) // world_size * world_size
        except TypeError:  # only running tells: a part of a part
            return self._ranked.shard(worker, workers, ends="uneven")
        # Item w, w + W, ... of rank r's items r, r + R, ...: one deal to R * W instead of two.
        every = self.pipeline.take(even)
        return every.shard(rank + world_size * worker, world_size * workers, ends="uneven")


class _Items:
    """One epoch of a pipeline: an iterator that can say where it is."""

    def __init__(self, pipeline: Pipeline, following: torch.Tensor) -> None:
        self._pipeline = pipeline
        self._following = following
        self._begin(int(following))

    def _begin(self, epoch: int, state: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._following.fill_(epoch + 1)
        self._loader = self._pipeline.loader(executor="inline", epochs=epoch + 1, state=state)
        self._loader.leave_quietly()
        if state is None and epoch:
            self._loader.seek(0, epoch=epoch)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._loader)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "items": self._loader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        try:
            epoch, items = int(state["epoch"]), dict(state["items"])
        except (KeyError, TypeError, ValueError) as error:
            raise ResumeError(
                f"this is no state of an IterableDataset: {error!r}; give load_state_dict what "
                "StatefulDataLoader.state_dict returned"
            ) from error
        self._loader.close()
        self._begin(epoch, items)
