"""The rules of a channel, held against `MemoryLink`."""

from __future__ import annotations

from splitpipe.testing.channels import ChannelSuite
from splitpipe.transport.memory import MemoryLink


class TestMemoryLink(ChannelSuite):
    link_type = MemoryLink
    travels = False
