"""What becomes of an item that fails: policies, as values.

Responsible for: `skip`, `retry` and `quarantine`, what a user may say as ``on_error``, and the rule
which failures a policy may be about at all. What a policy decides is done by
`splitpipe.pipeline.stages.guarded`.

Rules:
- an item is left out whole, at its place, or the run fails; nothing is put in its stead;
- only what the data or the work on one item can bring about may be left out or tried again:
  `Exception`, but not `MemoryError`, and of splitpipe's own errors those of stored bytes, those of
  storage, and an item that ends its worker (`PoisonRecord`), alone. What the machinery of a run
  raises, Ctrl-C and SystemExit always end it;
- which items are left out depends on them alone, never on workers, executors or time. (A retry that
  succeeds gives the item that a first try would have given.)
"""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from splitpipe.errors import (
    CacheFull,
    FormatError,
    GraphError,
    LockedError,
    PoisonRecord,
    SplitpipeError,
    StorageError,
)
from splitpipe.pipeline.stages.checks import number, whole

__all__ = [
    "RAISE",
    "LeaveOut",
    "Policy",
    "Raise",
    "Retry",
    "decide",
    "leave_out_of",
    "policy_of",
    "quarantine",
    "retry",
    "skip",
]

JUDGED_AFTER = 1000
"""Items that a stage has treated before a budget that is a share is held against them."""

MOST_DELAY_S = 60.0
"""What a retry waits at most."""

Errors: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"


@dataclass(frozen=True)
class Raise:
    """The run fails, with the user's own exception at the item's place."""

    leaves_out: ClassVar[bool] = False

    def __str__(self) -> str:
        return "raise"


RAISE = Raise()


@dataclass(frozen=True)
class LeaveOut:
    """The item is left out and counted; see `skip` and `quarantine`, which make it."""

    budget: int | float | None = None
    errors: tuple[type[BaseException], ...] = (Exception,)
    after: int = JUDGED_AFTER
    path: str | None = None
    sync: bool = False
    leaves_out: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", _budget(self.budget))
        object.__setattr__(self, "errors", _errors(self.errors))
        object.__setattr__(self, "after", whole("after", self.after, least=1))

    def exceeded(self, skipped: int, treated: int, *, ended: bool = False) -> bool:
        """Whether `skipped` of `treated` items are too many.

        Args:
            skipped: items that were left out.
            treated: items that the stage has seen, those among them.
            ended: whether no more will come.
        """
        if self.budget is None:
            return False
        if isinstance(self.budget, int):
            return skipped > self.budget
        return (ended or treated >= self.after) and skipped > self.budget * treated

    @property
    def action(self) -> str:
        """What is said of an item that it leaves out."""
        return "skipped" if self.path is None else "quarantined"

    def __str__(self) -> str:
        return "skip" if self.path is None else "quarantine"


@dataclass(frozen=True)
class Retry:
    """The item is tried again, in its place; see `retry`, which makes it."""

    count: int
    delay_s: float = 0.1
    then: Policy = RAISE
    errors: tuple[type[BaseException], ...] = (Exception,)
    most_delay_s: float = MOST_DELAY_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", whole("retry", self.count, least=1))
        object.__setattr__(self, "delay_s", number("delay_s", self.delay_s, least=0.0))
        most = number("most_delay_s", self.most_delay_s, least=0.0)
        object.__setattr__(self, "most_delay_s", most)
        object.__setattr__(self, "errors", _errors(self.errors))
        then = policy_of(self.then)
        object.__setattr__(self, "then", RAISE if then is None else then)

    @property
    def leaves_out(self) -> bool:
        return self.then.leaves_out

    def delay(self, tries: int) -> float:
        """Return how long to wait after so many tries: twice as long each time, and by chance up to
        a half more or less, so that those who failed together do not come back together.
        """
        delay_s = min(self.most_delay_s, math.ldexp(self.delay_s, min(tries, 64)))
        return delay_s * _chance.uniform(0.5, 1.5)

    def __str__(self) -> str:
        return f"retry({self.count}), then {self.then}"


Policy: TypeAlias = Raise | LeaveOut | Retry

_chance = random.Random()
"""Not the process-wide generator: a stage of the user's may draw from that one."""


def skip(
    budget: int | float | None = None,
    *,
    errors: Errors = Exception,
    after: int = JUDGED_AFTER,
) -> LeaveOut:
    """Leave out what fails, and count it: ``on_error=sp.skip()``, or ``on_error="skip"`` for short.

    Args:
        budget: how many items of an epoch a stage may leave out: a whole number of them, or a
            share (a float between 0 and 1) of those that it has seen. One more, and the run fails
            with `BudgetExceeded`, at the place of that item. None: any number.
        errors: the exceptions that it is about; others are raised.
        after: items that a stage has seen before a share is held against them; an epoch of fewer is
            judged at its end.

    Raises:
        GraphError: the budget is neither, or such errors can never be left out.

    Example:
        >>> import splitpipe as sp
        >>> with sp.Pipeline(["1", "two", "3"]).map(int, on_error="skip").loader(
        ...     executor="inline"
        ... ) as loader:
        ...     print(list(loader), [failed.message for failed in loader.errors()])
        [1, 3] ["invalid literal for int() with base 10: 'two'"]
    """
    return LeaveOut(budget, _errors(errors), after)


