"""Which channel a name means.

Responsible for: `make_link`; the one place that knows all channels. ZeroMQ is imported only when
it is asked for.
"""

from __future__ import annotations

from splitpipe.transport.base import Link
from splitpipe.transport.pipe import PipeLink

__all__ = ["make_link"]


def make_link(transport: str, *, writers: int = 1, readers: int = 1) -> Link:
    """Return a new link between `writers` and `readers` over ``"pipe"`` or ``"zmq"``."""
    if transport == "pipe":
        return PipeLink(writers=writers, readers=readers)
    if transport == "zmq":
        from splitpipe.transport.zeromq import ZmqLink

        return ZmqLink(writers=writers, readers=readers)
    raise ValueError(f"there is no transport {transport!r}")
