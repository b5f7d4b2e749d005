"""The control line between a server and its engines."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from splitpipe.errors import BrokenChannel
from splitpipe.server.feed import control
from splitpipe.server.feed.control import Line


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    here, there = (Line(end) for end in socket.socketpair())
    yield here, there
    here.close()
    there.close()


def test_lines_arrive_whole_and_in_order(ends: tuple[Line, Line]) -> None:
    here, there = ends
    for number in range(100):
        here.send({"kind": "status", "number": number, "text": "x" * number})
    there.wait()
    assert [told["number"] for told in there.receive() or ()] == list(range(100))
    here.close()
    assert there.receive() is None


def test_what_was_put_back_comes_first(ends: tuple[Line, Line]) -> None:
    here, there = ends
    here.send({"kind": "one"})
    here.send({"kind": "two"})
    told = there.receive() or []
    there.put_back(told[1:])
    here.send({"kind": "three"})
    here.close()
    assert [one["kind"] for one in there.receive() or ()] == ["two", "three"]


def test_who_does_not_read_is_given_up(
    ends: tuple[Line, Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "WRITE_S", 0.05)
    with pytest.raises(BrokenChannel, match="does not read"):
        ends[0].send({"kind": "x" * 10_000_000})


def test_a_descriptor_may_be_large() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2100:
        pytest.skip("this process may not have so many descriptors")
    here, there = socket.socketpair()
    with here, there:
        far = socket.socket(fileno=os.dup2(there.fileno(), 2000, inheritable=False))
        line, other = Line(far), Line(here)
        other.send({"kind": "hello"})
        line.wait()
        assert line.receive() == [{"kind": "hello"}]
        line.close()
