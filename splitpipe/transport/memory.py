"""Messages between threads of one process: the real in-memory twin of the other channels.

Responsible for: `MemoryLink`, for tasks that run in threads, for tests, and for driving a task by
hand.

Rules:
- as everywhere (see `splitpipe.transport.base`); a link holds at most `capacity` messages;
- nothing here is a system call unless somebody has to wait: what gives the interpreter lock away
  for every message waits for it again behind every thread that computes;
- who waits for other descriptors too (`Receiver.wait`) needs one for the messages: a bell, made
  when it is first needed, rung only for those who listen.

It does not travel to another process.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Sequence

from splitpipe.errors import BrokenChannel, ClosedChannel
from splitpipe.transport.base import Buffer, ChannelStatistics, Link, Receiver, Sender

__all__ = ["MemoryLink", "MemoryReceiver", "MemorySender"]


class _Queue:
    """The messages of a link. Everything is done with `lock` held."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.messages: deque[bytes] = deque()
        self.shut = False
        self.lock = threading.Lock()
        self.filled = threading.Condition(self.lock)
        self.emptied = threading.Condition(self.lock)
        self._bell: tuple[int, int] | None = None
        self._rung = False
        self._listening = 0
        self._closed = False

    def telling(self) -> bool:
        """Whether a reader would be told something at once."""
        return bool(self.messages) or self.shut

    def put(self, message: bytes) -> None:
        self.messages.append(message)
        self.filled.notify()
        self._ring()

    def take(self) -> bytes:
        message = self.messages.popleft()
        self.emptied.notify()
        self._still()
        return message

    def end(self) -> None:
        if not self.shut:
            self.shut = True
            self.filled.notify_all()
            self.emptied.notify_all()
            self._ring()

    def close(self) -> None:
        self.end()
        self._closed = True
        self._drop_bell()

    def listen(self) -> int:
        """Begin to listen; return the descriptor that is readable when there is something."""
        if self._bell is None:
            self._bell = os.pipe()
        self._listening += 1
        if self.telling():
            self._ring()
        return self._bell[0]

    def leave(self) -> None:
        """Stop listening."""
        self._listening -= 1
        self._drop_bell()

    def _ring(self) -> None:
        if self._listening and not self._rung and self._bell is not None:
            self._rung = True
            os.write(self._bell[1], b"\0")

    def _still(self) -> None:
        """The bell is rung only for as long as there is something to say."""
        if self._rung and not self.telling() and self._bell is not None:
            self._rung = False
            os.read(self._bell[0], 1)

    def _drop_bell(self) -> None:
        if self._closed and not self._listening and self._bell is not None:
            for fd in self._bell:
                os.close(fd)
            self._bell = None


class MemorySender(Sender):
    """See `Sender`."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._closed = False
        self._messages = 0
        self._nbytes = 0

    def send(self, parts: Sequence[Buffer]) -> None:
        message = b"".join(parts)
        queue = self._queue
        with queue.lock:
            while True:
                if self._closed:
                    raise ClosedChannel("this sender was closed")
                if queue.shut:
                    raise BrokenChannel("the channel was shut")
                if len(queue.messages) < queue.capacity:
                    break
                queue.emptied.wait()
            queue.put(message)
        self._messages += 1
        self._nbytes += len(message)

    def close(self) -> None:
        with self._queue.lock:
            self._closed = True
            self._queue.emptied.notify_all()

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._messages, self._nbytes)


class MemoryReceiver(Receiver):
    """See `Receiver`."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._closed = False
        self._messages = 0
        self._nbytes = 0

    def receive(self, *, block: bool = True) -> Buffer | None:
        queue = self._queue
        with queue.lock:
            while not queue.messages or self._closed:
                if self._closed:
                    raise ClosedChannel("this receiver was closed")
                if queue.shut:
                    raise BrokenChannel("the channel was shut")
                if not block:
                    return None
                queue.filled.wait()
            message = queue.take()
        self._messages += 1
        self._nbytes += len(message)
        return message

    def wait(self, watch: Sequence[int] = ()) -> bool:
        queue = self._queue
        with queue.lock:
            if self._closed:
                raise ClosedChannel("this receiver was closed")
            while not queue.telling() and not watch:
                queue.filled.wait()  # without a bell, and without a system call
            if queue.telling():
                return True
            bell = queue.listen()
        poll = select.poll()
        for fd in (bell, *watch):
            poll.register(fd, select.POLLIN)
        try:
            while True:
                ready = poll.poll()
                with queue.lock:
                    if queue.telling():
                        return True
                if any(fd != bell for fd, _ in ready):
                    return False
                # Another reader was quicker.
        finally:
            with queue.lock:
                queue.leave()

    def close(self) -> None:
        with self._queue.lock:
            self._closed = True
            self._queue.filled.notify_all()

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._messages, self._nbytes)


class MemoryLink(Link):
    """A bounded queue between any number of threads.

    Example:
        >>> link = MemoryLink()
        >>> link.sender().send([b"one ", b"message"])
        >>> link.receiver().receive()
        b'one message'
        >>> link.close()
    """

    def __init__(self, *, writers: int = 1, readers: int = 1, capacity: int = 1024) -> None:
        del writers, readers  # one queue serves any number
        self._queue = _Queue(capacity)

    def sender(self, index: int = 0) -> MemorySender:
        return MemorySender(self._queue)

    def receiver(self, index: int = 0) -> MemoryReceiver:
        return MemoryReceiver(self._queue)

    def shut(self) -> None:
        with self._queue.lock:
            self._queue.end()

    def close(self) -> None:
        with self._queue.lock:
            self._queue.close()
