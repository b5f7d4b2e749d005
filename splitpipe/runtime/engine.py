"""The consumer's part of a run.

Responsible for: the items of one epoch, from the last merge (or from the source itself, when
everything runs here) through the stages that run in the consumer's process.

Rules:
- inline is the definition of the stream: one item at a time, each made when it is asked for;
- an exception of a stage that ran here carries the same notes as one that came from a worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from splitpipe.pipeline.plan import Plan
from splitpipe.runtime.chain import Chain, Cursor, open_source
from splitpipe.runtime.failure import annotate
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.metrics import Meter, TaskStatistics

__all__ = ["Engine"]


class Engine:
    """Runs a plan's local stages.

    Args:
        plan: whose local stages to run.
        inbox: the merge of the tasks in other processes; None when there are none.
        meter: counts what arrived, and the waiting for it.
    """

    def __init__(self, plan: Plan, inbox: Inbox | None, meter: Meter) -> None:
        self._plan = plan
        self._inbox = inbox
        self._meter = meter
        self._since = time.perf_counter()
        self._dropped = 0
        self._left = 0  # epochs that are done with

    def epoch(self, epoch: int, *, last: bool) -> Iterator[Iterator[Any]]:
        """Yield the items of `epoch`, as one iterator after the other."""
        if self._inbox is None:
            yield self._through(epoch, None)
            return
        if self._plan.local:
            yield self._through(epoch, self._inbox.epoch())
        else:
            yield from self._inbox.chunks()
        self.leave(epoch, last=last)

    def leave(self, epoch: int, *, last: bool) -> None:
        """Be done with `epoch`, read to its end or not. Safe to call twice."""
        if self._inbox is not None and epoch >= self._left:
            self._left = epoch + 1
            self._inbox.end_epoch(last=last)

    def statistics(self) -> TaskStatistics:
        """Return what happened in this process; the consumer's own code counts as waiting for
        output.
        """
        meter = self._meter
        return TaskStatistics(
            name=" > ".join(stage.name for stage in self._plan.local) or "consumer",
            workers=0,
            items_in=meter.items_in,
            items_out=meter.items_in,
            dropped=self._dropped,
            running_s=time.perf_counter() - self._since,
            wait_input_s=meter.wait_input_s,
            wait_output_s=0.0,
            nbytes=0,
            messages=0,
        )

    def _through(self, epoch: int, items: Iterator[Any] | None) -> Iterator[Any]:
        """Yield what the local stages make of `items`, or of the source where there are none."""
        plan = self._plan
        source = plan.source if items is None else None
        chain = Chain(plan.local, Cursor(epoch))
        try:
            if items is None:
                items = open_source(plan.source, epoch, plan.positions)
            yield from chain.start(items)
        except GeneratorExit:
            raise
        except BaseException as error:
            passed_on = self._inbox.failure if self._inbox is not None else None
            if passed_on is None or passed_on[0] is not error:
                annotate(error, chain.where(error, source, "in the consumer's process"))
            raise
        finally:
            self._dropped += chain.dropped
            if source is not None:
                self._meter.items_in += chain.cursor.position
            chain.close()
