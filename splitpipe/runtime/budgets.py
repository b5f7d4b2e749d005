"""Budgets of stages whose items are shared out among workers.

Responsible for: the `UnitLedger` of a pool's worker, which reports with every unit of work what its
stages left out of it, and where; and `Budgets`, with which the merge at the end of the region
judges that in the order of the stream.

Rules:
- a run fails at the place of the first item that is one too many, as if one process had treated all
  items in their order: no worker can know that alone, so none judges;
- a report travels with the message of its unit, and through pools behind: they place what it says
  among their own outputs;
- only stages with a budget are reported; without one nothing travels, and nothing is paid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from splitpipe.errors import BudgetExceeded
from splitpipe.pipeline.graph import Body
from splitpipe.pipeline.guarding import may_fail
from splitpipe.pipeline.stages import Context
from splitpipe.pipeline.stages.failed import FIRST, FailedItem, too_many
from splitpipe.pipeline.stages.policy import LeaveOut, leave_out_of
from splitpipe.runtime.book import Book, ChainLedger
from splitpipe.transport.base import Buffer
from splitpipe.transport.message import End, Message
from splitpipe.transport.pickling import dump, load

__all__ = ["Budgets", "UnitLedger", "budgeted"]


class _Gap(NamedTuple):
    """An item of a unit that was left out.

    Attributes:
        place: outputs of the unit before it.
        treated: items of the unit that the stage had seen, it among them.
        text: what is said of it; only of the first few.
    """

    place: int
    treated: int
    text: str


@dataclass(slots=True)
class _Report:
    """What a stage did in a unit.

    Attributes:
        policy: of the stage; only what `exceeded` needs of it.
        treated: items that it saw.
        gaps: those that it left out.
    """

    policy: LeaveOut
    treated: int = 0
    gaps: list[_Gap] = field(default_factory=list)

    def encoded(self, stage: str) -> tuple[Any, ...]:
        gaps = [tuple(gap) for gap in self.gaps]
        return stage, self.policy.budget, self.policy.after, self.treated, gaps

    @classmethod
    def decoded(cls, parts: tuple[Any, ...]) -> tuple[str, _Report]:
        stage, budget, after, treated, gaps = parts
        return stage, cls(LeaveOut(budget, after=after), treated, [_Gap(*gap) for gap in gaps])


def budgeted(body: Body) -> dict[str, LeaveOut]:
    """Return the policies of the stages of a body that have a budget, by their names."""
    ends = {stage.name: leave_out_of(may_fail(stage.operation)) for stage in body.stages}
    return {name: end for name, end in ends.items() if end is not None and end.budget is not None}


class UnitLedger(ChainLedger):
    """The ledger of a pool's worker, for one unit of work.

    Args:
        book: where to write.
        body: the stages.
        budgets: those of them that have one.
        made: how many outputs the unit has so far.
        before: the report that came with the unit, of stages before this pool.
    """

    def __init__(
        self,
        book: Book,
        body: Body,
        budgets: Mapping[str, LeaveOut],
        made: Callable[[], int],
        before: Buffer = b"",
    ) -> None:
        super().__init__(book, body)
        self._made = made
        self._own = {name: _Report(policy) for name, policy in budgets.items()}
        self._before = dict(map(_Report.decoded, load(before))) if before else {}
        self._passed = {name: _Report(one.policy) for name, one in self._before.items()}

    def judge(
        self, context: Context, policy: LeaveOut, failed: FailedItem, error: BaseException
    ) -> None:
        report = self._own.get(context.stage)
        if report is not None:
            text = str(failed) if len(report.gaps) < FIRST else ""
            report.gaps.append(_Gap(self._made(), context.counts.treated, text))

    def end(self, context: Context, policy: LeaveOut | None) -> None:
        """The unit ends, not the epoch."""

    def pass_on(self, values: int | None) -> None:
        """Place what was left out before the pool among what this unit has made so far.

        Args:
            values: how many values of the unit were taken; None: all.
        """
        for name, report in self._before.items():
            while report.gaps and (values is None or report.gaps[0].place <= values):
                gap = report.gaps.pop(0)
                self._passed[name].gaps.append(gap._replace(place=self._made()))
            if values is None:
                self._passed[name].treated = report.treated

    def report(self, contexts: Mapping[str, Context]) -> bytes:
        """Return what travels with the unit: nothing where nobody has a budget."""
        for name, one in self._own.items():
            if name in contexts:
                one.treated = contexts[name].counts.treated
        reports = {**self._passed, **self._own}
        return dump([one.encoded(name) for name, one in reports.items()]) if reports else b""


class _Sum:
    """What a stage did so far in an epoch."""

    __slots__ = ("first", "policy", "skipped", "treated")

    def __init__(self, policy: LeaveOut) -> None:
        self.policy = policy
        self.treated = self.skipped = 0
        self.first: list[str] = []

    def error(self, stage: str, epoch: int, treated: int) -> BudgetExceeded:
        error = too_many(stage, epoch, self.policy, self.skipped, treated, self.first)
        error.add_note(f"in stage {stage!r} (where its items are put in order), epoch {epoch}")
        return error


class Budgets:
    """Judges the reports of an epoch, in the order of its units.

    Example:
        >>> report = dump([("decode", 1, 1000, 8, [(0, 2, "item 1"), (5, 7, "item 6")])])
        >>> place, error = Budgets().take(report, epoch=0)
        >>> place, str(error)[:55]
        (5, "stage 'decode' left out 2 of the first 7 items of epoch")
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._sums: dict[str, _Sum] = {}

    def judge(self, message: Message) -> tuple[int, BudgetExceeded] | None:
        """Take note of a message. Where something is too much, return how many of its values come
        before that, and the error.
        """
        if isinstance(message, End):
            error = self.end(epoch=message.epoch)
            return None if error is None else (0, error)
        return self.take(message.report, epoch=message.epoch) if message.report else None

    def take(self, report: Buffer, *, epoch: int) -> tuple[int, BudgetExceeded] | None:
        """Take note of a unit. Where it has an item too many, return how many of its outputs come
        before that, and the error.
        """
        if epoch != self._epoch:  # the rest of the one before was not wanted: nobody judges it
            self._epoch, self._sums = epoch, {}
        found: tuple[int, BudgetExceeded] | None = None
        for parts in load(report):
            stage, one = _Report.decoded(parts)
            known = self._sums.setdefault(stage, _Sum(one.policy))
            over = self._add(known, stage, one, epoch)
            if over is not None and (found is None or over[0] < found[0]):
                found = over
        return found

    def end(self, *, epoch: int) -> BudgetExceeded | None:
        """The epoch is over: return the error where too many of its items were left out."""
        sums, self._sums = self._sums if epoch == self._epoch else {}, {}
        for stage, known in sums.items():
            if known.policy.exceeded(known.skipped, known.treated, ended=True):
                return known.error(stage, epoch, known.treated)
        return None

    @staticmethod
    def _add(
        known: _Sum, stage: str, report: _Report, epoch: int
    ) -> tuple[int, BudgetExceeded] | None:
        over: tuple[int, BudgetExceeded] | None = None
        for gap in report.gaps:
            known.skipped += 1
            if len(known.first) < FIRST and gap.text:
                known.first.append(gap.text)
            treated = known.treated + gap.treated
            if over is None and known.policy.exceeded(known.skipped, treated):
                over = gap.place, known.error(stage, epoch, treated)
        known.treated += report.treated
        return over
