"""Batches by arithmetic: where no sample is looked at before it is in a batch.

Responsible for: `Batches`, all groups of an iteration without filters and categories as a sequence
over all its epochs, so that any of them can be had at once.

Rules:
- group k is a function of k: to go on anywhere nothing is read and nothing is remembered;
- several groups are read at once where they are small, of one epoch and side by side; how many
  never shows;
- a record that cannot be read fails its own group, and none before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from splitpipe.order import Order, make_order
from splitpipe.server.iterations.columns import cut
from splitpipe.server.iterations.finish import Columns, Group
from splitpipe.server.iterations.made import place
from splitpipe.server.iterations.patience import NONE, Patience
from splitpipe.server.iterations.samples import Decode
from splitpipe.storage.base import records_of

__all__ = ["Batches"]

_BLOCK_NBYTES = 8 << 20
_BLOCK_RECORDS = 4096


@dataclass(frozen=True)
class Ordering:
    """Which order a dataset is read in.

    Args:
        shuffle: as of a pipeline, like `seed` and `window`.
        seed: see `shuffle`.
        window: see `shuffle`.
    """

    shuffle: str | None = None
    seed: int = 0
    window: int = 1

    def of(self, dataset: Any, epoch: int) -> Order:
        """Return the order of an epoch."""
        return make_order(dataset, self.shuffle, seed=self.seed, epoch=epoch, window=self.window)


@dataclass(frozen=True)
class Batches(Sequence[Group]):
    """The groups of an iteration.

    Args:
        dataset: a `Dataset`.
        ordering: of its records.
        size: records a group.
        epochs: how often the dataset is gone through.
        drop_last: whether groups that are not full are left out.
        rows: whether groups are lists of records, rather than `Columns`.
        decode: what is done with every record, where they are lists.
        patience: with reading.
        begin: the group that is the first here.
        remote: whether records come from far away: they are read in their order, which the dataset
            fetches ahead, and groups are lists of them.
    """

    dataset: Any
    ordering: Ordering = Ordering()
    size: int = 1
    epochs: int = 1
    drop_last: bool = False
    rows: bool = False
    decode: Decode | None = None
    patience: Patience = NONE
    begin: int = 0
    remote: bool = False
    _orders: dict[int, Order] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def each(self) -> int:
        """Groups of an epoch."""
        full, rest = divmod(len(self.dataset), self.size)
        return full + bool(rest and not self.drop_last)

    @property
    def dropped(self) -> int:
        """Records of an epoch that are in no group."""
        return len(self.dataset) % self.size if self.drop_last else 0

    @property
    def total(self) -> int:
        """Groups of all epochs."""
        return self.each * self.epochs

    def placed(self, number: int) -> int:
        """Return how many records are in the first `number` groups."""
        epochs, groups = divmod(number, self.each) if self.each else (0, 0)
        whole = len(self.dataset) - self.dropped
        return epochs * whole + min(groups * self.size, whole)

    def __len__(self) -> int:
        return self.total - self.begin

    def __getitem__(self, index: Any) -> Any:
        (group,) = self.iterate(None, index, index + 1)
        return group

    def iterate(self, order: Any, start: int = 0, stop: int | None = None) -> Iterator[Group]:
        """Yield the groups ``start:stop``, counted from `begin`; for `splitpipe.Pipeline`."""
        del order  # of groups: they come one after the other
        at = start + self.begin
        end = len(self) + self.begin if stop is None else stop + self.begin
        if self.remote:
            yield from self._flowing(at, end)
            return
        several = 1
        while at < end:
            left = self.each - at % self.each
            count = min(several, left, end - at)
            nbytes = 0
            for group in self._several(at, count):
                nbytes += _nbytes(group.records)
                yield group
                del group
            at += count
            fit = int(_BLOCK_NBYTES / max(1.0, nbytes / count))
            several = max(1, min(fit, _BLOCK_RECORDS // self.size, 8 * count))

    def _flowing(self, first: int, end: int) -> Iterator[Group]:
        """Yield groups of records that are fetched ahead."""
        while first < end:
            epoch, number = divmod(first, self.each)
            order, start = self._order(epoch), number * self.size
            stop = min(start + min(self.each - number, end - first) * self.size, len(order))
            records = self.dataset.iterate(order, start, stop)
            for low in range(start, stop, self.size):
                high = min(low + self.size, stop)
                held = _taken(records, high - low)
                first += 1
                if held is None:
                    # One of them is bad: this tries again, or says where it is.
                    yield from self._several(first - 1, 1)
                    break
                yield Group(self._decoded(held), high - low, int(order[low]), high)
                del held

    def _several(self, first: int, count: int) -> Iterator[Group]:
        """Yield `count` groups of one epoch, read together; one by one where that fails."""
        epoch, number = divmod(first, self.each)
        order = self._order(epoch)
        start = number * self.size
        stop = min(start + count * self.size, len(order))
        indices = order.indices(start, stop)
        try:
            values = self.patience.call(self._read, indices)
        except Exception as error:
            if count == 1:
                error.add_note(place("read", int(indices[0]), len(indices)))
                raise
            for one in range(first, first + count):
                yield from self._several(one, 1)
            return
        for low in range(0, stop - start, self.size):
            high = min(low + self.size, stop - start)
            yield self._group(values, low, high, int(indices[low]), start + high)

    def _read(self, indices: Any) -> dict[str, Any]:
        dataset = self.dataset
        values: dict[str, Any] = dataset.records.read(indices, tuple(dataset.schema))
        return values

    def _group(self, values: dict[str, Any], low: int, high: int, first: int, placed: int) -> Group:
        schema = self.dataset.schema
        part = cut(values, low, high)
        if not self.rows:
            return Group(Columns(schema, part), high - low, first, placed)
        return Group(self._decoded(records_of(schema, part)), high - low, first, placed)

    def _decoded(self, records: list[Any]) -> list[Any]:
        return records if self.decode is None else [self.decode(record) for record in records]

    def _order(self, epoch: int) -> Order:
        order = self._orders.get(epoch)
        if order is None:
            self._orders.clear()
            order = self._orders[epoch] = self.ordering.of(self.dataset, epoch)
        return order

    def __reduce__(self) -> Any:
        given = (
            self.dataset,
            self.ordering,
            self.size,
            self.epochs,
            self.drop_last,
            self.rows,
            self.decode,
            self.patience,
            self.begin,
            self.remote,
        )
        return Batches, given


def _taken(records: Iterator[Any], count: int) -> list[Any] | None:
    """Return the next records; None where that failed."""
    try:
        return list(islice(records, count))
    except Exception:
        return None


def _nbytes(records: Any) -> int:
    """About how much memory the records of a group take."""
    if not isinstance(records, Columns):
        return len(records) * _BLOCK_NBYTES // _BLOCK_RECORDS
    nbytes = 0
    for values in records.values.values():
        if isinstance(values, np.ndarray):
            nbytes += values.nbytes
        else:
            nbytes += sum(len(value) if isinstance(value, bytes | str) else 64 for value in values)
    return nbytes
