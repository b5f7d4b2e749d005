"""Batches made ready before they are asked for, and given in their order.

Responsible for: `Ahead`, which knows how far its user is in a stream of which more was taken.

Rules:
- where the user is, is where the source was before the first batch that was not given: what was
  taken ahead of its use does not count;
- an error comes at its place in the stream, also where it was seen some batches before. An
  interruption (Ctrl-C) has no place in it and passes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from splitpipe.errors import ResumeError

__all__ = ["Ahead", "States"]

R = TypeVar("R")

States = Callable[[], Mapping[str, Any]]
"""Tells where a source is; or raises a ResumeError, where it cannot be said there."""


@dataclass(frozen=True, slots=True)
class _Taken(Generic[R]):
    """A batch that was taken and not given: what was made of it, or the error in its place; and
    the state before it.
    """

    ready: R | None
    error: Exception | None
    before: Mapping[str, Any] | ResumeError | None


class Ahead(Generic[R]):
    """Takes from a source a few batches more than it gives.

    Args:
        prepare: makes ready what is taken; what it raises comes in place of the batch.
        count: how many batches are taken beyond the one that is given, from 0 on.
        states: tells where the source is; None: nobody asks for that.

    Example:
        >>> ahead, source = Ahead(str, 2, None), iter(range(9))
        >>> [ahead.next_of(source) for _ in range(3)], len(ahead), next(source)
        (['0', '1', '2'], 2, 5)
    """

    def __init__(self, prepare: Callable[[Any], R], count: int, states: States | None) -> None:
        self._prepare = prepare
        self._count = count
        self._states = states
        self._taken: deque[_Taken[R]] = deque()

    def __len__(self) -> int:
        return len(self._taken)

    def next_of(self, source: Iterator[Any]) -> R:
        """Return the next batch of a source, when those behind it are being made ready.

        Raises:
            StopIteration: there is none.
        """
        if not self._count:
            return self._prepare(next(source))
        while len(self._taken) <= self._count and self._take(source):
            pass
        if not self._taken:
            raise StopIteration
        first = self._taken.popleft()
        if first.error is not None:
            raise first.error
        return first.ready  # type: ignore[return-value]  # there is one where there is no error

    def state(self) -> Mapping[str, Any] | None:
        """Return where its user is; None: where the source is.

        Raises:
            ResumeError: the source could not say it there.
        """
        before = self._taken[0].before if self._taken else None
        if isinstance(before, ResumeError):
            raise before
        return before

    def look(self) -> None:
        """Take at least one batch ahead from now on, so that `len` says whether the batch that was
        given is the last: 0.
        """
        self._count = max(1, self._count)

    def clear(self) -> None:
        """Let go of what was not given."""
        self._taken.clear()

    def _take(self, source: Iterator[Any]) -> bool:
        """Take one batch more; False where there is none."""
        if self._taken and self._taken[-1].error is not None:
            return False
        before = self._state()
        ready = error = None
        try:
            ready = self._prepare(next(source))
        except StopIteration:
            return False
        except Exception as raised:
            error = raised  # and is raised when it is this one's turn
        self._taken.append(_Taken(ready, error, before))
        return True

    def _state(self) -> Mapping[str, Any] | ResumeError | None:
        try:
            return None if self._states is None else self._states()
        except ResumeError as error:
            return error
