"""The rules of a channel, held against `PipeLink`."""

from __future__ import annotations

from splitpipe.testing.channels import ChannelSuite
from splitpipe.transport.pipe import PipeLink


class TestPipeLink(ChannelSuite):
    link_type = PipeLink
