"""The methods of a `Pipeline`, by what they do to the stream.

Responsible for: describing one stage each: signatures, documentation, and refusing early what can
never run. What a stage does is said in `splitpipe.pipeline.stages`.
"""

from __future__ import annotations

from splitpipe.pipeline.methods.flow import FlowMethods
from splitpipe.pipeline.methods.groups import GroupMethods
from splitpipe.pipeline.methods.items import ItemMethods
from splitpipe.pipeline.methods.ranks import RankMethods

__all__ = ["FlowMethods", "GroupMethods", "ItemMethods", "RankMethods"]
