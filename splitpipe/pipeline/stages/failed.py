"""Items that failed, and how many may.

Responsible for: `FailedItem`, what is known of one; `Counts` of a stage; and the `Ledger`, in which
a stage enters what it leaves out, and which says when that is too much.

Rules:
- an item is named by numbers that do not depend on who treats it: the epoch, and its position in
  what numbers the items of its stage: a source, or the nearest stage before it over a whole stream;
- a budget is judged in the order of the stream. A ledger is for one who sees a whole epoch in that
  order; where several share an epoch, whoever puts it in order judges
  (`splitpipe.runtime.budgets`).
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from splitpipe.errors import BudgetExceeded
from splitpipe.pipeline.stages.policy import LeaveOut

if TYPE_CHECKING:
    from splitpipe.pipeline.stages.base import Context

__all__ = ["FIRST", "Counts", "FailedItem", "Ledger", "Watching", "too_many"]

FIRST = 3
"""How many items an error shows that says that there were too many."""

LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 8000


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item that failed and was left out.

    Attributes:
        stage: where it failed.
        epoch: in which pass over the source.
        position: which item: its number in `source`, from 0.
        part: which of the items with that position, where a stage before it made several; 0 where
            none did.
        repeat: in which pass of a `repeat` within the epoch.
        source: what gives the items their positions: a source, or a stage.
        record: index of the record there; None where that is not known.
        key: of that record; None where it has none.
        error: the type of what was raised.
        message: what it said.
        traceback: where it was raised.
        tries: how often it was tried.
        action: what was done about it: ``"skipped"`` or ``"quarantined"``.
        worker: who tried.
        run: number of the run, in hexadecimal digits.
        time: when, in UTC.

    Example:
        >>> str(FailedItem("decode", epoch=0, position=7, error="ValueError", message="bad"))
        'item 7: ValueError: bad'
    """

    stage: str
    epoch: int
    position: int
    part: int = 0
    repeat: int = 0
    source: str = ""
    record: int | None = None
    key: str | None = None
    error: str = ""
    message: str = ""
    traceback: str = field(default="", repr=False)
    tries: int = 1
    action: str = "skipped"
    worker: str = ""
    run: str = ""
    time: str = ""

    @classmethod
    def of(cls, error: BaseException, context: Context, **known: Any) -> Self:
        """Return the item that a stage treats, and that raised `error`."""
        text = "".join(traceback.format_exception(error)).rstrip()
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return cls(
            stage=context.stage,
            epoch=context.epoch & 0xFFFFFFFF,
            repeat=context.epoch >> 32,
            error=f"{module}{kind.__qualname__}",
            message=_text(error)[:LONGEST_MESSAGE],
            traceback=text[-LONGEST_TRACEBACK:],
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **known,
        )

    @property
    def identity(self) -> tuple[str, int, int, int, int]:
        """What tells it from every other item of a run: ``(stage, epoch, repeat, position,
        part)``.
        """
        return self.stage, self.epoch, self.repeat, self.position, self.part

    def to_json(self) -> str:
        """Return it as one line of JSON, without the end of the line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of_json(cls, text: str | bytes) -> Self:
        """Return the item that a line says.

        Raises:
            ValueError: it says none.
        """
        values = json.loads(text)
        names = {one.name for one in fields(cls)}
        if not isinstance(values, dict) or not {"stage", "epoch", "position"} <= values.keys():
            raise ValueError("a line without stage, epoch and position is no failed item")
        return cls(**{name: value for name, value in values.items() if name in names})

    def __str__(self) -> str:
        part = f" (part {self.part})" if self.part else ""
        return f"item {self.position}{part}: {self.error}: {_one_line(self.message)}"


@dataclass(slots=True)
class Counts:
    """What a stage with a policy did so far; one for all its passes in an epoch.

    Attributes:
        treated: items that it took.
        skipped: of these, left out because they failed, those quarantined among them.
        retried: tries beyond the first.
        quarantined: written down.
        outer: of the stage that this one is a part of; it counts what this one leaves out.
    """

    treated: int = 0
    skipped: int = 0
    retried: int = 0
    quarantined: int = 0
    outer: Counts | None = None

    def leave_out(self, items: int, *, quarantined: bool) -> None:
        """Count items that are left out."""
        self.skipped += items
        if quarantined:
            self.quarantined += items
        if self.outer is not None:
            self.outer.leave_out(items, quarantined=quarantined)

    def retry(self) -> None:
        """Count another try."""
        self.retried += 1
        if self.outer is not None:
            self.outer.retry()


class Watching(Protocol):
    """Who is told which item a stage is at."""

    def begin(self, place: tuple[int, int]) -> Exception | None:
        """The item at `place` is about to be treated: return why it is not to be; None: it is."""

    def end(self) -> None:
        """It was treated."""


class Ledger:
    """Where a stage enters what it leaves out, for one who sees a whole epoch in order."""

    def __init__(self) -> None:
        self._first: dict[str, list[str]] = {}

    def left_out(
        self,
        context: Context,
        policy: LeaveOut,
        error: BaseException,
        place: tuple[int, int],
        tries: int,
    ) -> None:
        """Take note that the item at `place` is left out, which `context` has counted.

        Args:
            context: of the stage.
            policy: why.
            error: what it raised.
            place: its number, and which part.
            tries: how often it was tried.

        Raises:
            BudgetExceeded: that is one too many.
        """
        failed = self.described(context, error, place, tries=tries, action=policy.action)
        self.enter(failed, policy)
        self.judge(context, policy, failed, error)

    def blame(self, context: Context, policy: LeaveOut | None) -> Watching | None:
        """Return what has to be told which item a stage is at, and says which not to treat; None:
        nobody asks.
        """
        return None

    def described(
        self, context: Context, error: BaseException, place: tuple[int, int], **known: Any
    ) -> FailedItem:
        """Return what is known of an item."""
        position, part = place
        return FailedItem.of(error, context, position=position, part=part, **known)

    def enter(self, failed: FailedItem, policy: LeaveOut) -> None:
        """Write it down, where somebody wants to read it."""

    def judge(
        self, context: Context, policy: LeaveOut, failed: FailedItem, error: BaseException
    ) -> None:
        """Raise `BudgetExceeded` if it was one too many."""
        first = self._first.setdefault(context.stage, [])
        if len(first) < FIRST:
            first.append(str(failed))
        counts = context.counts
        if policy.exceeded(counts.skipped, counts.treated):
            raise self._too_many(context, policy) from error

    def end(self, context: Context, policy: LeaveOut | None) -> None:
        """The stage has treated all items of the epoch.

        Raises:
            BudgetExceeded: too many of them were left out.
        """
        if policy is None or not context.counts.skipped:
            return
        if policy.exceeded(context.counts.skipped, context.counts.treated, ended=True):
            raise self._too_many(context, policy)

    def keep(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield `items` so that they may be held for a while, whatever their makers do to them."""
        return items

    def pause(self, seconds: float) -> None:
        """Wait before another try."""
        if seconds > 0:
            time.sleep(seconds)

    def _too_many(self, context: Context, policy: LeaveOut) -> BudgetExceeded:
        first = self._first.get(context.stage, ())
        counts = context.counts
        epoch = context.epoch & 0xFFFFFFFF
        return too_many(context.stage, epoch, policy, counts.skipped, counts.treated, first)


def too_many(
    stage: str, epoch: int, policy: LeaveOut, skipped: int, treated: int, first: Sequence[str]
) -> BudgetExceeded:
    """Return the error that says that a stage left out more than it may."""
    budget = policy.budget
    allowed = f"{budget:g} of them" if isinstance(budget, float) else f"{budget:,}"
    more = f", and {skipped - len(first):,} more" if skipped > len(first) else ""
    return BudgetExceeded(
        f"stage {stage!r} left out {skipped:,} of the first {treated:,} items of epoch {epoch}; "
        f"its budget is {allowed}. {'; '.join(first)}{more}. Allow more with budget=, or mend what "
        "is wrong: loader.errors(), or a quarantine, lists what failed"
    )


def _text(error: BaseException) -> str:
    """``str(error)``, of which user code may make a mess, as text that any file can hold."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "<its str() failed>"


def _one_line(text: str, longest: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}..."
