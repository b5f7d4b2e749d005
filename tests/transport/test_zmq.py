"""The rules of a channel, held against the links of ZeroMQ, and against strangers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import zmq

from splitpipe.testing.channels import ChannelSuite
from splitpipe.transport.zeromq import TcpLink, ZmqLink


class TestZmqLink(ChannelSuite):
    link_type = ZmqLink


class TestTcpLink(ChannelSuite):
    link_type = TcpLink


@contextlib.contextmanager
def stranger(link: ZmqLink, kind: int, *, keys: bool) -> Iterator[zmq.Socket[bytes]]:
    """A socket of somebody who knows the address of `link` and how it is guarded, but no key."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(kind)
    sock.linger = 0
    sock.reconnect_ivl = 2
    if keys:
        sock.curve_serverkey = zmq.curve_keypair()[0]
        sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
    sock.connect(link.endpoint(0))
    try:
        yield sock
    finally:
        sock.close(0)
        context.term()


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("link_type", [ZmqLink, TcpLink])
def test_a_stranger_can_send_nothing(link_type: type[ZmqLink], keys: bool) -> None:
    link = link_type()
    receiver = link.receiver()
    with stranger(link, zmq.PUSH, keys=keys) as forger:
        # It may queue messages for a peer that it hopes to have; none leaves.
        for _ in range(20):
            with contextlib.suppress(zmq.Again):
                forger.send(b"forged", zmq.DONTWAIT)
        sender = link.sender()
        for number in range(200):
            sender.send([b"%d" % number])
            assert receiver.receive() == b"%d" % number
        assert receiver.receive(block=False) is None
        link.shut()
        sender.close()
    receiver.close()
    link.close()


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("link_type", [ZmqLink, TcpLink])
def test_a_stranger_can_take_nothing(link_type: type[ZmqLink], keys: bool) -> None:
    link = link_type(readers=2)
    sender = link.sender()
    with stranger(link, zmq.PULL, keys=keys) as thief:
        receivers = [link.receiver(index) for index in range(2)]
        got: list[int] = []
        for number in range(200):
            sender.send([b"%d" % number])
            while len(got) <= number:
                there = [receiver.receive(block=False) for receiver in receivers]
                got += [int(bytes(message)) for message in there if message is not None]
        assert got == list(range(200))
        with pytest.raises(zmq.Again):
            thief.recv(zmq.DONTWAIT)
        link.shut()
        sender.close()
        for receiver in receivers:
            receiver.close()
    link.close()


def test_tcp_listens_to_this_machine_alone() -> None:
    link = TcpLink(writers=3, readers=2)
    addresses = [link.endpoint(index) for index in range(3)]
    assert len(set(addresses)) == 3
    assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)
    link.close()
