"""Processes that are killed, and how they ended.

Responsible for: running an action in a forked child, and killing children at random moments that
they cannot foresee.

Rules:
- a child leaves by ``os._exit``: nothing of the parent's is run twice;
- a child is waited for whatever happens, so none is left behind;
- what a child has to say goes through a pipe, one byte a message.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Child", "forked", "run_in_child"]


def run_in_child(action: Callable[[], object]) -> int:
    """Run an action in a forked child.

    Returns:
        0 when it returned, the signal's number when it was killed by one.

    Raises:
        AssertionError: the action raised; its traceback is on stderr.

    Example:
        >>> run_in_child(lambda: None), run_in_child(lambda: os.kill(os.getpid(), 9))
        (0, 9)
    """
    with forked(lambda tell: action()) as child:
        return child.wait()


class Child:
    """A forked child, as its parent sees it.

    Attributes:
        told: how many messages of the child were read.
        ended: whether it was seen that there will be no more.
    """

    def __init__(self, pid: int, pipe: int) -> None:
        self.told = 0
        self.ended = False
        self._pid: int | None = pid
        self._pipe = pipe
        self._status = 0

    def listen(self, *, messages: int = 1 << 60, seconds: float = 3600.0) -> None:
        """Read messages until there were so many in all, or the time is over, or it ended."""
        end = time.perf_counter() + seconds
        while self.told < messages:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, end - time.perf_counter()))
            if not ready:
                return
            data = os.read(self._pipe, min(4096, messages - self.told))
            if not data:
                self.ended = True
                return
            self.told += len(data)

    def kill(self) -> int:
        """SIGKILL it, and read what it still had said; as `wait`."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; 0, or the number of the signal that ended it.

        Raises:
            AssertionError: its action raised.
        """
        self.listen()
        if self._pid is not None:
            status = os.waitpid(self._pid, 0)[1]
            self._pid = None
            if os.WIFSIGNALED(status):
                self._status = os.WTERMSIG(status)
            elif os.WEXITSTATUS(status):
                raise AssertionError("the child's action raised: see its traceback on stderr")
        return self._status

    def _forget(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = None
        os.close(self._pipe)


@contextmanager
def forked(action: Callable[[Callable[[], None]], object]) -> Iterator[Child]:
    """Run ``action(tell)`` in a forked child; ``tell()`` sends the parent a message."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(receive)
            action(lambda: _tell(send))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(send)
    child = Child(pid, receive)
    try:
        yield child
    finally:
        child._forget()


def _tell(pipe: int) -> None:
    os.write(pipe, b".")
