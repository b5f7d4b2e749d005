"""Which channel a name means.

Responsible for: `make_link`; the one place that knows all channels. ZeroMQ is imported only when
it is asked for.
"""

from __future__ import annotations

from splitpipe.transport.base import Link
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.pipe import PipeLink

__all__ = ["make_link"]


def make_link(transport: str, *, writers: int = 1, readers: int = 1) -> Link:
    """Return a new link between `writers` and `readers`.

    Args:
        transport: ``"memory"`` (threads of this process), ``"pipe"`` (Unix socket pairs), ``"zmq"``
            (ZeroMQ over ipc) or ``"zmq+tcp"`` (ZeroMQ over the loopback interface).
        writers: how many tasks write to it.
        readers: how many read.

    Raises:
        ValueError: no such transport.
    """
    if transport == "memory":
        return MemoryLink(writers=writers, readers=readers)
    if transport == "pipe":
        return PipeLink(writers=writers, readers=readers)
    if transport in ("zmq", "zmq+tcp"):
        from splitpipe.transport.zeromq import TcpLink, ZmqLink

        made = TcpLink if transport == "zmq+tcp" else ZmqLink
        return made(writers=writers, readers=readers)
    raise ValueError(f"there is no transport {transport!r}")
