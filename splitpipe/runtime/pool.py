"""The loop of a pool's worker: one unit of work after the other.

Responsible for: taking units (claims on positions of a source, or messages of the head before),
running the stages over each, and sending what comes out at the unit's place in the order. It is
given channels and knows nothing of processes.

Rules:
- a worker keeps nothing between two units;
- what a unit gave before it failed is sent with the failure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from splitpipe.errors import ChannelError
from splitpipe.pipeline.source import SequenceSource, Source
from splitpipe.pipeline.stage import Stage
from splitpipe.runtime.chain import Chain, Cursor
from splitpipe.runtime.failure import Failure
from splitpipe.runtime.inbox import Intake
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.outbox import Outbox
from splitpipe.transport.envelope import ATOMS
from splitpipe.transport.message import Claim, End, Failed, Item

__all__ = ["PoolWorker"]


class _PassedOn(BaseException):
    """The failure of an earlier stage, after what came before it. No stage may swallow it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class PoolWorker:
    """One of several processes that share the units of a region.

    Args:
        stages: what to run on each unit.
        source: read for claims.
        intake: gives claims, or the messages of the head before.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        intake: Intake,
        outbox: Outbox,
        *,
        source: Source | None,
        worker: str,
        meter: Meter,
    ) -> None:
        self._stages = stages
        self._intake = intake
        self._outbox = outbox
        self._source = source
        self._worker = worker
        self._meter = meter
        self._order: tuple[int, Any] = (-1, None)

    def run(self) -> None:
        """Take units until the channel is shut."""
        while True:
            message = self._intake.receive()
            if isinstance(message, End) or (isinstance(message, Failed) and not message.count):
                self._outbox.forward(message)
            elif isinstance(message, (Claim, Item, Failed)):
                self._unit(message)

    def _unit(self, unit: Claim | Item | Failed) -> None:
        since = time.perf_counter()
        waited = self._meter.wait_output_s
        chain = Chain(self._stages, Cursor(unit.epoch, self._first(unit)))
        values: list[Any] = []
        try:
            try:
                self._collect(chain.start(self._input(unit)), values)
            finally:
                chain.close()
        except ChannelError:
            raise
        except BaseException as error:
            self._fail(error, chain, unit, values)
            return
        finally:
            self._meter.items_in += chain.cursor.position - self._first(unit)
            self._meter.dropped += chain.dropped
        elapsed = time.perf_counter() - since - (self._meter.wait_output_s - waited)
        self._outbox.item(
            values,
            epoch=unit.epoch,
            sequence=unit.sequence,
            start=unit.start,
            stop=unit.stop,
            elapsed_s=elapsed,
        )

    @staticmethod
    def _first(unit: Claim | Item | Failed) -> int:
        return unit.start if isinstance(unit, Claim) else 0

    def _input(self, unit: Claim | Item | Failed) -> Iterator[Any]:
        if not isinstance(unit, Claim):
            return self._values(unit)
        source = self._source
        assert isinstance(source, SequenceSource)
        if self._order[0] != unit.epoch:
            self._order = unit.epoch, source.order(unit.epoch)
        return source.items(self._order[1], unit.start, unit.stop)

    def _values(self, unit: Item | Failed) -> Iterator[Any]:
        yield from self._intake.each(unit)
        if isinstance(unit, Failed):
            raise _PassedOn(Failure.decode(unit.body[: unit.nbytes]))

    def _collect(self, items: Iterator[Any], values: list[Any]) -> None:
        """Keep unchangeable items in `values` while there are no others; serialise everything else
        at once.
        """
        packer = self._outbox.packer
        for item in items:
            if len(packer) == 0 and _unchangeable(item):
                values.append(item)
            else:
                for earlier in values:
                    packer.add(earlier)
                values.clear()
                packer.add(item)
            del item

    def _fail(
        self, error: BaseException, chain: Chain, unit: Claim | Item | Failed, values: list[Any]
    ) -> None:
        if isinstance(error, _PassedOn):
            failure = error.failure
        else:
            where = chain.where(error, self._source, self._worker)
            failure = Failure.of(error, where=where)
        self._outbox.failed(
            failure,
            epoch=unit.epoch,
            sequence=unit.sequence,
            start=unit.start,
            stop=unit.stop,
            values=values,
        )


def _unchangeable(item: Any) -> bool:
    kind = type(item)
    return kind in ATOMS or (kind is tuple and all(type(part) in ATOMS for part in item))
