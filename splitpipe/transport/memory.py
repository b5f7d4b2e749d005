"""Messages between threads of one process: the real in-memory twin of the other channels.

Responsible for: `MemoryLink`, for tasks that run in threads, for tests, and for driving a task by
hand.

Rules:
- as everywhere (see `splitpipe.transport.base`); a link holds at most `capacity` messages;
- nothing here is a system call unless somebody has to wait: what gives the interpreter lock away
  for every message waits for it again behind every thread that computes;
- who waits for other descriptors too (`Receiver.wait`, `Sender.wait`) needs one for the messages: a
  bell, made when it is first needed, rung only for those who listen.

It does not travel to another process.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence

from splitpipe.errors import BrokenChannel, ClosedChannel
from splitpipe.transport.base import Buffer, ChannelStatistics, Link, Receiver, Sender

__all__ = ["MemoryLink", "MemoryReceiver", "MemorySender"]


class _Bell:
    """A descriptor that can be read while there is something to tell, for those who listen to it.
    Everything is done with the lock of its queue held.

    Args:
        telling: whether there is something to tell now.
    """

    def __init__(self, telling: Callable[[], bool]) -> None:
        self.telling = telling
        self.listening = 0
        self._pipe: tuple[int, int] | None = None
        self._rung = False
        self._closed = False

    def listen(self) -> int:
        """Begin to listen; return the descriptor."""
        if self._pipe is None:
            self._pipe = os.pipe()
        self.listening += 1
        self.settle()
        return self._pipe[0]

    def leave(self) -> None:
        """Stop listening."""
        self.listening -= 1
        self._drop()

    def settle(self) -> None:
        """Ring, or be still: something has changed."""
        if self._pipe is None or self.telling() == self._rung:
            return
        if self._rung:
            self._rung = False
            os.read(self._pipe[0], 1)
        elif self.listening:
            self._rung = True
            os.write(self._pipe[1], b"\0")

    def close(self) -> None:
        """Nobody will listen any more, but those who do."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        if self._closed and not self.listening and self._pipe is not None:
            for fd in self._pipe:
                os.close(fd)
            self._pipe = None


class _Queue:
    """The messages of a link. Everything but `wait` is done with `lock` held."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.messages: deque[bytes] = deque()
        self.shut = False
        self.lock = threading.Lock()
        self.filled = threading.Condition(self.lock)
        self.emptied = threading.Condition(self.lock)
        self.arrival = _Bell(self.telling)
        self.room = _Bell(self.roomy)

    def telling(self) -> bool:
        """Whether a reader would be told something at once."""
        return bool(self.messages) or self.shut

    def roomy(self) -> bool:
        """Whether a writer would be done, or told something, at once."""
        return len(self.messages) < self.capacity or self.shut

    def put(self, message: bytes) -> None:
        self.messages.append(message)
        self.filled.notify()
        self._settle()

    def take(self) -> bytes:
        message = self.messages.popleft()
        self.emptied.notify()
        self._settle()
        return message

    def end(self) -> None:
        if not self.shut:
            self.shut = True
            self.filled.notify_all()
            self.emptied.notify_all()
            self._settle()

    def close(self) -> None:
        self.end()
        self.arrival.close()
        self.room.close()

    def wait(self, bell: _Bell, changed: threading.Condition, watch: Sequence[int]) -> bool:
        """Wait until `bell` has something to tell (True), or a descriptor of `watch` is readable
        (False).
        """
        with self.lock:
            while not bell.telling() and not watch:
                changed.wait()  # without a bell, and without a system call
            if bell.telling():
                return True
            fd = bell.listen()
        poll = select.poll()
        for one in (fd, *watch):
            poll.register(one, select.POLLIN)
        try:
            while True:
                ready = poll.poll()
                with self.lock:
                    if bell.telling():
                        return True
                if any(one != fd for one, _ in ready):
                    return False
                # Another one was quicker.
        finally:
            with self.lock:
                bell.leave()

    def _settle(self) -> None:
        if self.arrival.listening:
            self.arrival.settle()
        if self.room.listening:
            self.room.settle()


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

    def wait(self, watch: Sequence[int] = (), *, block: bool = True) -> bool:
        queue = self._queue
        if self._closed:
            raise ClosedChannel("this sender was closed")
        if block:
            return queue.wait(queue.room, queue.emptied, watch)
        with queue.lock:
            return queue.roomy()

    def full(self) -> bool:
        with self._queue.lock:
            return not self._queue.roomy()

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
        if self._closed:
            raise ClosedChannel("this receiver was closed")
        return self._queue.wait(self._queue.arrival, self._queue.filled, watch)

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
