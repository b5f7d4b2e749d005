"""A policy at work.

Responsible for: `Guard`, which applies a policy for every kind of stage that takes one: waits and
tries again, counts, enters what is left out in the ledger, or raises.
"""

from __future__ import annotations

from splitpipe.pipeline.stages.base import Context
from splitpipe.pipeline.stages.policy import Policy, decide, leave_out_of

__all__ = ["Guard"]


class Guard:
    """A policy at work, in one pass over a stage.

    Args:
        policy: what to do about items that fail.
        context: of the stage.
    """

    __slots__ = ("_blame", "_context", "_policy", "_treated", "_tries")

    def __init__(self, policy: Policy, context: Context) -> None:
        self._policy = policy
        self._context = context
        self._treated = -1
        self._tries = 0
        self._blame = context.ledger.blame(context, leave_out_of(policy))

    @property
    def watched(self) -> bool:
        """Whether `begin` and `end` have to be called around every item."""
        return self._blame is not None

    def begin(self, place: tuple[int, int] | None = None, *, items: int = 1) -> bool:
        """The item that was taken last is about to be treated: return whether it is to be. If not,
        it is left out, and counted, as if it had failed.

        Args:
            place: of the item; None: the one that the context says.
            items: how many are left out with it.

        Raises:
            BudgetExceeded: one more must not be left out.
        """
        if self._blame is None:
            return True
        place = self._place() if place is None else place
        error = self._blame.begin(place)
        if error is None:
            return True
        self.leave_out(error, place, tries=1, items=items)
        return False

    def end_item(self) -> None:
        """It was treated."""
        if self._blame is not None:
            self._blame.end()

    def failed(
        self, error: Exception, place: tuple[int, int] | None = None, *, items: int = 1
    ) -> bool:
        """Say what becomes of the item that was taken last and raised `error`: whether it is to be
        tried again. If not, it is left out, and counted.

        Args:
            error: what was raised.
            place: of the item; None: the one that the context says.
            items: how many are left out with it.

        Raises:
            Exception: `error`, where the policy is to raise it.
            BudgetExceeded: one more must not be left out.
        """
        counts = self._context.counts
        if counts.treated != self._treated:
            self._treated, self._tries = counts.treated, 0
        wait_s = self.again(error, self._tries)
        if wait_s is None:
            self.leave_out(error, place, tries=self._tries + 1, items=items)
            return False
        self._tries += 1
        self._context.ledger.pause(wait_s)
        return True

    def again(self, error: BaseException, tries: int) -> float | None:
        """Return how many seconds to wait before another try, which is counted; None: no more."""
        decision = decide(self._policy, error, tries)
        if not isinstance(decision, float):
            return None
        self._context.counts.retry()
        return decision

    def leave_out(
        self, error: BaseException, place: tuple[int, int] | None, *, tries: int, items: int = 1
    ) -> None:
        """Leave out the item at `place`, or raise `error`; see `failed`."""
        policy = leave_out_of(self._policy)
        if policy is None or decide(policy, error, 0) is not policy:
            raise error
        context, counts = self._context, self._context.counts
        counts.leave_out(items, quarantined=policy.path is not None)
        place = self._place() if place is None else place
        context.ledger.left_out(context, policy, error, place, tries)

    def _place(self) -> tuple[int, int]:
        at = self._context.place
        return (self._context.counts.treated - 1, 0) if at is None else (at.number, at.part)

    def end(self) -> None:
        """There are no more items.

        Raises:
            BudgetExceeded: too many of all were left out.
        """
        self._context.ledger.end(self._context, leave_out_of(self._policy))
