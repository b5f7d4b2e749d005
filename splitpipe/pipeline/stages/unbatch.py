"""`unbatch`: a batch in, its rows out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.pipeline.stages.base import Context, Operation

__all__ = ["Unbatch"]


@dataclass(frozen=True)
class Unbatch(Operation):
    """An item that is a batch in, its rows out."""

    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "unbatch"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        for item in items:
            yield from _rows(item)
            del item


def _rows(batch: Any) -> Iterator[Any]:
    if isinstance(batch, dict):
        keys = list(batch)
        columns = [list(_rows(batch[key])) for key in keys]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns of a batch have different lengths")
        for row in zip(*columns, strict=True):
            yield dict(zip(keys, row, strict=True))
    elif isinstance(batch, tuple):
        columns = [list(_rows(column)) for column in batch]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns of a batch have different lengths")
        make = getattr(type(batch), "_make", tuple)
        for row in zip(*columns, strict=True):
            yield make(row)
    else:
        yield from batch
