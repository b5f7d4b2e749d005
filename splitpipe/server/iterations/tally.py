"""Counting what became of all records, batch by batch.

Responsible for: `Tally`, of streams whose samples are looked at, and `Arithmetic`, of those where
it is known beforehand. Both make `Made` of `Done`, and `Ended` at the end.

Rules:
- a batch says what was left out since the batch before; what is left out behind the last one is
  said by the end;
- a tally can be told and gone on with right behind a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from splitpipe.errors import BudgetExceeded
from splitpipe.server.iterations.assemble import MOST_FAILURES
from splitpipe.server.iterations.batches import Batches
from splitpipe.server.iterations.finish import Done
from splitpipe.server.iterations.made import Ended, Failure, Made

__all__ = ["Arithmetic", "Count", "Tally"]


class Count(Protocol):
    """What counts a stream.

    Attributes:
        made: batches so far.
    """

    made: int

    def take(self, done: Done) -> Made | None:
        """Count a group; return its batch, if it has become one.

        Raises:
            BudgetExceeded: more has failed than may.
        """

    def end(self) -> Ended:
        """Return what there is to say at the end."""

    def to_json(self) -> dict[str, Any]:
        """Return it right behind a batch."""


class Tally:
    """Counts groups that carry the sums of their epoch.

    Args:
        budget: records that may fail; None: any number.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._budget = budget
        self.made = 0
        self._samples = 0
        self._all_failed = 0
        self._seen = (0, 0, 0)  # of this epoch: placed, filtered, failed
        self._filtered = 0
        self._failed = 0
        self._failures: tuple[Failure, ...] = ()

    def take(self, done: Done) -> Made | None:
        """See `Count`."""
        placed, filtered, failed = self._seen
        # Of records that were put into batches, those that did not arrive have failed.
        more = done.failed - failed + done.placed - placed - done.samples
        self._filtered += done.filtered - filtered
        self._seen = (0, 0, 0) if done.last else (done.placed, done.filtered, done.failed)
        if more:
            self._fail(more, done.failures)
        if done.frames is None:
            return None
        sequence, category = self.made, done.category
        self.made += 1
        self._samples += done.samples
        left_out = self._left_out()
        return Made(sequence, done.frames, done.samples, *left_out, category)

    def end(self) -> Ended:
        """See `Count`."""
        return Ended(self.made, self._samples, *self._left_out())

    def _fail(self, more: int, failures: tuple[Failure, ...]) -> None:
        self._failed += more
        self._all_failed += more
        self._failures = (*self._failures, *failures)[:MOST_FAILURES]
        if self._budget is not None and self._all_failed > self._budget:
            first = "; ".join(map(str, self._failures[:3]))
            raise BudgetExceeded(
                f"{self._all_failed} records of this iteration have failed; its skip_budget is "
                f"{self._budget}. {first}. Allow more, or mend what is wrong"
            )

    def _left_out(self) -> tuple[int, int, tuple[Failure, ...]]:
        made = self._filtered, self._failed, self._failures
        self._filtered, self._failed, self._failures = 0, 0, ()
        return made

    def to_json(self) -> dict[str, Any]:
        """See `Count`."""
        return {
            "made": self.made,
            "samples": self._samples,
            "failed": self._all_failed,
            "seen": list(self._seen),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any], budget: int | None = None) -> Tally:
        """Return what `to_json` has told."""
        tally = cls(budget)
        tally.made, tally._samples = int(told["made"]), int(told["samples"])
        tally._all_failed = int(told["failed"])
        placed, filtered, failed = map(int, told["seen"])
        tally._seen = placed, filtered, failed
        return tally


class Arithmetic:
    """Counts groups of which everything is known.

    Args:
        batches: all of them.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._each = batches.each
        self._dropped = batches.dropped
        self.made = batches.begin

    def take(self, done: Done) -> Made | None:
        """See `Count`."""
        sequence = self.made
        self.made = sequence + 1
        filtered = self._dropped if sequence and sequence % self._each == 0 else 0
        assert done.frames is not None
        return Made(sequence, done.frames, done.samples, filtered)

    def end(self) -> Ended:
        """See `Count`."""
        epochs = 1 if self._each else self._batches.epochs
        return Ended(self.made, self._batches.placed(self.made), self._dropped * epochs)

    def to_json(self) -> dict[str, Any]:
        """See `Count`."""
        return {"made": self.made}
