"""The rules of a channel, held against `ZmqLink`."""

from __future__ import annotations

from splitpipe.testing.channels import ChannelSuite
from splitpipe.transport.zeromq import ZmqLink


class TestZmqLink(ChannelSuite):
    link_type = ZmqLink
