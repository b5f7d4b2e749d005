"""Messages between threads of one process: the real in-memory twin of the other channels.

Responsible for: `MemoryLink`, for tests, and for driving a task by hand.

Rules:
- as everywhere (see `splitpipe.transport.base`); a link holds at most `capacity` messages;
- a pipe says what `Receiver.wait` has to tell apart, so that it waits for other descriptors too:
  one byte in it for every message, its end for `shut`.

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
    """The messages of a link, and the pipe that counts them."""

    def __init__(self, capacity: int) -> None:
        self.messages: deque[bytes] = deque()
        self.changed = threading.Condition()
        self.capacity = capacity
        self.shut = False
        self.bell, self._ring = os.pipe()
        os.set_blocking(self.bell, False)

    def put(self, message: bytes) -> None:
        self.messages.append(message)
        os.write(self._ring, b"\0")

    def take(self) -> bytes | None:
        if not self.messages:
            return None
        os.read(self.bell, 1)
        return self.messages.popleft()

    def end(self) -> None:
        if not self.shut:
            self.shut = True
            os.close(self._ring)

    def close(self) -> None:
        self.end()
        if self.bell >= 0:
            os.close(self.bell)
            self.bell = -1


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
        with queue.changed:
            queue.changed.wait_for(
                lambda: self._closed or queue.shut or len(queue.messages) < queue.capacity
            )
            if self._closed:
                raise ClosedChannel("this sender was closed")
            if queue.shut:
                raise BrokenChannel("the channel was shut")
            queue.put(message)
            queue.changed.notify_all()
        self._messages += 1
        self._nbytes += len(message)

    def close(self) -> None:
        with self._queue.changed:
            self._closed = True
            self._queue.changed.notify_all()

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
        with queue.changed:
            if block:
                queue.changed.wait_for(lambda: self._closed or queue.shut or queue.messages)
            if self._closed:
                raise ClosedChannel("this receiver was closed")
            message = queue.take()
            if message is None:
                if queue.shut:
                    raise BrokenChannel("the channel was shut")
                return None
            queue.changed.notify_all()
        self._messages += 1
        self._nbytes += len(message)
        return message

    def wait(self, watch: Sequence[int] = ()) -> bool:
        if self._closed:
            raise ClosedChannel("this receiver was closed")
        poll = select.poll()
        for fd in (self._queue.bell, *watch):
            poll.register(fd, select.POLLIN)
        return any(ready == self._queue.bell for ready, _ in poll.poll())

    def close(self) -> None:
        with self._queue.changed:
            self._closed = True
            self._queue.changed.notify_all()

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
        with self._queue.changed:
            self._queue.end()
            self._queue.changed.notify_all()

    def close(self) -> None:
        with self._queue.changed:
            self._queue.close()
            self._queue.changed.notify_all()
