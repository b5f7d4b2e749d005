"""`unbatch`: a batch in, its rows out.

Responsible for: `Unbatch`, the inverse of what `batch` does by itself: arrays and lists are rows
already, dicts, tuples, named tuples and dataclasses are taken apart field by field. What was padded
can be cut where its lengths are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.collate import instance_of

__all__ = ["Unbatch"]


@dataclass(frozen=True)
class Unbatch(Operation):
    """An item that is a batch in, its rows out.

    Args:
        unpad: cut rows that were padded with ``Pad(lengths=True)`` to the lengths they had, and
            leave out the columns of lengths and masks.
    """

    unpad: bool = False
    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "unbatch"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        for item in items:
            yield from context.divided(_rows(item, unpad=self.unpad))
            del item


def _rows(batch: Any, *, unpad: bool) -> Iterator[Any]:
    if isinstance(batch, dict):
        if unpad and {"values"} < batch.keys() <= {"values", "lengths", "mask"}:
            # What padding makes of rows that have no name.
            yield from _cut(batch["values"], _lengths(batch.get("lengths"), batch.get("mask")))
            return
        columns = _columns(batch, unpad=unpad)
        for row in _side_by_side(columns.values()):
            yield dict(zip(columns, row, strict=True))
    elif isinstance(batch, tuple):
        make = getattr(type(batch), "_make", tuple)
        for row in _side_by_side([list(_rows(column, unpad=unpad)) for column in batch]):
            yield make(row)
    elif is_dataclass(batch) and not isinstance(batch, type):
        names = [field.name for field in fields(batch)]
        values = [list(_rows(getattr(batch, name), unpad=unpad)) for name in names]
        for row in _side_by_side(values):
            yield instance_of(type(batch), dict(zip(names, row, strict=True)))
    else:
        yield from batch


def _columns(batch: dict[Any, Any], *, unpad: bool) -> dict[Any, list[Any]]:
    """The rows of each column of a dict; without what only says how they were padded."""
    made: dict[Any, list[Any]] = {}
    beside: set[str] = set()
    for key, column in batch.items():
        parts = {f"{key}_lengths", f"{key}_mask"}
        if unpad and parts & batch.keys():
            lengths, mask = batch.get(f"{key}_lengths"), batch.get(f"{key}_mask")
            made[key] = list(_cut(column, _lengths(lengths, mask)))
            beside |= parts
        else:
            made[key] = list(_rows(column, unpad=unpad))
    return {key: rows for key, rows in made.items() if key not in beside}


def _lengths(lengths: Any, mask: Any) -> list[int]:
    made: list[int] = np.asarray(mask.sum(axis=1) if lengths is None else lengths).tolist()
    return made


def _cut(column: Any, lengths: list[int]) -> Iterator[Any]:
    if len(column) != len(lengths):
        raise ValueError(f"{len(column)} rows of a batch have {len(lengths)} lengths")
    for row, length in zip(column, lengths, strict=True):
        yield row[:length]


def _side_by_side(columns: Collection[list[Any]]) -> Iterator[tuple[Any, ...]]:
    if len(set(map(len, columns))) > 1:
        raise ValueError("the columns of a batch have different lengths; it cannot be unbatched")
    return zip(*columns, strict=True)
