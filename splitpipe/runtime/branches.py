"""One stream, several readers in one process.

Responsible for: `Branches`, which gives every reader of a stream all of its items, and for saying
which of them is not read when that cannot go on.

Rules:
- every reader gets its own copy of what can be changed: what one branch does to an item, or its
  maker after yielding it, is never seen by another, as between processes;
- a reader may be `capacity` items behind the fastest one. In one thread a reader that is further
  behind will never be read in time: that is an error at once (`BranchStalled`). With a thread for
  each output the fast one waits, unless `Turns` says that waiting would be for ever. It goes beyond
  that only for somebody who wants to leave and cannot, by what the item needs that is being made;
- what the stream raises is raised in every reader, at its place;
- the stream is closed when the last reader is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol

from splitpipe.errors import BranchStalled, ChannelError
from splitpipe.transport.envelope import ATOMS
from splitpipe.transport.pickling import dump, load

__all__ = ["CAPACITY", "Branches", "Turns"]

CAPACITY = 1024
"""Items that a branch may be behind another one, unless the stage that they share says more."""


_NOBODY = -1
"""Instead of the number of a reader."""


class Turns(Protocol):
    """How outputs that are served by a thread each wait for one another."""

    @property
    def changed(self) -> threading.Condition:
        """Held while anything of a `Branches` changes; its lock may be taken again."""

    def stuck(self, other: int, blocked: Callable[[], bool]) -> bool:
        """Wait while the output that this thread serves is `blocked` by output `other` (below 0: by
        any of the others), or return True: for ever. Returns False, too, when it is `pressed`.
        """

    def pressed(self) -> bool:
        """Whether this thread may go beyond what is usually kept: somebody whose reader has left
        cannot leave before it has made what it makes.
        """

    def follow(self, puller: int, still: Callable[[], bool]) -> None:
        """Wait while `still`, for the thread that serves output `puller`."""

    def pull(self) -> int:
        """This thread begins to make what others wait for, too; return which output it serves."""

    def pulled(self) -> None:
        """It has made it."""


class Branches:
    """Readers of one stream.

    Args:
        items: the stream.
        readers: how many.
        capacity: items that a reader may be behind.
        name: of the stream, for messages.
        turns: how readers wait for each other; None: they share a thread and cannot.

    Example:
        >>> branches = Branches(iter("abc"), 2)
        >>> left, right = branches.reader("left"), branches.reader("right")
        >>> next(left), next(left), list(right), list(left)
        ('a', 'b', ['a', 'b', 'c'], ['c'])
    """

    def __init__(
        self,
        items: Iterator[Any],
        readers: int,
        *,
        capacity: int = CAPACITY,
        name: str = "stream",
        turns: Turns | None = None,
    ) -> None:
        self._items = items
        self._name = name
        self._capacity = capacity
        self._turns = turns
        self._changed = turns.changed if turns is not None else threading.Condition()
        self._pending: list[deque[tuple[bool, Any]]] = [deque() for _ in range(readers)]
        self._closed = [False] * readers
        self._readers: list[tuple[str, int]] = []
        self._puller: int | None = None  # the output that the thread serves that makes an item
        self._over = False
        self._failure: BaseException | None = None
        self._trace: TracebackType | None = None
        self._count = 0

    @property
    def pulled(self) -> int | None:
        """How many items were taken of the stream; None while one is being made."""
        return self._count if self._puller is None else None

    @property
    def complete(self) -> bool:
        """Whether all its readers are there."""
        return len(self._readers) == len(self._pending)

    def reader(self, name: str, output: int = 0) -> Iterator[Any]:
        """Return the items for one more reader.

        Args:
            name: what it is called in messages.
            output: for which output of its task it reads; below 0: for several.
        """
        self._readers.append((name, output))
        return _Reader(self, len(self._readers) - 1)

    def next_for(self, number: int) -> Any:
        """Return the next item of reader `number`.

        Raises:
            StopIteration: there is none.
            BranchStalled: another reader is too far behind.
        """
        pending = self._pending[number]
        while True:
            with self._changed:
                if pending:
                    copied, value = pending.popleft()
                    if self._turns is not None:
                        self._changed.notify_all()
                    return load(value) if copied else value
                if self._over:
                    if self._failure is not None:
                        # Whoever told of it first may have taken its traceback from it.
                        raise self._failure.with_traceback(self._trace)
                    raise StopIteration
                full = self._full(number)
                if full is not None and self._turns is not None and self._turns.pressed():
                    full = None
                if full is None and self._puller is None:
                    self._puller = self._turns.pull() if self._turns is not None else 0
                    break
                if full is None:
                    assert self._turns is not None
                    assert self._puller is not None
                    self._turns.follow(
                        self._puller, lambda: not pending and self._puller is not None
                    )
                    continue
            behind = self._pending[full]
            if self._turns is None or self._turns.stuck(
                self._readers[full][1],
                lambda behind=behind: not pending and len(behind) >= self._capacity,  # type: ignore[misc]
            ):
                raise self._stalled(number, full)
        return self._pull(number)

    @property
    def over(self) -> bool:
        """Whether the stream was read to its end: what is left of it is kept here."""
        return self._over

    def read_ahead(self) -> bool:
        """Read on for all that are behind, until one of them is as far behind as may be, or to the
        end; return whether there was anything to do. What the stream raises is raised in them.
        """
        done = False
        while True:
            with self._changed:
                if self._over or self._full(_NOBODY) is not None:
                    return done
                done = True
                if self._puller is not None:
                    assert self._turns is not None
                    self._turns.follow(self._puller, lambda: self._puller is not None)
                    continue
                self._puller = self._turns.pull() if self._turns is not None else 0
            try:
                self._pull(_NOBODY)
            except ChannelError:
                raise  # the run was shut
            except Exception:
                return True

    def close_for(self, number: int) -> None:
        """Reader `number` wants no more."""
        with self._changed:
            if self._closed[number]:
                return
            self._closed[number] = True
            self._pending[number].clear()
            self._changed.notify_all()
            if all(self._closed):
                self._over = True
                close = getattr(self._items, "close", None)
                if close is not None:
                    close()

    def _full(self, number: int) -> int | None:
        for other, pending in enumerate(self._pending):
            if other != number and len(pending) >= self._capacity:
                return other
        return None

    def _pull(self, number: int) -> Any:
        """Make the next item for `number`, and copies of it for the others, who may read what they
        have meanwhile.
        """
        copied, value, over = False, None, True
        try:
            item = next(self._items)
            over = False
            copied = not _unchangeable(item)
            value = dump(item) if copied and self._others(number) else item
        except StopIteration:
            raise
        except BaseException as error:
            over, self._failure, self._trace = True, error, error.__traceback__
            raise
        finally:
            with self._changed:
                self._puller = None
                self._over = self._over or over
                if not over:
                    self._count += 1
                    for other in self._others(number):
                        self._pending[other].append((copied, value))
                if self._turns is not None:
                    self._turns.pulled()
                    self._changed.notify_all()
        return item

    def _others(self, number: int) -> list[int]:
        return [n for n, closed in enumerate(self._closed) if n != number and not closed]

    def _stalled(self, number: int, full: int) -> BranchStalled:
        return BranchStalled(
            f"the branch {self._readers[full][0]!r} of {self._name!r} is not read: it is "
            f"{self._capacity} items behind {self._readers[number][0]!r}, and no more are kept; "
            f"read the branches in step, or give {self._name!r} a larger capacity="
        )


class _Reader(Iterator[Any]):
    """The items of one reader; closing it is saying that it wants no more."""

    leaves = True

    def __init__(self, branches: Branches, number: int) -> None:
        self._branches = branches
        self._number = number

    def __next__(self) -> Any:
        return self._branches.next_for(self._number)

    def close(self) -> None:
        self._branches.close_for(self._number)


def _unchangeable(item: Any) -> bool:
    kind = type(item)
    return kind in ATOMS or (kind is tuple and all(type(part) in ATOMS for part in item))
