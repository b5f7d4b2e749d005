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
from itertools import islice
from typing import Any

from splitpipe.errors import BranchStalled, PipelineError
from splitpipe.pipeline.graph import Part
from splitpipe.pipeline.plan import Local
from splitpipe.pipeline.resuming import Fact
from splitpipe.pipeline.stages.told import Ticks
from splitpipe.runtime.book import Book
from splitpipe.runtime.capture import looks_back, noting
from splitpipe.runtime.chain import Chain
from splitpipe.runtime.failure import annotate
from splitpipe.runtime.heads import open_source
from splitpipe.runtime.inbox import Inbox
from splitpipe.runtime.ledger import NOTE_S, Ladder
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.proving import shorter
from splitpipe.runtime.watching import Seen, current_watcher

__all__ = ["Engine"]

_TURN = 16
"""Items of one output that are made before it is another one's turn."""


class Engine:
    """Runs what is local for one or several outputs.

    Args:
        local: what to run.
        inboxes: the merges that it reads, one for each of its inputs.
        meter: counts what arrived, and the waiting for it.
        book: what it writes down of items that fail.
    """

    def __init__(
        self, local: Local, inboxes: Sequence[Inbox], meter: Meter, book: Book | None = None
    ) -> None:
        self._book = Book() if book is None else book
        self._local = local
        self._inboxes = inboxes
        self._meter = meter
        self._passes: dict[int, _Pass] = {}
        self._gone: set[int] = set()
        self._kept: dict[str, dict[str, Any]] = {}
        self._watcher = current_watcher()
        self._failed = False
        self._left = 0  # epochs that are done with, at the inboxes
        self._ladder = Ladder() if looks_back(local.body) else None
        self._wants: dict[tuple[int, int], int] = {}
        self._ended: dict[int, tuple[int, int]] = {}  # how many items outputs gave of which epoch
        for part in local.body.parts:
            if part.edge is not None and part.start is not None:
                inboxes[part.edge].begin_with(part.start.first)

    def epoch(self, epoch: int, *, last: bool, output: int = 0) -> Iterator[Iterator[Any]]:
        """Yield the items of `epoch`, as one iterator after the other."""
        if self._local.passes_on:
            yield from self._passed(epoch, output)
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

    def want(self, epoch: int, output: int, first: int) -> None:
        """Let `first` be the number of the first item of an output that is given in `epoch`. For
        all outputs this is said before any is read.
        """
        self._wants[epoch, output] = first

    def position(self, epoch: int, output: int) -> int:
        """Return how many items of `epoch` were given, or had been before this run."""
        if self._local.passes_on:
            return self._inboxes[0].position
        one = self._passes.get(epoch)
        if one is not None and output in one.left:
            return one.given[output].count
        ended, count = self._ended.get(output, (-1, 0))
        return count if ended == epoch else self.first(epoch, output)

    def first(self, epoch: int, output: int) -> int:
        """Return the number of the first item that an output gives in `epoch`."""
        body = self._local.body
        start = body.parts[body.outputs[output]].start
        return start.first if start is not None and body.resumes == epoch else 0

    def pass_over(self, epoch: int, output: int) -> None:
        """Nothing of `epoch` is wanted by an output."""
        if not self._local.passes_on:
            self._done(self._pass(epoch, output), output)

    def facts(self, epoch: int) -> Iterator[tuple[str, Fact]]:
        """Yield what is known of the nodes that run here, and of pools whose items come here."""
        if self._ladder is not None:
            yield from self._ladder.facts(epoch)
        one = self._passes.get(epoch)
        if one is not None:
            yield from self._now(one)
        elif self._local.passes_on:
            (part,) = self._local.body.parts
            found = self._span(part, epoch)
            if part.span is not None and found is not None and found[1]:
                yield part.span[0], Fact(found[0], (found[1],), None, part.span[1])

    def _now(self, one: _Pass) -> Iterator[tuple[str, Fact]]:
        given = {output: one.given[output].count for output in one.left}
        return one.chain.facts(given, lambda part: self._span(part, one.epoch))

    def _span(self, part: Part, epoch: int) -> tuple[int, int] | None:
        assert part.edge is not None
        inbox = self._inboxes[part.edge]
        return inbox.span if inbox.current == epoch else None

    def _note(self, one: _Pass) -> None:
        if self._ladder is not None and self._ladder.due():
            self._ladder.add(one.epoch, self._now(one))

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
            self._catch_up(one)
            yield from one.counted[output]
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

    def _passed(self, epoch: int, output: int) -> Iterator[Iterator[Any]]:
        """Yield what arrives, as it comes."""
        wanted, body = self._wants.pop((epoch, output), 0), self._local.body
        left = wanted - self.first(epoch, output)
        for chunk in self._inboxes[0].chunks():
            if left > 0:
                left -= _thrown_away(chunk, left)
                if left > 0:
                    continue
            yield chunk
        if body.resumes == epoch and wanted - max(0, left) < body.parts[0].least:
            raise shorter(body.parts[0], epoch, wanted - left, recovers=False)

    def _catch_up(self, one: _Pass) -> None:
        """Make what was given before this run, and throw it away: of all outputs by turns, since
        they share a thread and none may be far behind the others.
        """
        wants: dict[int, int] = {}
        for output, ticks in enumerate(one.given):
            count = self._wants.pop((one.epoch, output), 0) - ticks.count
            if count > 0 and output in one.left:
                wants[output] = count
        left = dict(wants)
        while left:
            output = max(left, key=lambda number: left[number] / wants[number])
            count = min(left[output], _TURN if len(wants) > 1 else left[output])
            left[output] -= count
            if _thrown_away(one.counted[output], count) < count or not left[output]:
                del left[output]

    def _counted(self, one: _Pass, output: int) -> Iterator[Any]:
        ticks = one.given[output]
        items = ticks.over(one.outputs[output])
        if self._ladder is None:
            return items
        return noting(items, ticks, lambda: self._note(one), NOTE_S)

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
        body, watcher = self._local.body, self._watcher
        ledger = self._book.ledger(body)
        chain = Chain(body, epoch, kept=self._kept, asked=True, watcher=watcher, ledger=ledger)
        outputs = chain.start(self._open)
        given = [Ticks(self.first(epoch, number)) for number in range(len(outputs))]
        made = _Pass(epoch, chain, outputs, given)
        made.counted = [self._counted(made, number) for number in range(len(outputs))]
        self._passes[epoch] = made
        self._meter.enter(chain.running)
        for gone in self._gone:
            self._done(made, gone)
        return made

    def _open(self, number: int, part: Part, epoch: int) -> Iterator[Any]:
        if part.edge is not None:
            return self._inboxes[part.edge].epoch()
        return open_source(part, epoch)

    def _done(self, one: _Pass, output: int) -> None:
        if output not in one.left:
            return
        one.left.discard(output)
        self._ended[output] = one.epoch, one.given[output].count
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

    def __init__(
        self, epoch: int, chain: Chain, outputs: list[Iterator[Any]], given: list[Ticks]
    ) -> None:
        self.given = given
        self.counted: list[Iterator[Any]] = []
        self.epoch = epoch
        self.chain = chain
        self.outputs = outputs
        self.left = set(range(len(outputs)))


def _thrown_away(items: Iterator[Any], most: int) -> int:
    """Take up to `most` of `items`, and return how many there were."""
    count = 0
    for item in islice(items, most):
        count += 1
        del item
    return count
