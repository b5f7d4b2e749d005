"""The loop of a pool's worker: one unit of work after the other.

Responsible for: taking units (claims on positions of a source, or messages of the head before),
running the stages over each, and sending what comes out at the unit's place in the order. It is
given channels and knows nothing of processes.

Rules:
- a worker keeps nothing between two units;
- what a unit gave before it failed is sent with the failure;
- a claim on a part of a batch is answered with rows, which the merge makes into a batch; with none,
  where one of them cannot travel by itself (see `splitpipe.runtime.parts`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from splitpipe.errors import ChannelError, NotPicklable
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.guarding import policies
from splitpipe.pipeline.source import SequenceSource
from splitpipe.runtime.balance import Balance
from splitpipe.runtime.book import Book, ChainLedger
from splitpipe.runtime.budgets import UnitLedger, budgeted
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.intake import Intake
from splitpipe.runtime.line import Line
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import Outbox
from splitpipe.runtime.parts import AGAIN, LAST, PART, travels
from splitpipe.runtime.team import Leash
from splitpipe.transport.envelope import ATOMS
from splitpipe.transport.message import Claim, End, Failed, Item

__all__ = ["PoolWorker"]


class _PassedOn(BaseException):
    """The failure of an earlier stage, after what came before it. No stage may swallow it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class _StaysHere(BaseException):
    """A row that cannot travel by itself. No stage may swallow it."""


