"""Samples one by one: read, decoded, looked at.

Responsible for: `Numbered`, a dataset whose records know their row; `Decode`; `Examine`, the stage
that says of a sample whether it stays and what it is batched with; `Sample`, one that stays.

Rules:
- every record that is read gives exactly one item, in its place: a `Sample`, None where a filter
  left it out, or a `Failure`: whoever counts them has counted the records;
- what is wrong with a record is found where it is examined, so that it is treated like any other
  failure there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from splitpipe.pipeline.stages.reading import Unread, leniently
from splitpipe.raw import media
from splitpipe.schema import BARE, Schema
from splitpipe.server.iterations.made import Failure, place
from splitpipe.server.iterations.patience import NONE, Patience, Step

__all__ = ["Decode", "Examine", "Numbered", "Sample"]

_MEDIA = ("image", "audio", "video")
_BLOCK = 1024
"""Positions that are turned into rows at once."""


class Sample(NamedTuple):
    """A record that stays.

    Attributes:
        row: of the dataset.
        record: its values.
        category: what it is batched with.
    """

    row: int
    record: Any
    category: Any = None


class Numbered(Sequence[tuple[int, Any]]):
    """The records of a dataset, each with its row; an `Unread` where one cannot be read.

    Args:
        dataset: a `Dataset`.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return index, self.dataset[index]

    def iterate(self, order: Any, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Yield positions ``start:stop`` of an order over the dataset's rows."""
        return zip(_rows(order, start, stop), leniently(self.dataset, order, start, stop))

    def bin_layout(self) -> Any:
        """Return the dataset's."""
        return self.dataset.bin_layout()

    @property
    def together(self) -> int:
        """As the dataset's."""
        return int(getattr(self.dataset, "together", 1))

    def __reduce__(self) -> Any:
        return Numbered, (self.dataset,)

    def __repr__(self) -> str:
        return repr(self.dataset)


@dataclass(frozen=True)
class Decode:
    """Media columns of a record as arrays: images uint8 of shape (height, width, 3).

    Sound and video become dicts: ``samples`` or ``frames``, and ``rate``.

    Args:
        columns: names and kinds of those columns.
    """

    columns: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, schema: Schema) -> Decode | None:
        """Return what decodes records of a schema; None where nothing is encoded."""
        found = tuple((name, schema[name].kind) for name in schema if schema[name].kind in _MEDIA)
        return cls(found) if found else None

    def __call__(self, record: Any) -> Any:
        if self.columns[0][0] == BARE:
            return _decoded(self.columns[0][1], record)
        made = {name: _decoded(kind, record[name]) for name, kind in self.columns}
        return {**record, **made}


@dataclass(frozen=True)
class Examine:
    """What is asked of a sample.

    Args:
        filters: each says whether it stays.
        categorizer: says what it is batched with.
        decode: is done first.
        patience: with what fails.
    """

    filters: tuple[Step, ...] = ()
    categorizer: Step | None = None
    decode: Decode | None = None
    patience: Patience = NONE

    def look(self, item: tuple[int, Any]) -> Sample | Failure | None:
        """Return what becomes of a record, given with its row."""
        row, record = item
        stage = "read"
        try:
            if type(record) is Unread:
                record = self.patience.call(Unread.settle, record)
            if self.decode is not None:
                stage = "decode"
                record = self.decode(record)
            for step in self._filters:
                stage = step.name
                if not step.function(record):
                    return None
            if self.categorizer is None:
                return Sample(row, record)
            stage = self.categorizer.name
            category = self.patience.call(self.categorizer.function, record)
            return Sample(row, record, _category(category))
        except Exception as error:
            if self.patience.leaves_out(error):
                return Failure.of(error, stage, row)
            error.add_note(place(stage, row))
            raise

    @cached_property
    def _filters(self) -> tuple[Step, ...]:
        return tuple(self.patience.made(step) for step in self.filters)

    def __reduce__(self) -> Any:
        return Examine, (self.filters, self.categorizer, self.decode, self.patience)


def _rows(order: Any, start: int, stop: int) -> Iterator[int]:
    for first in range(start, stop, _BLOCK):
        yield from order.indices(first, min(stop, first + _BLOCK)).tolist()


@cache
def _decoder(kind: str) -> Any:
    return getattr(media, kind)()


def _decoded(kind: str, data: Any) -> Any:
    if data is None:
        return None
    made = _decoder(kind)(data)
    return made._asdict() if hasattr(made, "_asdict") else made


def _category(value: Any) -> Any:
    """Return a category as Python's own value.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is tuple:
        return tuple(map(_category, value))
    if isinstance(value, str | int):
        return value
    raise TypeError(
        f"a categorizer returns a str, an int, a bool or a tuple of them, not {value!r:.100}"
    )
