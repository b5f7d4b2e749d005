"""PyTorch's ``DataLoader``: a map-style dataset, batches made in the workers, torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from benchmarks.base import BatchWork, Run, Unsupported

__all__ = ["TorchPipeline"]

PREFETCH = 2  # DataLoader's default: so many batches of a worker are under way, no more.
CHUNK = 1024


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensors(one) for key, one in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(one) for key, one in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


class _Items(Dataset[Any]):
    def __init__(self, function: Callable[[int], Any], count: int, *, tensors: bool) -> None:
        self._function, self._count, self._tensors = function, count, tensors

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        item = self._function(index)
        return _tensors(item) if self._tensors else item


class _Stream(IterableDataset[Any]):
    def __init__(self, generate: Callable[[int], Iterable[Any]], count: int) -> None:
        self._generate, self._count = generate, count

    def __iter__(self) -> Iterator[Any]:
        return iter(self._generate(self._count))


def _as_list(items: list[Any]) -> list[Any]:
    return items


class _Run:
    def __init__(self, loader: DataLoader[Any], read: Callable[[Any], Iterable[Any]]) -> None:
        self._loader, self._read = loader, read

    def __iter__(self) -> Iterator[Any]:
        for item in self._loader:
            yield from self._read(item)

    def close(self) -> None:
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


class TorchPipeline:
    """Workers persist between epochs; ``batch_size=None`` hands items over one by one."""

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        items = _Items(work.reusing(PREFETCH + 2).make, count, tensors=True)
        loader = self._loader(items, workers, PREFETCH)
        return _Run(loader, lambda tensors: (_arrays(tensors),))

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        loader = self._loader(_Items(function, count, tensors=False), workers, 16)
        return _Run(loader, lambda item: (item,))

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        """In lists of 1024, the only fast way to move small items with a DataLoader."""
        loader = DataLoader(
            _Stream(generate, count),
            batch_size=CHUNK,
            collate_fn=_as_list,
            num_workers=1,
            prefetch_factor=PREFETCH,
            persistent_workers=True,
        )
        return _Run(loader, lambda items: items)

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        raise Unsupported("a DataLoader has one stage")

    def _loader(self, dataset: Dataset[Any], workers: int, prefetch: int) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch,
            persistent_workers=True,
        )
