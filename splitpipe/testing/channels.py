"""What every channel has to do.

Responsible for: `ChannelSuite`, the rules of `splitpipe.transport.base` as tests. They know nothing
of any transport.

Example, in a test module:

    class TestPipe(ChannelSuite):
        link_type = PipeLink
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from splitpipe.errors import BrokenChannel, ClosedChannel
from splitpipe.transport.base import Link, Receiver, Sender

__all__ = ["ChannelSuite"]

PATIENCE_S = 20.0


class ChannelSuite:
    """Subclass it and set `link_type`; see the rules of `Link`."""

    link_type: ClassVar[Callable[..., Link]]
    """Called as ``link_type(writers=..., readers=...)``."""

    travels: ClassVar[bool] = True
    """Whether a link may be an argument of a child process."""

    @pytest.fixture
    def ends(self) -> Iterator[_Ends]:
        with contextlib.ExitStack() as stack:
            yield _Ends(type(self).link_type, stack)

    # -- one message

    def test_a_message_is_its_parts_joined(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        sender.send([b"one ", bytearray(b"mess"), memoryview(b"age")])
        assert _text(receiver) == b"one message"

    @pytest.mark.parametrize("nbytes", [0, 1, 65_535, 65_536, 65_537, 1 << 20, 9_600_000])
    def test_any_size_arrives_whole(self, ends: _Ends, nbytes: int) -> None:
        sender, receiver = ends.pair()
        message = os.urandom(min(nbytes, 4096)) * (nbytes // 4096 + 1)
        sending = ends.run(sender.send, [message[:nbytes]])
        assert _text(receiver) == message[:nbytes]
        sending.result(PATIENCE_S)

    def test_what_was_received_is_not_changed_by_what_follows(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        for message in (b"a" * 100, b"b" * 100, b"c" * 100_000, b"d" * 100_000):
            ends.run(sender.send, [message])
        kept = [_whole(receiver) for _ in range(4)]
        assert sorted((bytes(k)[:1], len(k)) for k in kept) == [
            (b"a", 100),
            (b"b", 100),
            (b"c", 100_000),
            (b"d", 100_000),
        ]

    def test_a_sender_may_reuse_its_buffer(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        buffer = bytearray(1000)
        for i in range(5):
            buffer[:] = bytes([i]) * 1000
            sender.send([buffer])
        assert [set(_text(receiver)) for _ in range(5)] == [{i} for i in range(5)]

    # -- many messages

    def test_one_writer_to_one_reader_keeps_order(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        sending = ends.run(_send_numbers, sender, 0, 3000)
        assert [_number(receiver) for _ in range(3000)] == list(range(3000))
        sending.result(PATIENCE_S)

    def test_nothing_there_is_none_and_not_a_wait(self, ends: _Ends) -> None:
        _, receiver = ends.pair()
        assert receiver.receive(block=False) is None

    def test_soon_is_in_a_moment_or_not_at_all(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        assert receiver.receive_soon() is None
        sender.send([b"x"])
        assert receiver.wait()
        message = receiver.receive_soon()
        assert message is not None
        assert bytes(message) == b"x"

    def test_who_has_asked_for_soon_still_waits_for_long(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        assert receiver.receive_soon() is None
        receiving = ends.run(_text, receiver)
        with pytest.raises(TimeoutError):
            receiving.result(0.1)
        sender.send([b"at last"])
        assert receiving.result(PATIENCE_S) == b"at last"

    def test_soon_tells_of_the_end(self, ends: _Ends) -> None:
        link = ends.link(readers=2)
        ends.sender(link)
        receiver, other = ends.receiver(link), ends.receiver(link, 1)
        link.shut()
        with pytest.raises(BrokenChannel):
            receiver.receive_soon()
        other.close()
        with pytest.raises(ClosedChannel):
            other.receive_soon()

    def test_each_message_of_several_writers_arrives_once_and_in_its_order(
        self, ends: _Ends
    ) -> None:
        link = ends.link(writers=3)
        receiver = ends.receiver(link)
        sending = [
            ends.run(_send_numbers, ends.sender(link, w), w * 1000, w * 1000 + 500)
            for w in range(3)
        ]
        numbers = [_number(receiver) for _ in range(1500)]
        for w, future in enumerate(sending):
            future.result(PATIENCE_S)
            mine = [n for n in numbers if n // 1000 == w]
            assert mine == list(range(w * 1000, w * 1000 + 500))

    def test_each_message_goes_to_exactly_one_of_several_readers(self, ends: _Ends) -> None:
        link = ends.link(writers=2, readers=3)
        got: Counter[int] = Counter()
        lock, over = threading.Lock(), threading.Event()

        def read(receiver: Receiver) -> None:
            with contextlib.suppress(BrokenChannel):
                while True:
                    number = _number(receiver)
                    with lock:
                        got[number] += 1
                        if len(got) == 800:
                            over.set()

        reading = [ends.run(read, ends.receiver(link, r)) for r in range(3)]
        for w in range(2):
            ends.run(_send_numbers, ends.sender(link, w), w * 400, w * 400 + 400)
        assert over.wait(PATIENCE_S)
        link.shut()
        for future in reading:
            future.result(PATIENCE_S)
        assert got == Counter(range(800))

    def test_a_channel_that_nobody_reads_is_bounded(self, ends: _Ends) -> None:
        link = ends.link()
        sender = ends.sender(link)
        ends.receiver(link)
        sending = ends.run(_send_until_shut, sender, 1000)
        with pytest.raises(TimeoutError):
            sending.result(0.3)
        link.shut()
        assert sending.result(PATIENCE_S) < 1_000_000

    # -- waiting

    def test_wait_ends_on_a_message(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        waiting = ends.run(receiver.wait)
        sender.send([b"x"])
        assert waiting.result(PATIENCE_S) is True
        assert _text(receiver) == b"x"

    def test_wait_ends_on_another_descriptor(self, ends: _Ends) -> None:
        _, receiver = ends.pair()
        read, write = os.pipe()
        try:
            waiting = ends.run(receiver.wait, [read])
            os.write(write, b"!")
            assert waiting.result(PATIENCE_S) is False
        finally:
            os.close(read)
            os.close(write)

    def test_a_message_comes_before_another_descriptor(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        sender.send([b"x"])
        assert receiver.wait()
        read, write = os.pipe()
        try:
            os.write(write, b"!")
            assert receiver.wait([read]) is True
        finally:
            os.close(read)
            os.close(write)

    # -- waiting for room

    def test_there_is_room_until_there_is_none(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        sent = ends.run(_fill, sender).result(PATIENCE_S)
        assert sent > 0
        waiting = ends.run(_wait_for_room, sender)
        for number in range(sent):
            assert _text(receiver) == _large(number)
        assert waiting.result(PATIENCE_S)
        assert not sender.full()
        sender.send([b"the next"])  # who has seen room need not wait
        assert _text(receiver) == b"the next"

    def test_waiting_for_room_ends_on_another_descriptor(self, ends: _Ends) -> None:
        sender, _ = ends.pair()
        read, write = os.pipe()
        try:
            sending = ends.run(_send_while_told, sender, read)
            os.write(write, b"!")
            assert sending.result(PATIENCE_S) > 0
        finally:
            os.close(read)
            os.close(write)

    def test_shut_wakes_who_waits_for_room(self, ends: _Ends) -> None:
        link = ends.link()
        _, sender = ends.receiver(link), ends.sender(link)
        ends.run(_fill, sender).result(PATIENCE_S)
        waiting = ends.run(_wait_for_room, sender)
        link.shut()
        assert waiting.result(PATIENCE_S)
        with pytest.raises(BrokenChannel):
            sender.send([b"x"])

    def test_a_closed_sender_waits_for_no_room(self, ends: _Ends) -> None:
        sender, _ = ends.pair()
        sender.close()
        with pytest.raises(ClosedChannel):
            sender.wait()

    # -- the end

    def test_shut_wakes_who_receives(self, ends: _Ends) -> None:
        link = ends.link()
        receiver, _ = ends.receiver(link), ends.sender(link)
        receiving = ends.run(receiver.receive)
        link.shut()
        with pytest.raises(BrokenChannel):
            receiving.result(PATIENCE_S)

    def test_shut_wakes_who_waits(self, ends: _Ends) -> None:
        link = ends.link()
        receiver, _ = ends.receiver(link), ends.sender(link)
        waiting = ends.run(receiver.wait)
        link.shut()
        assert waiting.result(PATIENCE_S) is True

    def test_shut_reaches_who_comes_later(self, ends: _Ends) -> None:
        link = ends.link()
        sender, receiver = ends.sender(link), ends.receiver(link)
        link.shut()
        link.shut()
        with pytest.raises(BrokenChannel):
            _send_numbers(sender, 0, 100_000)
        with pytest.raises(BrokenChannel):
            receiver.receive()
        with pytest.raises(BrokenChannel):
            receiver.receive(block=False)

    def test_a_closed_sender_says_so(self, ends: _Ends) -> None:
        sender, _ = ends.pair()
        sender.close()
        sender.close()
        with pytest.raises(ClosedChannel):
            sender.send([b"x"])

    def test_a_closed_receiver_says_so(self, ends: _Ends) -> None:
        _, receiver = ends.pair()
        receiver.close()
        receiver.close()
        with pytest.raises(ClosedChannel):
            receiver.receive()
        with pytest.raises(ClosedChannel):
            receiver.wait()

    def test_an_end_that_is_closed_takes_nothing_from_the_others(self, ends: _Ends) -> None:
        """Also where they are all in one process, as those of threads are."""
        link = ends.link(writers=2, readers=2)
        readers = [ends.receiver(link, index) for index in range(2)]
        writers = [ends.sender(link, index) for index in range(2)]
        closing = ends.run(writers[0].close)
        readers[0].close()
        closing.result(PATIENCE_S)
        sending = ends.run(_send_until_shut, writers[1], 10)
        assert _whole(readers[1]) == bytes(10)
        link.shut()
        sending.result(PATIENCE_S)

    def test_what_was_sent_before_close_arrives(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        sender.send([b"last words"])
        closing = ends.run(sender.close)
        assert _text(receiver) == b"last words"
        closing.result(PATIENCE_S)

    def test_closing_a_link_twice_is_harmless(self) -> None:
        link = type(self).link_type()
        link.close()
        link.close()

    def test_statistics_count_messages_and_bytes(self, ends: _Ends) -> None:
        sender, receiver = ends.pair()
        for message in (b"one", b"three", b""):
            sender.send([message])
            _text(receiver)
        for end in (sender, receiver):
            found = end.statistics()
            assert (found.messages, found.nbytes) == (3, 8)

    # -- processes

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_travels_to_a_child(self, ends: _Ends, method: str) -> None:
        self._needs_processes()
        there, back = ends.link(), ends.link()
        child = _process(method, _echo, there, back)
        receiver, sender = ends.receiver(back), ends.sender(there)
        for message in (b"a", b"b" * 200_000, b""):
            sender.send([message])
            assert _text(receiver) == message
        there.shut()
        child.join(PATIENCE_S)
        assert child.exitcode == 0
        child.close()

    def test_a_killed_writer_leaves_whole_messages_and_harms_nobody(self, ends: _Ends) -> None:
        self._needs_processes()
        link = ends.link(writers=2)
        receiver, sender = ends.receiver(link), ends.sender(link, 1)
        child = _process("fork", _send_and_die, link)
        got = [_text(receiver) for _ in range(50)]
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join(PATIENCE_S)
        child.close()
        while (wire := receiver.receive(block=False)) is not None:
            got.append(bytes(wire))
        assert got == [b"%d" % i * 1000 for i in range(len(got))]
        sender.send([b"alive"])
        while (text := _text(receiver)) != b"alive":
            got.append(text)
        assert got == [b"%d" % i * 1000 for i in range(len(got))]

    def _needs_processes(self) -> None:
        if not self.travels:
            pytest.skip("this channel stays in its process")


class _Ends:
    """Links, their ends, and threads on them; all of it goes at the end of a test."""

    def __init__(self, link_type: Callable[..., Link], stack: contextlib.ExitStack) -> None:
        self._type = link_type
        self._pool = stack.enter_context(ThreadPoolExecutor(16))
        self._stack = stack

    def link(self, **counts: int) -> Link:
        link = self._type(**counts)
        self._stack.callback(link.close)
        self._stack.callback(link.shut)
        return link

    def sender(self, link: Link, index: int = 0) -> Sender:
        sender = link.sender(index)
        self._stack.callback(sender.close)
        self._stack.callback(link.shut)  # nobody waits for last words
        return sender

    def receiver(self, link: Link, index: int = 0) -> Receiver:
        receiver = link.receiver(index)
        self._stack.callback(receiver.close)
        self._stack.callback(link.shut)
        return receiver

    def pair(self) -> tuple[Sender, Receiver]:
        link = self.link()
        receiver = self.receiver(link)
        return self.sender(link), receiver

    def run(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self._pool.submit(function, *arguments)


def _whole(receiver: Receiver) -> Any:
    message = receiver.receive()
    assert message is not None
    return message


def _text(receiver: Receiver) -> bytes:
    return bytes(_whole(receiver))


def _number(receiver: Receiver) -> int:
    return int(_text(receiver))


def _send_numbers(sender: Sender, start: int, stop: int) -> None:
    for number in range(start, stop):
        sender.send([b"%d" % number])


def _send_until_shut(sender: Sender, nbytes: int) -> int:
    sent = 0
    with contextlib.suppress(BrokenChannel):
        while sent < 1_000_000:
            sender.send([bytes(nbytes)])
            sent += 1
    return sent


def _large(number: int) -> bytes:
    return bytes([number % 251]) * 60_000


def _fill(sender: Sender) -> int:
    """Send until there is no room left, and any other thread would be told so; return how many
    messages that were.
    """
    sent = 0
    while not sender.full() or sender.wait(block=False):
        while sender.wait(block=False):
            sender.send([_large(sent)])
            sent += 1
            assert sent < 10_000
    return sent


def _send_while_told(sender: Sender, read: int) -> int:
    """Send while there is room, and wait for more; return how many messages were sent when the
    descriptor ended that.
    """
    sent = 0
    while not select.select([read], [], [], 0)[0] or sent == 0:
        if sender.wait([read]):
            sender.send([_large(sent)])
            sent += 1
    return sent


def _wait_for_room(sender: Sender) -> bool:
    while not sender.wait():
        pass  # something else happened
    return True


def _process(method: str, target: Callable[..., None], *arguments: Any) -> Any:
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def _echo(there: Link, back: Link) -> None:
    receiver, sender = there.receiver(), back.sender()
    with contextlib.suppress(BrokenChannel):
        while True:
            sender.send([_whole(receiver)])
    receiver.close()
    sender.close()


def _send_and_die(link: Link) -> None:
    sender = link.sender(0)
    for number in range(1_000_000):
        sender.send([b"%d" % number * 1000])