def quarantine(
    path: str | os.PathLike[str],
    *,
    budget: int | float | None = None,
    errors: Errors = Exception,
    after: int = JUDGED_AFTER,
    sync: bool = False,
) -> LeaveOut:
    """As `skip`, and write down what was left out: one line of JSON an item, for
    ``splitpipe quarantine`` and `read_quarantine`.

    Any number of workers and programs may write to one file; a line is written at once, by the
    worker in which the item failed, before the run goes on.

    Args:
        path: of the file; it is appended to.
        budget: as for `skip`.
        errors: as for `skip`.
        after: as for `skip`.
        sync: bring each line to the disk before the run goes on. Without it a line survives the end
            of any process, but the last few may be lost when the machine itself fails.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = f"{tempfile.mkdtemp()}/bad.jsonl"
        >>> pipe = sp.Pipeline(["1", "two", "3"]).map(int, on_error=sp.quarantine(path))
        >>> list(pipe), [(one.stage, one.position) for one in sp.read_quarantine(path)]
        ([1, 3], [('int', 1)])
    """
    return LeaveOut(budget, _errors(errors), after, os.path.abspath(os.fspath(path)), bool(sync))


def retry(
    count: int,
    *,
    delay_s: float = 0.1,
    then: Policy | str = RAISE,
    errors: Errors = Exception,
    most_delay_s: float = MOST_DELAY_S,
) -> Retry:
    """Try an item again where it failed, up to `count` times: for reads that fail now and then.

    A function that asks for ``rng`` gets the same generator for every try. What it did to its
    argument before it failed stays done.

    Args:
        count: tries after the first.
        delay_s: before the first of them; twice as long before each one after, and by chance up to
            a half more or less.
        then: what becomes of an item that fails still: ``"raise"``, ``"skip"``, or a policy.
        errors: the exceptions that are worth another try; others go to `then` at once.
        most_delay_s: what is waited at most.

    Raises:
        GraphError: a number is out of range, or such errors can never be tried again.

    Example:
        >>> import splitpipe as sp
        >>> failures = iter([OSError("busy")])
        >>> def flaky(x):
        ...     for error in failures:
        ...         raise error
        ...     return x
        >>> list(sp.Pipeline([1, 2]).map(flaky, on_error=sp.retry(2, delay_s=0)))
        [1, 2]
    """
    after = policy_of(then)
    assert after is not None
    return Retry(count, delay_s, after, _errors(errors), most_delay_s)


def policy_of(value: object) -> Policy | None:
    """Return the policy that a user means by `value`; None where he says nothing.

    Raises:
        GraphError: it is none.

    Example:
        >>> policy_of("skip").action, policy_of(None)
        ('skipped', None)
    """
    if value is None or isinstance(value, (Raise, LeaveOut, Retry)):
        return value
    if value == "raise":
        return RAISE
    if value == "skip":
        return LeaveOut()
    raise GraphError(
        "on_error must be 'raise', 'skip', sp.skip(...), sp.retry(...) or sp.quarantine(path), "
        f"not {value!r}"
    )


def leave_out_of(policy: Policy | None) -> LeaveOut | None:
    """Return the end of a policy, where that leaves out."""
    while isinstance(policy, Retry):
        policy = policy.then
    return policy if isinstance(policy, LeaveOut) else None


def decide(policy: Policy, error: BaseException, tries: int) -> float | LeaveOut | None:
    """Return what to do about an item that failed: wait so many seconds and try it again, leave it
    out, or (None) raise.

    Args:
        policy: of its stage.
        error: what it raised.
        tries: how often it was tried again already.
    """
    while isinstance(policy, Retry):
        if _covers(policy.errors, error):
            if tries < policy.count:
                return policy.delay(tries)
            tries -= policy.count
        policy = policy.then
    if isinstance(policy, LeaveOut) and _covers(policy.errors, error):
        return policy
    return None


def _covers(errors: tuple[type[BaseException], ...], error: BaseException) -> bool:
    cause = error.__cause__
    # A StopIteration of user code comes as a RuntimeError (PEP 479): it is meant by either name.
    stopped = isinstance(error, RuntimeError) and isinstance(cause, StopIteration)
    named = isinstance(error, errors) or (stopped and isinstance(cause, errors))
    return named and _of_an_item(type(error))


def _of_an_item(kind: type[BaseException]) -> bool:
    """Whether an item, and not the machinery, may be the reason of such an error."""
    if issubclass(kind, SplitpipeError):
        stored = issubclass(kind, (FormatError, StorageError, PoisonRecord))
        return stored and not issubclass(kind, (CacheFull, LockedError))
    return issubclass(kind, Exception) and not issubclass(kind, MemoryError)


def _errors(errors: Any) -> tuple[type[BaseException], ...]:
    made = errors if isinstance(errors, tuple) else (errors,)
    if not made:
        raise GraphError("errors= names no exception; leave it out, or say on_error='raise'")
    for kind in made:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise GraphError(f"errors= takes types of exceptions, not {kind!r}")
        if kind is not SplitpipeError and not _of_an_item(kind):
            raise GraphError(
                f"{kind.__name__} is never left out or tried again: it is no fault of an item; "
                "name the exceptions that reading or treating one item raises"
            )
    return made


def _budget(budget: Any) -> int | float | None:
    if budget is None:
        return None
    if isinstance(budget, float):
        made = number("budget", budget, least=0.0)
        if made > 1.0:
            raise GraphError(
                f"a budget that is a share lies between 0 and 1, not {budget!r}; a whole number "
                "says how many items"
            )
        return made
    return whole("budget", budget, least=0)
