"""How a framework leaves out the batches of an epoch that a run before it was trained on.

Responsible for: `Skippable`, what ``accelerate.skip_first_batches``, and so the Trainer of Hugging
Face, reads of a `DataLoader` to make another one of it that begins later. They hand on numbers of
batches (a batch sampler without the first ones) and a dataset that has batches by number: here it
goes to the first number that it is asked for, and gives what follows.

Rules:
- nothing that is left out is made, where the stages can begin there: see `Loader.seek`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol

__all__ = ["Skippable"]


class Epochs(Protocol):
    """What gives the batches of one epoch after the other."""

    def __len__(self) -> int: ...

    def rest(self, step: int) -> Iterator[Any]:
        """Return an iterator over what is left of the next epoch from batch `step` on."""

    def set_epoch(self, epoch: int) -> None: ...

    def leave(self) -> None:
        """Be told that the numbers of an epoch are over."""


class _Numbers:
    """A batch sampler: the numbers of the batches of an epoch."""

    batch_size = 1

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs

    def __len__(self) -> int:
        return len(self._epochs)

    def __iter__(self) -> Iterator[list[int]]:
        try:
            numbers: Iterator[int] = iter(range(len(self._epochs)))
        except TypeError:  # only running tells: the batches themselves end it
            numbers = count()
        for number in numbers:
            yield [number]
        self._epochs.leave()

    def set_epoch(self, epoch: int) -> None:
        self._epochs.set_epoch(epoch)


class _Batches:
    """A dataset: the batches of an epoch by number, each once, one behind the other."""

    def __init__(self, epochs: Epochs) -> None:
        self._epochs = epochs
        self._next = -1
        self._items: Iterator[Any] = iter(())

    def __getitem__(self, number: int) -> Any:
        if number != self._next:
            self._items = self._epochs.rest(number)
        self._next = number + 1
        return next(self._items)


class Skippable:
    """Attributes of a `DataLoader` that has one process and makes no batches."""

    batch_size = None
    sampler = None
    num_workers = 0
    prefetch_factor = None
    pin_memory = False

    @property
    def batch_sampler(self) -> Any:
        """The numbers of the batches of an epoch."""
        return _Numbers(self)  # type: ignore[arg-type]  # what is skippable has epochs

    @property
    def dataset(self) -> Any:
        """The batches of the next epoch, by number."""
        return _Batches(self)  # type: ignore[arg-type]  # what is skippable has epochs

    @staticmethod
    def collate_fn(batches: list[Any]) -> Any:
        """Return the one batch of a list."""
        (batch,) = batches
        return batch