class PoolWorker:
    """One of several processes that share the units of a region.

    Args:
        body: what to run on each unit; its source, if it has one, is read for claims.
        intake: gives claims, or the messages of the head before.
        leash: tells it to wait while there are too many of them; None: it never does.
        book: what it writes down of items that fail.
    """

    def __init__(
        self,
        body: Body,
        intake: Intake,
        outbox: Outbox,
        *,
        worker: str,
        meter: Meter,
        leash: Leash | None = None,
        book: Book | None = None,
    ) -> None:
        self._body = body
        self._book = Book(worker=worker) if book is None else book
        asks = any(stage.operation.accuses for stage in body.stages)
        self._guarded = asks or any(policies(body.stages))
        self._budgets = budgeted(body)
        self._balance = Balance.of(body)
        self._leash = leash
        self._intake = intake
        self._outbox = outbox
        self._source = body.source
        self._worker = worker
        self._meter = meter
        self._order: tuple[int, Any] = (-1, None)
        self._kept: dict[str, dict[str, Any]] = {}
        self._line = Line(body, self._kept)
        self._rows: Line | None = None  # what makes rows of a batch that comes in parts
        notes = meter.notes
        self._noting = notes if notes is not None and (notes.items or notes.stages) else None
        outbox.packer.calibrate(lambda probes: self._collect(probes, [], part=False))

    def run(self) -> None:
        """Take units until the channel is shut."""
        while True:
            if self._leash is not None:
                self._leash.heed()
            message = self._intake.receive()
            if isinstance(message, End) or (isinstance(message, Failed) and not message.count):
                self._outbox.forward(message)
            elif isinstance(message, (Claim, Item, Failed)):
                self._unit(message)

    def _unit(self, unit: Claim | Item | Failed) -> None:
        since = time.perf_counter()
        self._meter.take()
        waited = self._meter.wait_output_s
        kind = unit.count if isinstance(unit, Claim) else 0
        part = kind in (PART, LAST)
        values: list[Any] = []
        ledger, first = self._ledger(unit, values), self._first(unit)
        notes = self._meter.notes
        if notes is not None:
            notes.begin(unit.epoch, unit.start, unit.stop)
        counted = int(kind == LAST) if kind else None
        line = self._stages(part=part)
        try:
            try:
                head = partial(self._input, unit, ledger)
                items = line.begin(unit.epoch, first, head, ledger=ledger, notes=self._noting)
                self._meter.enter(line)
                self._collect(items, values, part=part)
                self._check(line, line.cursor.position - first, values)
            finally:
                line.close()
        except ChannelError:
            raise
        except _StaysHere:
            values.clear()
            self._outbox.packer.discard()
            line.cursor.position = unit.stop  # all of it counts now, nothing when it comes again
        except BaseException as error:
            self._fail(error, line, unit, values, part, self._report(ledger, line))
            return
        finally:
            if kind != AGAIN:
                self._meter.items_in += line.cursor.position - first
            self._meter.leave(line if line.counts else (), counted=kind != AGAIN)
            if notes is not None:
                notes.end()
        elapsed = time.perf_counter() - since - (self._meter.wait_output_s - waited)
        self._outbox.item(
            values,
            epoch=unit.epoch,
            sequence=unit.sequence,
            start=unit.start,
            stop=unit.stop,
            elapsed_s=elapsed,
            counted=counted,
            first=unit.start if isinstance(unit, Claim) else unit.first,
            report=self._report(ledger, line),
        )

    def _stages(self, *, part: bool) -> Line:
        """Return what runs a unit: all stages, or of a batch in parts those that make its rows."""
        if not part:
            return self._line
        if self._rows is None:
            self._rows = Line(self._body.without_last(), self._kept)
        return self._rows

    def _ledger(self, unit: Claim | Item | Failed, values: list[Any]) -> ChainLedger | None:
        """Return what the stages enter their failures in; None where none can."""
        if self._budgets or unit.report:
            return UnitLedger(
                self._book,
                self._body,
                self._budgets,
                lambda: self._made(values),
                unit.report,
            )
        return self._book.ledger(self._body) if self._guarded else None

    @staticmethod
    def _report(ledger: ChainLedger | None, line: Line) -> bytes:
        return ledger.report(line.contexts) if isinstance(ledger, UnitLedger) else b""

    def _check(self, line: Line, taken: int, values: list[Any]) -> None:
        """See that nothing is missing of a unit."""
        if self._balance is not None:
            self._balance.check(line.contexts, taken=taken, given=self._made(values))

    def _made(self, values: list[Any]) -> int:
        """Return how many outputs the unit has so far."""
        return len(values) or self._outbox.packer.count

    @staticmethod
    def _first(unit: Claim | Item | Failed) -> int:
        return unit.start if isinstance(unit, Claim) else 0

    def _input(self, unit: Claim | Item | Failed, ledger: ChainLedger | None) -> Iterator[Any]:
        if not isinstance(unit, Claim):
            return self._values(unit, ledger)
        source = self._source
        assert isinstance(source, SequenceSource)
        epoch = 0 if self._body.parts[0].frozen else unit.epoch
        if self._order[0] != epoch:
            self._order = epoch, source.order(epoch)
        return source.items(self._order[1], unit.start, unit.stop)

    def _values(self, unit: Item | Failed, ledger: ChainLedger | None) -> Iterator[Any]:
        if unit.report and isinstance(ledger, UnitLedger):
            for taken, value in enumerate(self._intake.each(unit)):
                ledger.pass_on(taken)
                yield value
                del value
            ledger.pass_on(None)
        else:
            yield from self._intake.each(unit)
        if isinstance(unit, Failed):
            raise _PassedOn(Failure.decode(unit.body[: unit.nbytes]))

    def _collect(self, items: Iterator[Any], values: list[Any], *, part: bool) -> None:
        """Keep unchangeable items in `values` while there are no others; serialise everything else
        at once.

        Raises:
            _StaysHere: an item is one row of several of a batch, and cannot travel by itself.
        """
        packer = self._outbox.packer
        for item in items:
            if part and not travels(item):
                raise _StaysHere
            if packer.count == 0 and _unchangeable(item):
                values.append(item)
            else:
                for earlier in values:
                    packer.add(earlier)
                values.clear()
                try:
                    self._outbox.add(item)
                except NotPicklable:
                    if part:
                        raise _StaysHere from None
                    raise
            del item

    def _fail(
        self,
        error: BaseException,
        line: Line,
        unit: Claim | Item | Failed,
        values: list[Any],
        part: bool,
        report: bytes,
    ) -> None:
        if isinstance(error, _PassedOn):
            failure = error.failure
        else:
            where = line.where(error, self._worker)
            failure = Failure.of(error, where=where)
        self._outbox.failed(
            failure,
            epoch=unit.epoch,
            sequence=unit.sequence,
            start=unit.start,
            stop=unit.stop,
            values=values,
            counted=0 if part else None,
            report=report,
        )


def _unchangeable(item: Any) -> bool:
    kind = type(item)
    return kind in ATOMS or (kind is tuple and all(type(part) in ATOMS for part in item))
