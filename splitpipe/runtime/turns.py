"""What the threads of one task wait for, and whether it can ever come.

Responsible for: `Waits`, the one place where outputs that are served by a thread each wait: for
their readers, for each other, for input. It finds out when nothing but an output that is not read
could go on, and tells a head further up, which may be the one that is stuck.

Rules:
- one lock for all of it, and one condition: whoever changes anything that somebody may wait for
  wakes all of them;
- a wait is a question that can be asked at any time (`still`), not a note of the past: a thread
  that was let go on and has not run yet does not wait;
- nobody is stuck whose result is not wanted. An output is wanted when its reader has read
  everything and waits for more, or when an output that is wanted waits for it;
- an output is stuck when all that it waits for, and what that waits for, wait for their readers;
- an output whose reader has left its epoch goes, wherever it waits, unless it is making what others
  read, too: that cannot be broken off. Then it is *pressed*, as is everything it waits for: it may
  go beyond what is usually kept, by what the item needs that it is making;
- whose input comes from a branch passes hunger on: only when it is wanted itself, since what it
  sent may still be on its way to whoever reads both branches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from splitpipe.errors import ChannelError
from splitpipe.runtime.outbox import EpochSkipped

__all__ = ["Waits"]


@dataclass(frozen=True, slots=True)
class _Wait:
    """One thread's wait.

    Attributes:
        still: whether it goes on; asked with the lock held.
        others: outputs that have to go on first; none: only the reader can end it.
        announce: what tells where input comes from that it is wanted.
    """

    still: Callable[[], bool]
    others: tuple[int, ...] = ()
    announce: Callable[[], None] | None = None


class Waits:
    """The waits of one task.

    Args:
        hungry: for each output, whether its reader waits for what was not made yet.
        left: for each output, whether its reader wants no more of the epoch that it is in.
        look: for each output, takes what its reader has said and nobody has heard yet; returns
            whether there was anything. Asked before it is said that something will never come.
    """

    def __init__(
        self,
        hungry: Sequence[Callable[[], bool]],
        left: Sequence[Callable[[], bool]],
        look: Sequence[Callable[[], bool]] = (),
    ) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._hungry = hungry
        self._left = left
        self._look = look
        self._pulls: dict[int, int] = {}
        self._waiting: dict[int, _Wait] = {}
        self._serving: dict[int, int] = {}
        self._over: set[int] = set()
        self._broken: ChannelError | None = None

    @property
    def changed(self) -> threading.Condition:
        """Held while anything changes that somebody may wait for."""
        return self._changed

    @property
    def running(self) -> bool:
        """Whether the run has not been shut yet."""
        return self._broken is None

    def serve(self, output: int) -> None:
        """This thread serves `output` from now on."""
        self._serving[threading.get_ident()] = output

    def leave(self) -> None:
        """The output of this thread is over: nobody waits for it any more."""
        with self._changed:
            self._over.add(self.output())
            self.tell()

    def output(self) -> int:
        """Return which output this thread serves."""
        return self._serving[threading.get_ident()]

    def tell(self) -> None:
        """Something changed: wake who waits, and pass on hunger."""
        with self._changed:
            self._changed.notify_all()
            for output, wait in list(self._waiting.items()):
                if wait.announce is not None and self._wanted(output, set()):
                    wait.announce()

    def fail(self, error: ChannelError) -> None:
        """The run was shut: raise `error` in every thread that waits."""
        with self._changed:
            self._broken = error
            self._changed.notify_all()

    def wait(self, still: Callable[[], bool], others: tuple[int, ...] = ()) -> None:
        """Wait while `still`; see `stuck` for waits that may be in vain.

        Raises:
            ChannelError: the run was shut.
        """
        with self.noted(still, others):
            while still():
                self._sleep()

    def stuck(self, other: int, blocked: Callable[[], bool]) -> bool:
        """Wait while this thread's output is `blocked` by output `other` (below 0: by any of the
        others), or return True: for ever. Also returns False when it is `pressed`.

        Raises:
            ChannelError: the run was shut.
            EpochSkipped: nobody wants the epoch any more in which it is blocked.
        """
        own = self.output()
        return self._stuck(
            other, blocked, lambda: self._free_to_go(own), lambda: self._pressed(own, set())
        )

    def stuck_between(self, other: int, blocked: Callable[[], bool]) -> bool:
        """As `stuck`, between two epochs."""
        return self._stuck(other, blocked, lambda: False, lambda: False)

    def follow(self, puller: int, still: Callable[[], bool]) -> None:
        """Wait while `still` for what the thread of output `puller` makes for this one, too.

        Raises:
            ChannelError: the run was shut.
            EpochSkipped: nobody wants the epoch any more that it is for.
        """
        own = self.output()
        with self.noted(still, (puller,)):
            while still():
                if self._free_to_go(own):
                    raise EpochSkipped
                self._sleep()

    def pressed(self) -> bool:
        """Whether somebody cannot leave before this thread has made what it makes."""
        with self._changed:
            return self._pressed(self.output(), set())

    def pull(self) -> int:
        """This thread begins to make what others wait for, too; return which output it serves."""
        own = self.output()
        self._pulls[own] = self._pulls.get(own, 0) + 1
        return own

    def pulled(self) -> None:
        """It has made it."""
        self._pulls[self.output()] -= 1

    def _stuck(
        self,
        other: int,
        blocked: Callable[[], bool],
        left: Callable[[], bool],
        pressed: Callable[[], bool],
    ) -> bool:
        own = self.output()
        others = (other,) if other >= 0 else tuple(n for n in self._outputs() if n != own)
        with self.noted(blocked, others):
            while blocked():
                if left():
                    raise EpochSkipped
                if pressed():
                    return False
                if self._wanted(own, set()) and self._idle(own, set()):
                    if sum(look() for look in self._look) == 0:
                        return True
                    self._check()
                    continue
                self._sleep()
        return False

    @contextmanager
    def noted(
        self,
        still: Callable[[], bool],
        others: tuple[int, ...] = (),
        announce: Callable[[], None] | None = None,
    ) -> Iterator[None]:
        """Hold the lock, and take note that this thread waits."""
        own = self.output()
        with self._changed:
            self._waiting[own] = _Wait(still, others, announce)
            self.tell()
            try:
                yield
            finally:
                self._waiting.pop(own, None)

    def begin(self, still: Callable[[], bool], announce: Callable[[], None] | None = None) -> None:
        """Take note that this thread is about to wait elsewhere, until `end`."""
        with self._changed:
            own = self._serving.get(threading.get_ident())
            if own is not None:  # a thread that helps another one waits for itself
                self._waiting[own] = _Wait(still, (), announce)
                self.tell()

    def end(self) -> None:
        """This thread waits no longer."""
        with self._changed:
            own = self._serving.get(threading.get_ident())
            if own is not None:
                self._waiting.pop(own, None)

    def _sleep(self) -> None:
        self._check()
        self._changed.wait()
        self._check()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _outputs(self) -> range:
        return range(len(self._hungry))

    def _free_to_go(self, output: int) -> bool:
        """Whether its reader has left, and it makes nothing for others."""
        return self._left[output]() and not self._pulls.get(output)

    def _pressed(self, output: int, seen: set[int]) -> bool:
        """Whether `output`, or one that waits for it, has been left and makes what others read."""
        if output in seen or output in self._over:
            return False
        seen.add(output)
        if self._pulls.get(output) and self._left[output]():
            return True
        return any(
            output in wait.others and wait.still() and self._pressed(other, seen)
            for other, wait in self._waiting.items()
        )

    def _wanted(self, output: int, seen: set[int]) -> bool:
        """Whether anybody waits for `output`."""
        if output in seen or output in self._over:
            return False
        seen.add(output)
        if self._hungry[output]():
            return True
        return any(
            output in wait.others and wait.still() and self._wanted(other, seen)
            for other, wait in self._waiting.items()
        )

    def _idle(self, output: int, seen: set[int]) -> bool:
        """Whether `output` and all that it waits for wait for their readers."""
        if output in seen or output in self._over:
            return True
        seen.add(output)
        wait = self._waiting.get(output)
        if wait is None or wait.announce is not None or not wait.still():
            return False
        return all(self._idle(other, seen) for other in wait.others)
