"""Packs and buckets: splitpipe's stages, and what one writes by hand."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from benchmarks.base import Run
from benchmarks.sequences import CAPACITY, Lengths, Sequences

__all__ = ["InlinePacking", "PlainPacking", "SplitpipePacking"]


class _Run:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def close(self) -> None:
        self._loader.close()


class SplitpipePacking:
    """`Pipeline.pack` and `Pipeline.bucket` in a process of their own, defaults."""

    options: ClassVar[Mapping[str, Any]] = {}

    def plan(self, lengths: Lengths, capacity: int) -> Lengths:
        """What `Pipeline.pack` plans with."""
        from splitpipe.pipeline.stages.packing import plan_packs

        return plan_packs(lengths, capacity)

    def packs(self, sequences: Sequences, count: int, *, window: int, workers: int) -> Run:
        import splitpipe as sp

        made = sp.Pipeline(range(count)).map(sequences)
        return _Run(made.pack(CAPACITY, window=window, workers=workers).loader(**self.options))

    def batches(self, sequences: Sequences, count: int, *, size: int, workers: int) -> Run:
        import splitpipe as sp

        made = sp.Pipeline(range(count)).map(sequences)
        return _Run(made.bucket(size, ragged="pad", workers=workers).loader(**self.options))


class InlinePacking(SplitpipePacking):
    """The same in this process."""

    options: ClassVar[Mapping[str, Any]] = {"executor": "inline"}


class _Here:
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def close(self) -> None:
        """Nothing runs."""


class PlainPacking:
    """Best fit decreasing as the books have it, and batches of what comes one after the other."""

    def plan(self, lengths: Lengths, capacity: int) -> Lengths:
        packs = np.empty(len(lengths), np.int64)
        rooms: list[tuple[int, int]] = []  # of the open packs, least first
        opened = 0
        for place in np.argsort(-lengths, kind="stable").tolist():
            length = int(lengths[place])
            at = bisect_left(rooms, (length, -1))
            if at == len(rooms):
                room, number = capacity, opened
                opened += 1
            else:
                room, number = rooms.pop(at)
            packs[place] = number
            if room > length:
                insort(rooms, (room - length, number))
        return packs

    def packs(self, sequences: Sequences, count: int, *, window: int, workers: int) -> Run:
        return _Here(self._packs(map(sequences, range(count)), window))

    def _packs(self, items: Iterator[Any], window: int) -> Iterator[dict[str, Any]]:
        while some := list(islice(items, window)):
            plan = self.plan(np.array([len(one) for one in some]), CAPACITY)
            groups: list[list[Any]] = [[] for _ in range(int(plan.max()) + 1)]
            for one, number in zip(some, plan.tolist(), strict=True):
                groups[number].append(one)
            yield from map(_side_by_side, groups)

    def batches(self, sequences: Sequences, count: int, *, size: int, workers: int) -> Run:
        return _Here(map(partial(_padded, sequences, count, size), range(0, count, size)))


def _side_by_side(sequences: list[Any]) -> dict[str, Any]:
    lengths = np.array([len(one) for one in sequences])
    total = int(lengths.sum())
    pack = {name: np.zeros(CAPACITY, np.int32) for name in ("tokens", "segment_ids")}
    pack["position_ids"] = np.zeros(CAPACITY, np.int32)
    pack["tokens"][:total] = np.concatenate(sequences)
    pack["segment_ids"][:total] = np.repeat(np.arange(1, len(sequences) + 1), lengths)
    pack["position_ids"][:total] = np.concatenate([np.arange(length) for length in lengths])
    return {**pack, "lengths": lengths}


def _padded(sequences: Sequences, count: int, size: int, first: int) -> Any:
    rows = [sequences(number) for number in range(first, min(first + size, count))]
    batch = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, one in zip(batch, rows, strict=True):
        row[: len(one)] = one
    return batch
