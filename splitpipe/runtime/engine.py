"""What the consumer's own process runs: everything (`inline`), the last stages, or nothing.

Responsible for: `Engine`, which makes epochs out of what arrives from other processes, or out of
sources themselves.

Rules:
- ``inline`` is the definition of the stream: one item at a time, each made when it is asked for;
- an exception of a stage that ran here carries the same notes as one that came from a worker;
- an output may be one epoch ahead of another one, no more, as between processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from splitpipe.errors import BranchStalled, PipelineError
from splitpipe.pipeline.graph import Part
from splitpipe.pipeline.plan import Local
from splitpipe.runtime.chain import Chain, open_source
from splitpipe.runtime.failure import annotate
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.watching import Seen, current_watcher

__all__ = ["Engine"]


class Engine:
    """Runs what is local for one or several outputs.

    Args:
        local: what to run.
        inboxes: the merges that it reads, one for each of its inputs.
        meter: counts what arrived, and the waiting for it.
    """

    def __init__(self, local: Local, inboxes: Sequence[Inbox], meter: Meter) -> None:
        self._local = local
        self._inboxes = inboxes
        self._meter = meter
        self._passes: dict[int, _Pass] = {}
        self._gone: set[int] = set()
        self._kept: dict[str, dict[str, Any]] = {}
        self._watcher = current_watcher()
        self._failed = False
        self._left = 0  # epochs that are done with, at the inboxes

    def epoch(self, epoch: int, *, last: bool, output: int = 0) -> Iterator[Iterator[Any]]:
        """Yield the items of `epoch`, as one iterator after the other."""
        if self._local.passes_on:
            yield from self._inboxes[0].chunks()
        else:
            yield self._through(epoch, output)
        self.leave(epoch, last=last)

    @property
    def seen(self) -> Seen | None:
        """What brought the items that were given last, where they are passed on as they come."""
        return self._inboxes[0].seen if self._local.passes_on else None

    def leave(self, epoch: int, *, last: bool) -> None:
        """Be done with `epoch`, read to its end or not. Safe to call twice."""
        if self._inboxes and epoch >= self._left:
            self._left = epoch + 1
            for inbox in self._inboxes:
                inbox.skip_rest()
            for inbox in self._inboxes:
                inbox.end_epoch(last=last)

    def fail(self) -> None:
        """The run ended for another output: what is left of it is not to be read any more."""
        self._failed = True
        for one in list(self._passes.values()):
            with contextlib.suppress(Exception):  # the run failed already
                one.chain.close()

    def forget(self, output: int) -> None:
        """Nobody reads `output` any more: the others need not wait for it."""
        self._gone.add(output)
        for one in list(self._passes.values()):
            self._done(one, output)

    def _through(self, epoch: int, output: int) -> Iterator[Any]:
        """Yield what the local stages make of what they read."""
        one = self._pass(epoch, output)
        try:
            yield from one.outputs[output]
            if self._failed:
                raise PipelineError("the run ended for another output")
        except GeneratorExit:
            raise
        except BaseException as error:
            if not self._passed_on(error):
                annotate(error, one.chain.where(error, "in the consumer's process"))
            raise
        finally:
            self._done(one, output)

    def _passed_on(self, error: BaseException) -> bool:
        failures = [inbox.failure for inbox in self._inboxes]
        return any(failure is not None and failure[0] is error for failure in failures)

    def _pass(self, epoch: int, output: int) -> _Pass:
        found = self._passes.get(epoch)
        if found is not None:
            return found
        for earlier in self._passes.values():
            if earlier.epoch < epoch - 1:
                names = [name or "0" for name in self._local.names]
                raise BranchStalled(
                    f"the output {names[min(earlier.left)]!r} is not read: it is still in epoch "
                    f"{earlier.epoch} when {names[output]!r} would begin epoch {epoch}; read the "
                    "outputs in step"
                )
        chain = Chain(self._local.body, epoch, kept=self._kept, watcher=self._watcher)
        made = _Pass(epoch, chain, chain.start(self._open))
        self._passes[epoch] = made
        self._meter.enter(chain.running)
        for gone in self._gone:
            self._done(made, gone)
        return made

    def _open(self, number: int, part: Part, epoch: int) -> Iterator[Any]:
        if part.edge is not None:
            return self._inboxes[part.edge].epoch()
        assert part.source is not None
        return open_source(part.source, epoch, part.positions)

    def _done(self, one: _Pass, output: int) -> None:
        if output not in one.left:
            return
        one.left.discard(output)
        if one.left:
            one.chain.leave(output)
            return
        del self._passes[one.epoch]
        self._meter.leave(one.chain.running)
        if not self._inboxes:
            self._meter.items_in += one.chain.position
        one.chain.close()


class _Pass:
    """One epoch of everything that is local."""

    def __init__(self, epoch: int, chain: Chain, outputs: list[Iterator[Any]]) -> None:
        self.epoch = epoch
        self.chain = chain
        self.outputs = outputs
        self.left = set(range(len(outputs)))
