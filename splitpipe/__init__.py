"""splitpipe feeds training loops and preprocessing jobs.

Three nouns: a `Dataset` stores records in bins, a `Pipeline` describes what happens to them, a
`Loader` is a running pipeline. See README.md.
"""

from __future__ import annotations

from splitpipe import errors
from splitpipe.errors import *  # noqa: F403  the tree is public as a whole
from splitpipe.loader import Loader
from splitpipe.mpqitr import MpQItr
from splitpipe.pipeline.allocate import empty
from splitpipe.pipeline.builder import Pipeline

__version__ = "0.1.0"

__all__ = ["Loader", "MpQItr", "Pipeline", "empty"]
__all__ += errors.__all__
