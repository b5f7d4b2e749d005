"""What is written down of items that failed, while a run goes on.

Responsible for: the `ErrorLog` of a run, in which its owner reads the first failures of every
stage; the `Book` of a worker, which enters them there and in quarantine files; and the ledgers that
a worker's stages are given: `ChainLedger`, which knows where their items come from.

Rules:
- what failed is written down before the run goes on, by the worker in which it failed;
- each worker tells the first `KEPT` items of a stage. Units are given out in the order of the
  stream, so that the first of all are among them;
- a quarantine that cannot be written ends the run: what was left out must be found again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from splitpipe.errors import FormatError, PoisonRecord, SplitpipeError
from splitpipe.order import Order
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.guarding import Origin, policies
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import Context
from splitpipe.pipeline.stages.failed import FailedItem, Ledger
from splitpipe.pipeline.stages.policy import LeaveOut, decide, leave_out_of
from splitpipe.runtime.blame import Accusations, Blame
from splitpipe.runtime.board import WAITS_FOR_INPUT
from splitpipe.runtime.holding import kept
from splitpipe.runtime.metrics import Meter
from splitpipe.runtime.notes import Notes
from splitpipe.runtime.quarantine import append, check_writable
from splitpipe.transport.anonymous import Descriptor, anonymous_file

if TYPE_CHECKING:
    from splitpipe.pipeline.plan import Plan

__all__ = ["KEPT", "Book", "ChainLedger", "ErrorLog", "check_policies", "waiting"]

KEPT = 8
"""Failures of a stage that a worker tells, and that are shown."""

_SHOWN_TRACEBACK = 2000


class ErrorLog:
    """The first failures of a run, written by all its workers, read by its owner.

    Args:
        shared: whether others than this process write there.
        run: number of the run; it stays the same when workers are replaced.

    Example:
        >>> log = ErrorLog(shared=False)
        >>> log.write(FailedItem("decode", 0, 7, error="ValueError"))
        >>> log.close()
        >>> [failed.position for failed in log.read()]
        [7]
    """

    def __init__(self, *, shared: bool, run: int = 0) -> None:
        self.run = run
        self._lines: list[bytes] = []
        self._memory: Descriptor | None = None
        if shared:
            self._memory = Descriptor(anonymous_file("splitpipe-errors"))
            flags = fcntl.fcntl(self._memory.fd, fcntl.F_GETFL)
            fcntl.fcntl(self._memory.fd, fcntl.F_SETFL, flags | os.O_APPEND)

    def write(self, failed: FailedItem) -> None:
        """Enter an item."""
        text = failed.traceback[-_SHOWN_TRACEBACK:]
        line = replace(failed, traceback=text).to_json().encode()
        if self._memory is None:
            self._lines.append(line)
        elif self._memory.fd >= 0:
            os.write(self._memory.fd, line + b"\n")  # one write: lines of workers do not mix

    def read(self) -> tuple[FailedItem, ...]:
        """Return the first items of every stage, in their order."""
        stages: dict[str, dict[tuple[Any, ...], FailedItem]] = {}
        for line in self._all():
            failed = FailedItem.of_json(line)
            stages.setdefault(failed.stage, {}).setdefault(failed.identity, failed)
        return tuple(
            failed
            for found in stages.values()
            for failed in sorted(found.values(), key=_order)[:KEPT]
        )

    def close(self) -> None:
        """Keep the lines, give the memory back. Safe to call twice."""
        if self._memory is not None and self._memory.fd >= 0:
            self._lines = self._all()
            self._memory.close()

    def _all(self) -> list[bytes]:
        if self._memory is None or self._memory.fd < 0:
            return self._lines
        nbytes = os.fstat(self._memory.fd).st_size
        whole, _, _ = os.pread(self._memory.fd, nbytes, 0).rpartition(b"\n")
        return whole.split(b"\n") if whole else []


class Book:
    """What one worker writes down.

    Args:
        log: of the run; None: nobody reads it.
        worker: its name.
        pause: waits so many seconds, or less when the run is over.
        notes: where stages note which item they are at; None: nowhere.
        accused: items that have ended too many workers.
    """

    def __init__(
        self,
        log: ErrorLog | None = None,
        *,
        worker: str = "",
        pause: Callable[[float], object] = time.sleep,
        notes: Notes | None = None,
        accused: Accusations | None = None,
    ) -> None:
        self._log = log
        self._notes = notes
        self._accused: Accusations = {} if accused is None else accused
        self._worker = worker
        self._run = "" if log is None else f"{log.run:016x}"
        self._told: Counter[str] = Counter()
        self._order: tuple[SequenceSource, int, Order] | None = None
        self.pause = pause

    def enter(self, failed: FailedItem, policy: LeaveOut) -> None:
        """Write down an item that is left out.

        Raises:
            StorageError: its quarantine cannot be written.
        """
        failed = replace(failed, worker=self._worker, run=self._run)
        if policy.path is not None:
            append(policy.path, failed, sync=policy.sync)
        if self._log is not None and self._told[failed.stage] < KEPT:
            self._told[failed.stage] += 1
            self._log.write(failed)

    def record(
        self, source: SequenceSource | None, epoch: int, position: int
    ) -> tuple[int | None, str | None]:
        """Return which record lies at a position of a source, and its key."""
        if source is None or source.again > 1:
            return None, None
        known = self._order  # making one may cost more than reading a record
        if known is None or known[0] is not source or known[1] != epoch:
            # What is numbered is what all ranks have together.
            known = self._order = source, epoch, source.whole(epoch)
        if not 0 <= position < len(known[2]):
            return None, None
        index = int(known[2][position])
        return index, _key(source.sequence, index)

    def blame(self, context: Context) -> Blame | None:
        """Return what a stage tells of the items that it may leave out; None: nobody asks."""
        if self._notes is None and not self._accused:
            return None
        return Blame(context.stage, context.epoch, self._notes, self._accused)

    def ledger(self, body: Body) -> ChainLedger:
        """Return what the stages of `body` enter their failures in, for one pass."""
        return ChainLedger(self, body)


def waiting(meter: Meter, pause: Callable[[float], object]) -> Callable[[float], None]:
    """Return `pause` for a worker: what it waits for before another try is its input, to others,
    and no stage is stuck meanwhile.
    """

    def wait(seconds: float) -> None:
        stage = 0.0 if meter.notes is None else meter.notes.pause()
        meter.wait(WAITS_FOR_INPUT)
        try:
            pause(seconds)
        finally:
            meter.resume()
            if meter.notes is not None:
                meter.notes.resume(stage)

    return wait


class ChainLedger(Ledger):
    """The ledger of the stages of one process.

    Args:
        book: where to write.
        body: the stages.
    """

    def __init__(self, book: Book, body: Body) -> None:
        super().__init__()
        self._book = book
        self._body = body

    def described(
        self, context: Context, error: BaseException, place: tuple[int, int], **known: Any
    ) -> FailedItem:
        origin = self._origin(context.stage)
        if origin is None:
            return super().described(context, error, place, **known)
        epoch = 0 if origin.frozen else context.epoch
        record, key = self._book.record(origin.source, epoch, place[0])
        return super().described(
            context, error, place, source=origin.name, record=record, key=key, **known
        )

    def enter(self, failed: FailedItem, policy: LeaveOut) -> None:
        self._book.enter(failed, policy)

    def blame(self, context: Context, policy: LeaveOut | None) -> Blame | None:
        if policy is None or decide(policy, PoisonRecord(), 0) is not policy:
            return None  # such an item ends the run
        return self._book.blame(context)

    def keep(self, items: Iterator[Any]) -> Iterator[Any]:
        return kept(items)

    def pause(self, seconds: float) -> None:
        if seconds > 0:
            self._book.pause(seconds)

    def _origin(self, stage: str) -> Origin | None:
        """Return where the items of a stage come from, or of the one that it is inside of."""
        origins = {part.stage.name: part.origin for part in self._body.parts if part.stage}
        while stage not in origins and "/" in stage:
            stage = stage.rpartition("/")[0]
        return origins.get(stage)


def _order(failed: FailedItem) -> tuple[int, int, int]:
    """Where it stands in the stream; parts of one item were entered in their order."""
    return failed.epoch, failed.repeat, failed.position


def check_policies(plan: Plan) -> bool:
    """Whether stages of a plan may leave items out.

    Raises:
        StorageError: what they leave out could not be written where it is to be.
    """
    bodies = [task.body for task in plan.tasks] + [local.body for local in plan.locals]
    ends = [leave_out_of(policy) for body in bodies for policy in policies(body.stages)]
    for path in {end.path for end in ends if end is not None and end.path is not None}:
        check_writable(path)
    return any(end is not None for end in ends)


def _key(sequence: Any, index: int) -> str | None:
    """Return the key of a record, where there is one and it can be read."""
    if not hasattr(sequence, "iterate") or not hasattr(sequence, "keys"):
        return None
    try:
        key = sequence.keys([index])[0]
    except (FormatError, SplitpipeError, OSError):
        return None  # no catalog, or one that is damaged too
    return None if key is None else str(key)
