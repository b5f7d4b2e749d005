"""The stage that does the work of a job.

Responsible for: `Working`, a `map` whose function is told what has become known of records that end
workers, and tells which record it is at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.jobs.work import Work
from splitpipe.pipeline.stages import Map
from splitpipe.pipeline.stages.base import Context
from splitpipe.pipeline.stages.policy import LeaveOut
from splitpipe.runtime.blame import Blame

__all__ = ["Working"]


@dataclass(frozen=True)
class Working(Map):
    """Ranges of records in, what they become out; its function is a `Work`, or a method of one."""

    accuses: ClassVar[bool] = True

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        work = getattr(self.function, "__self__", self.function)
        blame = context.ledger.blame(context, LeaveOut())
        if isinstance(work, Work) and (blame is None or isinstance(blame, Blame)):
            work.blame = blame
        return super().apply(items, context)
