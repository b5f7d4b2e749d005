"""Answers that a disk in trouble gives: handlers for a `Tap`.

Responsible for: `Strike`, which does something at the n-th call, once or from then on, and lets all
others pass; and for what may be done: an error, a short write or read, death before the call or in
the middle of it.

Rules:
- an error is what the system would raise, with its ``errno`` and nothing else;
- a descriptor is closed even where closing fails, as Linux does it;
- what is struck is known afterwards: `Strike.struck`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from splitpipe.testing.faults.tap import Call

__all__ = ["Answer", "Strike", "die", "die_halfway", "fail", "shorten"]

Answer = Callable[[Call, Callable[[], Any]], Any]


class Strike:
    """Gives one answer at one call and lets the others pass.

    Args:
        at: number of the call, from 1, among those that are chosen.
        answer: what is done there.
        chosen: which calls are counted; by default all.
        forever: whether all chosen calls from there on get the answer, until `cure`.

    Attributes:
        seen: how many chosen calls passed.
        struck: the last call that got the answer, if any did.

    Example:
        >>> import errno, tempfile, splitpipe as sp
        >>> from splitpipe.testing.faults import Tap
        >>> path = tempfile.mkdtemp()
        >>> strike = Strike(1, fail(errno.EIO), chosen=lambda call: call.name == "os.fdatasync")
        >>> with Tap(path, strike):
        ...     try:
        ...         sp.write_split_data(path, [b"abc"])
        ...     except sp.StorageError as error:
        ...         print(error.errno == errno.EIO, strike.struck.name)
        True os.fdatasync
    """

    def __init__(
        self,
        at: int,
        answer: Answer,
        *,
        chosen: Callable[[Call], bool] = lambda call: True,
        forever: bool = False,
    ) -> None:
        self.seen = 0
        self.struck: Call | None = None
        self._at = at
        self._answer = answer
        self._chosen = chosen
        self._forever = forever

    def __call__(self, call: Call, proceed: Callable[[], Any]) -> Any:
        if not self._chosen(call):
            return proceed()
        self.seen += 1
        if self.seen == self._at or (self._forever and self.seen > self._at):
            self.struck = call
            return self._answer(call, proceed)
        return proceed()

    def cure(self) -> None:
        """All calls pass from now on."""
        self._at, self._forever = -1, False


def fail(number: int) -> Answer:
    """The call fails with an ``errno``."""

    def answer(call: Call, proceed: Callable[[], Any]) -> Any:
        if call.name == "os.close":
            proceed()
        raise OSError(number, os.strerror(number))

    return answer


def shorten(call: Call, proceed: Callable[[], Any]) -> Any:
    """A write or a read does half of what it was asked for, the others all of it."""
    if call.name == "os.pwrite":
        descriptor, data, offset = call.args
        with memoryview(data) as view, view.cast("B") as whole:
            return _original(os.pwrite)(descriptor, whole[: (len(whole) + 1) // 2], offset)
    if call.name == "os.pread":
        descriptor, nbytes, offset = call.args
        return _original(os.pread)(descriptor, (nbytes + 1) // 2, offset)
    return proceed()


def die(call: Call, proceed: Callable[[], Any]) -> Any:
    """The process is killed before the call."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_halfway(call: Call, proceed: Callable[[], Any]) -> Any:
    """The process is killed after half of a write, or before any other call."""
    if call.name == "os.pwrite":
        shorten(call, proceed)
    os.kill(os.getpid(), signal.SIGKILL)


def _original(tapped: Callable[..., Any]) -> Callable[..., Any]:
    original: Callable[..., Any] = getattr(tapped, "__wrapped__", tapped)
    return original
