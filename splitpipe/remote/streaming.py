"""Records of an order, one after the other.

Responsible for: `Streaming`: how much is waited for together, what is fetched meanwhile, and which
way records come: as they lie here, through the cache, or each by itself.

Rules:
- few records are waited for at first, so that the first one is soon there;
- what follows in the order is asked for before records are handed out, also what others will read:
  the network works while the caller does;
- what is all here is left to who reads local datasets, until it proves not to be.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from splitpipe.errors import CacheFull, FormatError
from splitpipe.interrupts import locked
from splitpipe.remote.ahead import Ahead, Behind
from splitpipe.remote.choosing import cheaper_alone
from splitpipe.remote.helpers import Helpers
from splitpipe.remote.keeping import Keeping
from splitpipe.remote.memory import Through, read_through
from splitpipe.remote.policy import Policy
from splitpipe.schema import Schema
from splitpipe.storage.base import Order, Rows, records_of
from splitpipe.storage.table import TableRecords

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from splitpipe.cache import Prefetch

__all__ = ["Consecutive", "Streaming"]

_FIRST_ROWS = 4
_MOST_ROWS = 2048
_BLOCK_NBYTES = 4 << 20
# Records by which it is judged how an order is fetched.
_MOST_LOOKED = 1 << 16
# Records of a block that are each fetched by itself, and blocks that come before they are wanted.
_PICKED_ROWS = 64
_PICKED_AHEAD = 3
# Orders of which it is known how far they were asked for: two epochs, of two pipelines.
_MOST_COURSES = 4


class Streaming:
    """The ways through a remote dataset in some order.

    Args:
        table: reads what is here.
        keeping: knows what is.
        through: reads what is not kept.
        policy: how it is fetched.
        limit_nbytes: of the cache.
    """

    def __init__(
        self,
        table: TableRecords,
        keeping: Keeping,
        through: Through,
        policy: Policy,
        *,
        limit_nbytes: int,
    ) -> None:
        self._table = table
        self._keeping = keeping
        self._through = through
        self._policy = policy
        self._limit = limit_nbytes
        self._mean = max(1.0, keeping.data_nbytes / max(1, table.manifest.rows))
        ahead, block = policy.ahead_nbytes, _BLOCK_NBYTES
        if not keeping.remembers:
            # The rest is for what is being read.
            ahead, block = min(ahead, limit_nbytes // 3), min(block, limit_nbytes // 16)
        self._block_rows = min(_MOST_ROWS, self._rows_of(block))
        self._ahead_rows = self._rows_of(ahead) if ahead else 0
        self._courses: list[_Course] = []
        self._lock = threading.Lock()
        self._pickers = Helpers()

    def _rows_of(self, nbytes: int) -> int:
        """About how many records have so many bytes, at least one."""
        return max(1, int(nbytes / self._mean))

    def stream(
        self,
        order: Order,
        start: int,
        stop: int,
        read: Callable[[Rows], list[Any]],
        schema: Schema,
    ) -> Iterator[Any]:
        """Records at positions of an order.

        Args:
            order: over rows.
            start: the first position.
            stop: the position after the last one.
            read: gives the records of rows, whatever it takes.
            schema: which columns they have.
        """
        names = tuple(schema)
        whole = names == tuple(self._table.schema)
        course = self._course(order, names)
        position, count = start, min(_FIRST_ROWS, self._block_rows)
        while position < stop:
            if whole and self._keeping.warm:
                try:
                    for record in self._table.iterate(order, position, stop):
                        position += 1
                        yield record
                        del record
                except FormatError:
                    self._keeping.forget()
                continue
            if self._alone(course, position):
                yield from self._picked(order, position, stop, schema)
                return
            end = min(stop, position + count)
            rows = order.indices(position, end)
            if course.apart:
                with suppress(CacheFull):  # which is for `read` to deal with
                    self._keeping.ensure(self._table.physical(rows), names, apart=True)
            block = read(rows)
            self._ask(course, end)
            if not self._keeping.remembers:
                self._keeping.done_with(course.behind.bins(order, start))
            position, count = end, min(2 * count, self._block_rows)
            block.reverse()
            while block:
                yield block.pop()

    def ahead(self, order: Order, position: int) -> None:
        """Ask for what follows in an order that somebody else reads, of which this is a part."""
        course = self._course(order, tuple(self._table.schema))
        if not self._alone(course, position):
            self._ask(course, position)

    def _course(self, order: Order, names: tuple[str, ...]) -> _Course:
        """What is known of an order that is being read; of a few of them, the last ones."""
        with self._lock:
            for course in self._courses:
                if course.names == names and _is_same(course.order, order):
                    return course
            made = _Course(order, names, Ahead(self._ahead_rows), Behind())
            self._courses.append(made)
            if len(self._courses) > _MOST_COURSES:
                self._courses.pop(0).ahead.close()
            return made

    def _ask(self, course: _Course, position: int) -> None:
        # Another thread that asks for the same order has asked for enough.
        if not self._keeping.warm:
            go = partial(course.ahead.go, course.order, position, partial(self._prefetch, course))
            locked(course.asking, go, timeout_s=0.0)

    def _prefetch(self, course: _Course, positions: Rows) -> Prefetch | None:
        if not len(positions):
            return None
        physical = self._table.physical(positions)
        return self._keeping.prefetch(physical, course.names, apart=course.apart)

    # -- records that are not kept ---------------------------------------------------------

    def _alone(self, course: _Course, position: int) -> bool:
        """Whether records of an order are better fetched one by one than kept."""
        if self._keeping.remembers:
            return False
        if course.alone is None:
            order, columns = course.order, [self._keeping.columns[name] for name in course.names]
            count = min(_MOST_LOOKED, self._rows_of(self._limit // 4))
            positions = order.indices(position, min(len(order), position + count))
            rows = self._table.physical(positions)
            try:
                self._keeping.have(self._keeping.index_of(columns, rows))
            except CacheFull:
                return True
            extent = self._policy.extent_nbytes
            course.alone = cheaper_alone(columns, rows, extent_nbytes=extent)
        return course.alone

    def _picked(self, order: Order, start: int, stop: int, schema: Schema) -> Iterator[Any]:
        """Records that are kept nowhere, some blocks of them fetched before they are wanted."""
        size = min(_PICKED_ROWS, self._rows_of(_BLOCK_NBYTES))
        first = min(stop, start + min(size, _FIRST_ROWS))
        bounds = [(start, first), *pairwise([*range(first, stop, size), stop])]
        coming: deque[Future[list[Any]]] = deque()
        begun = 0
        try:
            for number in range(len(bounds)):
                while begun < min(len(bounds), number + 1 + _PICKED_AHEAD):
                    rows = self._table.physical(order.indices(*bounds[begun]))
                    coming.append(self._pickers.submit(partial(self._pick, schema, rows)))
                    begun += 1
                block = coming.popleft().result()
                block.reverse()
                while block:
                    yield block.pop()
        finally:
            for one in coming:
                one.cancel()

    def _pick(self, schema: Schema, rows: Rows) -> list[Any]:
        return records_of(schema, read_through(self._through, rows, tuple(schema)))

    def close(self) -> None:
        """Ask for nothing more."""
        for course in self._courses:
            course.ahead.close()
        self._pickers.close()


def _is_same(one: Order, other: Order) -> bool:
    """Whether two orders are known to be the same; some can only be compared by identity."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and one == other
    except TypeError:
        return False


@dataclass(slots=True, eq=False)
class _Course:
    """An order that is being read.

    Attributes:
        order: the order.
        names: of the columns that are read.
        ahead: what was asked for.
        behind: what was read for the last time.
        asking: held by the thread that asks for what comes.
        alone: whether records are fetched one by one; ``None``: nobody has looked yet.
    """

    order: Order
    names: tuple[str, ...]
    ahead: Ahead
    behind: Behind
    asking: threading.RLock = field(default_factory=threading.RLock)
    alone: bool | None = None

    @property
    def apart(self) -> bool:
        """Whether what lies among its rows is likely to be read elsewhere."""
        return bool(getattr(self.order, "apart", False))


class Consecutive:
    """The order in which rows lie.

    Args:
        rows: how many there are.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Consecutive) and other._rows == self._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def indices(self, start: int, stop: int) -> Rows:
        """The rows at positions ``start`` to ``stop - 1``."""
        return np.arange(start, stop, dtype=np.int64)
