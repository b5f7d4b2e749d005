"""The rules of a channel, held against `PipeLink`."""

from __future__ import annotations

import socket
from typing import Any, cast

from splitpipe.testing.channels import ChannelSuite
from splitpipe.transport.pipe import PipeLink, PipeReceiver, PipeSender
from splitpipe.transport.sockets import SocketPair


class TestPipeLink(ChannelSuite):
    link_type = PipeLink


class _Unlimited:
    """A socket on which blocking cannot be given a limit."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def setsockopt(self, *_: object) -> None:
        raise OSError("not here")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_nobody_blocks_for_a_moment_that_has_no_end() -> None:
    pair = SocketPair()
    receiver = PipeReceiver(cast("socket.socket", _Unlimited(pair.read)))
    try:
        assert receiver.receive_soon() is None
        PipeSender(pair.write).send([b"x"])
        assert receiver.receive_soon() == b"x"
    finally:
        pair.close()
