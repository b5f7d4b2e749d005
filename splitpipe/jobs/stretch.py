"""One run of a job's graph over consecutive records of its source.

Responsible for: `Stretch`, which gives what the graph makes together with the position of the
record that it was made of, and says at which record it failed.

Rules:
- the graph is pulled, one item at a time: what comes out was made of the record that was taken
  last, except behind a stage that takes records ahead, which therefore notes what it took;
- what a stage leaves out by a policy of its own is told with the position of its record, too;
- records keep the numbers that they have in the whole epoch, so that random numbers are the same
  however the source is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

from splitpipe.errors import PoisonRecord
from splitpipe.jobs.shape import Shape
from splitpipe.order import Order
from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import AsyncMap, Context, Operation
from splitpipe.pipeline.stages.failed import Ledger
from splitpipe.pipeline.stages.policy import LeaveOut, decide
from splitpipe.runtime.blame import Blame, Nested
from splitpipe.runtime.chain import Chain
from splitpipe.runtime.failure import failing_stage

__all__ = ["LeftOut", "Stretch"]

LeftOut: TypeAlias = "Callable[[int, Context, LeaveOut, BaseException, int, int], None]"


class Stretch:
    """The graph of a job over positions ``start`` to ``stop - 1``. To be used once.

    Args:
        shape: of the graph.
        order: of its source.
        start, stop: which records.
        epoch: of everything random in it.
        whole: whether positions are not told apart: all that comes out is of ``start``.
        left_out: called with what a stage leaves out: the position of its record, the stage's
            context, its policy, the error, which part of the record, and how often it was tried.
        blame: who is told which record it is at, and says which not to treat; None: nobody asks.
    """

    def __init__(
        self,
        shape: Shape,
        order: Order,
        start: int,
        stop: int,
        *,
        epoch: int = 0,
        whole: bool = False,
        left_out: LeftOut | None = None,
        blame: Blame | None = None,
    ) -> None:
        self._shape, self._order = shape, order
        self._blame = None if shape.ahead and not whole else blame
        self._start, self._stop = start, stop
        self._whole = whole
        self._ahead: list[_Ahead] = []
        self._at: dict[str, Callable[[], int]] = {}  # at which record each stage is
        self._left_out = left_out
        noting = (shape.ahead or shape.guarded) and not whole
        self._body = self._noting(shape.body) if noting else shape.body
        nested = None if self._blame is None else self._blame.nested()
        ledger = _Entering(self._enter, self._blame, nested)
        self._chain = Chain(self._body, epoch, first=start, ledger=ledger)
        self._chain.notes = nested
        self._source_failed = False
        self._given: int | None = None

    def run(self, take: Callable[[int, Any], None]) -> None:
        """Call ``take(position, item)`` with everything that comes out.

        Raises:
            Exception: of a stage, of the source, or of ``take``; see `failed_at`.
        """
        chain, cursor, whole, start = self._chain, self._chain.cursor, self._whole, self._start
        last = self._ahead[-1] if self._ahead else None
        try:
            (items,) = chain.start(self._open)
            for item in items:
                if whole:
                    at = start
                elif last is not None:
                    at = last.position
                else:
                    at = cursor.position - 1
                self._given = at
                take(at, item)
                self._given = None
                del item
        finally:
            chain.close()
            if self._blame is not None:
                self._blame.end()

    def _open(self, number: int, part: Part, epoch: int) -> Iterator[Any]:
        source = part.source
        assert isinstance(source, SequenceSource)
        return self._read(source)

    def _read(self, source: SequenceSource) -> Iterator[Any]:
        items = source.items(self._order, self._start, self._stop)
        try:
            yield from items if self._blame is None else self._told(items, self._blame)
        except GeneratorExit:
            raise
        except BaseException:
            self._source_failed = True
            raise

    def _told(self, items: Iterator[Any], blame: Blame) -> Iterator[Any]:
        """Yield the records, and tell of each before it is read; a whole stream has one name."""
        at = self._start
        while True:
            if at == self._start or not self._whole:
                error = blame.begin((at, 0), called=self._called(at))
                if error is not None:
                    raise error
            item = next(items, self)
            if item is self:
                return
            yield item
            del item
            at += 1

    def _called(self, at: int) -> str:
        if at >= len(self._shape.source):
            return f"record {at} of the job"
        return f"{self._shape.source.describe(at, 0)} (number {at} of the job)"

    def _enter(
        self, context: Context, policy: LeaveOut, error: BaseException, part: int, tries: int
    ) -> None:
        """A stage leaves something out."""
        stage = context.stage.partition("/")[0]
        at = self._start if self._whole else self._at[stage]()
        if self._left_out is not None:
            self._left_out(at, context, policy, error, part, tries)

    # -- which record it was ---------------------------------------------------------------

    def failed_at(self) -> tuple[int, int]:
        """The position of the record at which `run` failed, and the first that gave nothing yet
        though it was taken; the same where there is none before.
        """
        at = self._failed_at()
        waiting = [one.waiting[0] for one in self._ahead if one.waiting]
        return at, min([at, *waiting])

    def _failed_at(self) -> int:
        taken = self._chain.cursor.position
        if self._given is not None:
            return self._given
        if self._source_failed:
            return taken
        for number in range(len(self._ahead) - 1, -1, -1):
            one = self._ahead[number]
            if one.failed and one.waiting:
                return one.waiting[0]
            if not one.failed and not one.input_failed:
                return one.position  # a stage behind it
        return max(self._start, taken - 1)

    def stage_of(self, error: BaseException) -> str | None:
        """The name of the stage that raised; ``None`` if it was the source, or who takes."""
        if self._source_failed or self._given is not None:
            return None
        return failing_stage(error, self._body.stages)

    def where(self, error: BaseException, worker: str) -> tuple[str, ...]:
        """Notes that say where it was."""
        at, _ = self.failed_at()
        name = self.stage_of(error)
        what = "writing what it gave" if self._given is not None else "reading the source"
        place = f"in stage {name!r}" if name is not None else f"while {what}"
        if isinstance(error, PoisonRecord):
            place = "not treated any more"
        notes = [f"{place} ({worker}), record {at} of the job"]
        if at < len(self._shape.source):
            notes.append(self._shape.source.describe(at, 0))
        return tuple(notes)

    def _noting(self, body: Body) -> Body:
        """The body, with notes of what was taken by stages that take records ahead."""
        parts = []
        taken: Callable[[], int] = lambda: self._chain.cursor.position - 1  # noqa: E731
        for part in body.parts:
            stage = part.stage
            if stage is not None:
                self._at[stage.name] = taken
            if stage is not None and isinstance(stage.operation, AsyncMap):
                noting = _Ahead(stage.operation, taken)
                taken = noting.now
                self._at[stage.name] = noting.leave
                self._ahead.append(noting)
                part = replace(part, stage=replace(stage, operation=noting))
            parts.append(part)
        return replace(body, parts=tuple(parts))


class _Entering(Ledger):
    """Tells what stages leave out; whether that is too much is judged where all of it is known."""

    def __init__(
        self,
        enter: Callable[[Context, LeaveOut, BaseException, int, int], None],
        blame: Blame | None,
        notes: Nested | None,
    ) -> None:
        super().__init__()
        self._enter = enter
        self._blame = blame
        self._notes = notes

    def blame(self, context: Context, policy: LeaveOut | None) -> Blame | None:
        if self._blame is None or policy is None or decide(policy, PoisonRecord(), 0) is not policy:
            return None
        return self._blame.within(f"job/{context.stage}", context.epoch, self._notes)

    def left_out(
        self,
        context: Context,
        policy: LeaveOut,
        error: BaseException,
        place: tuple[int, int],
        tries: int,
    ) -> None:
        self._enter(context, policy, error, place[1], tries)

    def end(self, context: Context, policy: LeaveOut | None) -> None:
        """Not here."""


class _Ahead(Operation):
    """An operation that takes items ahead and gives one for each, in order: notes of which record
    each was made.

    Attributes:
        waiting: the positions of what it took and gave nothing for yet.
        position: of what it gave last.
        failed: whether it raised by itself.
        input_failed: whether what it reads did.
    """

    holds: ClassVar[bool] = True

    def __init__(self, inner: Operation, taken: Callable[[], int]) -> None:
        self._inner = inner
        self._taken = taken
        self.waiting: deque[int] = deque()
        self.position = -1
        self.failed = False
        self.input_failed = False

    def leave(self) -> int:
        """The position of the item for which nothing will come: the first that it waits for."""
        return self.waiting.popleft()

    def now(self) -> int:
        """The position of what it gave last."""
        return self.position

    @property
    def measures(self) -> tuple[str, ...]:
        return self._inner.measures

    @property
    def ratio(self) -> int | None:
        return self._inner.ratio

    @property
    def random(self) -> bool:
        return self._inner.random

    @property
    def places(self) -> bool:
        return self._inner.places

    @property
    def label(self) -> str:
        return self._inner.label

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        try:
            for item in self._inner.apply(self._noted(items), context):
                self.position = self.waiting.popleft()
                yield item
                del item
        except GeneratorExit:
            raise
        except BaseException:
            self.failed = not self.input_failed
            raise

    def _noted(self, items: Iterator[Any]) -> Iterator[Any]:
        try:
            for item in items:
                self.waiting.append(self._taken())
                yield item
                del item
        except GeneratorExit:
            raise
        except BaseException:
            self.input_failed = True
            raise
