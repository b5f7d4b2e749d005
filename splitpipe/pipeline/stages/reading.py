"""Reading records of which some cannot be read.

Responsible for: `leniently`, which gives what is wrong with a record in the record's place, and
`Reading`, the stage right behind such a source in which that is raised, as if it were its own: so
what becomes of it is said by the same policies as for any other stage.

Rules:
- every position gives exactly one item, read or not, so that positions are counted as ever;
- an `Unread` goes no further than the stage behind its source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.storage.unreadable import Unreadable

__all__ = ["Reading", "Unread", "leniently"]

_BLOCK = 4096
"""Positions that are turned into indices at once."""


class _Indices(Protocol):
    def tolist(self) -> list[int]: ...


class _Order(Protocol):
    def indices(self, start: int, stop: int) -> _Indices: ...


class Unread:
    """A record that could not be read, in its place.

    Args:
        error: what reading it raised.
        read: reads it again.
    """

    __slots__ = ("_error", "_read")

    def __init__(self, error: Exception, read: Callable[[], Any]) -> None:
        self._error: Exception | None = error
        self._read = read

    def settle(self) -> Any:
        """Raise what was wrong; when it is asked again, read again."""
        error, self._error = self._error, None
        if error is None:
            return self._read()
        raise error


@dataclass(frozen=True)
class Reading(Operation):
    """The records of a source; what is wrong with one is raised here."""

    per_item: ClassVar[bool] = True

    @property
    def ratio(self) -> int | None:
        return 1

    @property
    def label(self) -> str:
        return "reading"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        for item in items:
            yield item.settle() if type(item) is Unread else item
            del item


def leniently(sequence: Any, order: _Order, start: int, stop: int) -> Iterator[Any]:
    """Yield the records of positions ``start:stop``, and an `Unread` for each that fails."""
    onward: Any = sequence if hasattr(sequence, "outcomes") else getattr(sequence, "records", None)
    if hasattr(onward, "outcomes"):  # it reads ahead past what fails
        for made in onward.outcomes(order, start, stop):
            if type(made) is Unreadable:
                yield Unread(made.error, partial(sequence.__getitem__, made.row))
            else:
                yield made
            del made
        return
    ahead, position = hasattr(sequence, "iterate"), start
    while position < stop:
        if ahead:  # a dataset: it reads ahead, in blocks, until one is bad
            with contextlib.suppress(Exception):  # that one is found below, one by one
                for record in sequence.iterate(order, position, stop):
                    position += 1
                    yield record
                    del record
                return
        bad = False
        for index in order.indices(position, min(position + _BLOCK, stop)).tolist():
            position += 1
            try:
                record = sequence[index]
            except Exception as error:
                record, bad = Unread(error, partial(sequence.__getitem__, index)), True
            yield record
            del record
            if bad and ahead:
                break
