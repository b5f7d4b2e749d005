"""Who moves messages between a session and its link.

Responsible for: `Feed`: batches for whoever takes them, connections that are made again, the end.

Rules:
- whoever waits for a batch moves the messages itself: no other thread has to be woken for it. A
  second thread, the keeper, does so only while nobody waits: it says that the client lives, passes
  on what is done with, and makes a connection again;
- two locks: one for what the session knows, which is never held while anything waits, and one for
  the link. Whoever takes a batch that is already there needs the first alone;
- while the server is not there nobody hears of it, for as long as was allowed; then everybody does.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import select
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial

from splitpipe.client.feed.link import BrokenLink, Link
from splitpipe.client.feed.links import Links
from splitpipe.client.feed.session import Hand, Session
from splitpipe.errors import ClosedChannel, ServiceError, Unavailable
from splitpipe.interrupts import held_back, locked
from splitpipe.wire.carrying import Batch
from splitpipe.wire.limits import Limits
from splitpipe.wire.messages import (
    Acked,
    Delivery,
    Failed,
    FromClient,
    Refused,
    read_from_engine,
    write,
)

__all__ = ["Feed"]

_open: weakref.WeakSet[Feed] = weakref.WeakSet()
"""What is to be ended when the interpreter leaves: its threads end anywhere after that."""

_WELCOME_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 2.0
_LONGEST_WAIT_S = 3600.0
_KEEP_S = 0.05
_STEADY_S = 5.0


class Feed:
    """One session, connected for as long as it lives.

    Args:
        session: what is known.
        links: makes connections.
        limits: of one message.
        reconnect_s: for how long, in seconds, the server may be away.
    """

    def __init__(
        self, session: Session, links: Links, *, limits: Limits, reconnect_s: float
    ) -> None:
        self.session = session
        self.links = links
        self.losses = 0
        self.waited_s = 0.0
        self._limits = limits
        self._reconnect_s = reconnect_s
        self._knowing = threading.Lock()
        self._moving = threading.RLock()
        self._link: Link | None = None
        self._error: Exception | None = None
        self._closing = threading.Event()
        self._gone = self._abandoned = self._cut = False
        self._ender: int | None = None  # which thread ends it, or has; see `_end`
        now_s = time.monotonic()
        self._lost_s, self._try_at_s, self._pause_s = now_s, now_s, _FIRST_PAUSE_S
        self._why = "it was never reached"
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._look = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="splitpipe-keeper", daemon=True)
        self._keeper.start()
        _open.add(self)

    def take(self, hand: Hand, *, timeout_s: float | None = None) -> Batch | Failed | None:
        """Return the next batch, what went wrong in its place, or None at the end.

        Args:
            hand: is given the batch, too; see `put_back`.
            timeout_s: how long to wait.

        Raises:
            TimeoutError: nothing came in time.
            ServiceError: there is no way to go on.
            ClosedChannel: the feed was closed.
        """
        began_s = now_s = time.monotonic()
        until_s = None if timeout_s is None else began_s + timeout_s
        waited = False
        while True:
            with self._knowing:
                if self._closing.is_set():
                    raise ClosedChannel("this loader was closed")
                found = self._next(hand)
                hurry = self.session.wants_to_ack(now_s)
                over = self.session.ended
            if found is not None or over:
                if waited:
                    self.waited_s += time.monotonic() - began_s
                if hurry:
                    self._move(0.0)
                self._arm()
                return found
            if self._error is not None:
                raise self._error
            if until_s is not None and now_s >= until_s:
                raise TimeoutError(f"no batch came within {timeout_s} s")
            waited = True
            self._move(_LONGEST_WAIT_S if until_s is None else until_s - now_s, wait=True)
            now_s = time.monotonic()

    def put_back(self, hand: Hand) -> None:
        """What `take` has put into a hand did not reach the user, who was interrupted: it is what
        comes next.
        """
        with self._knowing:
            for batch, before in hand:
                self.session.put_back(batch, before)

    def _next(self, hand: Hand) -> Batch | Failed | None:
        try:
            batch = self.session.take(hand)
        except ServiceError as error:
            self._error = self._error or error
            return None
        return batch or self.session.failure()

    def wait(self, timeout_s: float) -> None:
        """Wait until something arrives, or time is over."""
        if not self._closing.is_set():
            self._move(timeout_s, wait=True)

    def ack(self, sequence: int) -> bool:
        """A batch is done with."""
        with self._knowing:
            found = self.session.ack(sequence)
        self._arm()
        return found

    def push_back(self) -> int:
        """Give back what was not taken; return how many batches that was."""
        with self._knowing:
            count = self.session.push_back()
        self._wake()
        self._move(0.0)
        self._look.set()
        return count

    def close(self, *, in_good_order: bool = True, timeout_s: float = 10.0) -> int:
        """End the session; return how many batches are done with that may come again, because the
        server could not be told.
        """
        if self._gone or self._ender not in (None, threading.get_ident()):
            return 0
        with self._knowing:
            if in_good_order and self.session.last is not None and not self.session.asked.manual:
                self.session.ack(self.session.last)
            self._closing.set()
        self._look.set()
        self._wake()
        end = partial(self._end, timeout_s if in_good_order else 0.5)
        left = locked(self._moving, end, timeout_s=1.0)
        if left is None:
            self._cut = True
            self.links.abort()  # somebody waits for an answer of the server
            left = locked(self._moving, end)
        assert left is not None
        self._keeper.join()
        return left

    def _end(self, timeout_s: float) -> int:
        left = 0
        try:
            if self._ender is None:
                self._ender = threading.get_ident()
                left = self._leave(timeout_s)
        finally:
            with held_back():  # whoever interrupts this before it has begun can close again
                self._let_go()
        return left

    def _let_go(self) -> None:
        if self._gone:
            return
        self._gone = True
        if self._link is not None:
            self._link.close()
            self._link = None
        self.links.abort()
        pipe = self._wake_read, self._wake_write
        self._wake_read = self._wake_write = -1  # the numbers are soon somebody else's
        for end in pipe:
            os.close(end)

    def abandon(self) -> None:
        """Let the keeper end all of this: whoever read it is gone. Takes no lock, as a garbage
        collector calls it.
        """
        self._abandoned = True
        self._closing.set()
        self._look.set()

    # Everything below moves messages, and is done by one thread at a time.

    def _move(self, timeout_s: float, *, wait: bool = False) -> None:
        """Move messages; wait for some if there are none yet."""
        # Whoever has the lock does this.
        move = partial(self._move_alone, timeout_s, wait=wait)
        locked(self._moving, move, timeout_s=None if wait else 0.0)

    def _move_alone(self, timeout_s: float, *, wait: bool) -> None:
        if self._ender is not None or self._error is not None:
            return
        began_s = time.monotonic()
        if self._pass_on(began_s) or not wait:
            return
        with self._knowing:
            at_s = self.session.speak_at_s() if self._link is not None else self._try_at_s
        self._wait(min(timeout_s, max(0.0, at_s - began_s)))
        self._pass_on(time.monotonic())

    def _pass_on(self, now_s: float) -> bool:
        """Take what arrived, say what is to be said, connect if need be. Whether any arrived."""
        try:
            if self._link is None:
                self._connect(now_s)
            if self._link is None:
                return False
            found = self._link.receive()
            heard = [read_from_engine(frames, limits=self._limits) for frames in found]
            with self._knowing:
                session = self.session
                before = session.connected
                for message in heard:
                    session.receive(message, now_s)
                said = session.say(now_s)
                silent = session.silent(now_s)
                lost = session.needs_ticket
                welcome = session.connected and not before
                lives = session.connected and (
                    now_s - self._begun_s > _STEADY_S or any(type(m) is Delivery for m in heard)
                )
                unwelcome = not session.connected and now_s - self._begun_s > _WELCOME_S
            if welcome:
                self.links.welcome()
            if lives:  # a link that breaks whenever it is used is as good as none
                self._pause_s = _FIRST_PAUSE_S
                self._lost_s = float("inf")
            self._send(said)
            if lost or silent or unwelcome:
                raise BrokenLink("the engine is silent" if silent else "the engine is another one")
            return bool(found)
        except BrokenLink as error:
            self._lose(str(error), now_s)
        except ServiceError as error:
            self._fail(error)
        except BaseException:  # Ctrl-C: what had arrived is asked for again
            self._lose("whoever read it was interrupted", now_s)
            raise
        return False

    _begun_s = 0.0

    def _connect(self, now_s: float) -> None:
        if now_s < self._try_at_s:
            return
        if now_s - self._lost_s > self._reconnect_s:
            raise Unavailable(
                f"the feed of iteration {self.session.iteration or 'that was asked for'} could not "
                f"be reached for {now_s - self._lost_s:.0f} s: {self._why}"
            )
        try:
            link, ticket = self.links.make(self.session)
        except Unavailable as error:
            self._why = str(error)
            self._later(time.monotonic())
            return
        now_s = self._begun_s = time.monotonic()
        self._link = link
        with self._knowing:
            said = self.session.begin(ticket, now_s)
        self._send(said)

    def _lose(self, why: str, now_s: float) -> None:
        """The link is no more."""
        if self._link is not None:
            self._link.close()
            self._link = None
            self.losses += 1
        with self._knowing:
            self.session.connected = False
        self._why = why
        self._lost_s = min(self._lost_s, now_s)
        self._later(now_s)

    def _later(self, now_s: float) -> None:
        self._try_at_s = now_s + self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._link is not None:
            self._link.close()
            self._link = None

    def _send(self, messages: Sequence[FromClient]) -> None:
        if messages and self._link is not None:
            self._link.send([write(message) for message in messages])

    def _wait(self, timeout_s: float) -> None:
        if self._link is not None:
            self._link.wait(timeout_s, self._wake_read)
        else:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            poll.poll(max(0.0, timeout_s * 1e3))
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _leave(self, timeout_s: float) -> int:
        """Say goodbye, and wait until the server has it written down."""
        until_s = time.monotonic() + timeout_s
        while self._error is None:
            now_s = time.monotonic()
            if self.session.connected and self._link is not None:
                if self._goodbye(until_s):
                    break
            elif self._cut or not self.session.unconfirmed:
                break
            if now_s >= until_s:
                break
            if not self._pass_on(now_s):
                self._wait(min(0.05, max(0.0, until_s - now_s)))
        if self._link is not None:
            self._link.close(linger_s=0.2)
            self._link = None
        return self.session.unconfirmed

    def _goodbye(self, until_s: float) -> bool:
        """Say Bye over this link; whether it was answered, or nothing depends on it."""
        link = self._link
        assert link is not None
        try:
            with self._knowing:
                self._send([self.session.farewell()])
            while time.monotonic() < until_s:
                for frames in link.receive():
                    message = read_from_engine(frames, limits=self._limits)
                    if isinstance(message, Acked | Refused):
                        # Who is refused has to say hello again, if anything is left to be told.
                        self.session.receive(message, time.monotonic())
                        return not self.session.unconfirmed
                link.wait(max(0.0, until_s - time.monotonic()), self._wake_read)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
        except BrokenLink as error:
            self._lose(str(error), time.monotonic())
            return not self.session.unconfirmed
        return False

    # The keeper.

    def _arm(self) -> None:
        """Let the keeper pass on what is done with, if nobody else does so soon."""
        if self.session.unconfirmed and not self._look.is_set():
            self._look.set()

    def _keep(self) -> None:
        while not self._closing.is_set():
            with self._knowing:
                at_s = self.session.speak_at_s() if self._link is not None else self._try_at_s
            if self._look.wait(max(_KEEP_S, at_s - time.monotonic())):
                self._look.clear()
                self._closing.wait(_KEEP_S)  # others may be done with meanwhile
            if self._error is not None:
                self._closing.wait()
            elif not self._closing.is_set():
                self._move(0.0)
        if self._abandoned:
            with self._moving, contextlib.suppress(Exception):
                self._end(0.0)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")


@atexit.register
def _end_all() -> None:
    for feed in list(_open):
        with contextlib.suppress(Exception):
            feed.close(in_good_order=False)
