"""Who has had which batch of one cursor.

Responsible for: `Ledger`, the books of a cursor: what is still to come, what is granted to whom,
what was given back, what was acknowledged; and its JSON, which is the whole truth of the cursor.

Rules:
- pure: no clock, no socket, no file. Batches are numbers from 0 on, sessions are names;
- a batch is granted to one session at a time. It is granted again only after it was given back, by
  that session or in its name, or after somebody moved the cursor (`seek`);
- what was given back is granted before anything new, in order;
- everything that a session says may come twice, or late: what was said once is not counted again;
- at every moment ``completed + in_progress + returned + filtered + failed`` is the number of
  records that were read for the batches which were granted at least once.

A number below `next` is in exactly one of these: held by a session, *returned*, *completed*, or
*skipped* (a state of another run began behind it, and nobody ever had it). `todo` are those that
wait to be granted: all that are returned, and what a seek wants again of the completed and skipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.server.feed.holding import Holding, Run, count_of, samples_of
from splitpipe.server.feed.ranges import (
    NOTHING,
    Ranges,
    count,
    difference,
    intersection,
    normal,
    numbers,
    union,
)

__all__ = ["Agreement", "Counts", "Ledger", "Weight"]

Weight = tuple[int, int, int]
"""Of one batch: its samples; records filtered out, and records failed, since the batch before."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a cursor has come to, in samples of batches and records left out.

    Attributes:
        completed: samples that were acknowledged.
        in_progress: samples that sessions hold.
        returned: samples that were given back, and wait for somebody.
        filtered: records that a filter left out.
        failed: records left out because of an error.
    """

    completed: int
    in_progress: int
    returned: int
    filtered: int
    failed: int

    @property
    def read(self) -> int:
        """Records that were read for all this."""
        return self.completed + self.in_progress + self.returned + self.filtered + self.failed


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a session that comes back is told.

    Attributes:
        resend: batches that are granted to it and never arrived.
        dropped: batches that it holds and that are not its own any more: it must forget them.
    """

    resend: Ranges
    dropped: Ranges


class Ledger:
    """The books of one cursor.

    Args:
        state: what the JSON of `Ledger.text` says; None: nothing was granted yet.

    Example:
        >>> import json
        >>> ledger = Ledger()
        >>> ledger.grant("a", 0, [(32, 0, 0), (30, 2, 0)])
        >>> ledger.acknowledge("a", ((0, 1),))
        1
        >>> ledger.give_back("a")
        1
        >>> ledger.counts
        Counts(completed=32, in_progress=0, returned=30, filtered=2, failed=0)
        >>> ledger.place(), Ledger(json.loads(ledger.text)).counts == ledger.counts
        ((1, 2), True)
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        kept = state or {}
        self.next: int = kept.get("next", 0)
        """The first number that was never granted and not skipped."""
        self.todo: Ranges = _ranges(kept, "todo")
        self._skipped: Ranges = _ranges(kept, "skipped")
        self._returned = Holding(kept.get("returned", ()))
        self._held: dict[str, Holding] = {
            session: Holding(runs, holder=session)
            for session, runs in kept.get("granted", {}).items()
        }
        self._completed: int = kept.get("completed", 0)
        self._filtered: int = kept.get("filtered", 0)
        self._failed: int = kept.get("failed", 0)
        self._members: dict[str, str] = {}
        self._moved = set(self._held)
        self._moved_by: str | None = kept.get("moved_by")
        self._tail: tuple[int, int] | None = None
        if kept.get("tail") is not None:
            self._tail = (kept["tail"][0], kept["tail"][1])

    @property
    def text(self) -> str:
        """Its whole state, as JSON."""
        for session in self._moved:
            held = self._held.get(session)
            if held is None:
                self._members.pop(session, None)
            else:
                self._members[session] = held.member
        self._moved.clear()
        granted = ",".join(self._members.values())
        return (
            f'{{"next":{self.next},"todo":{json.dumps(self.todo)},'
            f'"skipped":{json.dumps(self._skipped)},"returned":{self._returned.text},'
            f'"granted":{{{granted}}},"completed":{self._completed},'
            f'"filtered":{self._filtered},"failed":{self._failed},'
            f'"moved_by":{json.dumps(self._moved_by)},"tail":{json.dumps(self._tail)}}}'
        )

    @property
    def counts(self) -> Counts:
        """What it has come to."""
        filtered, failed = self._tail or (0, 0)
        return Counts(
            completed=self._completed,
            in_progress=sum(held.samples for held in self._held.values()),
            returned=self._returned.samples,
            filtered=self._filtered + filtered,
            failed=self._failed + failed,
        )

    @property
    def sessions(self) -> tuple[str, ...]:
        """Who holds something."""
        return tuple(self._held)

    def held(self, session: str) -> Ranges:
        """Batches that are granted to it, and not acknowledged."""
        return self._held[session].ranges if session in self._held else NOTHING

    def samples(self, session: str) -> int:
        """Samples of the batches that it holds."""
        return self._held[session].samples if session in self._held else 0

    @property
    def batches_completed(self) -> int:
        """Batches that were acknowledged."""
        held = sum(len(held) for held in self._held.values())
        return self.next - count(self._skipped) - held - len(self._returned)

    def place(self) -> tuple[int, int | None]:
        """The range that is to be granted next; it ends where something else comes first."""
        if self.todo:
            return self.todo[0]
        return self.next, None

    def grant(self, session: str, start: int, weights: Sequence[Weight]) -> None:
        """Give the batches from `start` on to `session`. They must lie inside of `place()`."""
        stop = start + len(weights)
        first, end = self.place()
        if start != first or (end is not None and stop > end):
            raise AssertionError(f"batches {start} to {stop} are not next: {first} to {end}")
        held = self._held.get(session)
        if held is None:
            held = self._held[session] = Holding(holder=session)
        self._moved.add(session)
        if end is None:
            self.next = stop
            self._count(weights)
        else:
            self._grant_again(start, weights)
            self.todo = difference(self.todo, ((start, stop),))
        held.put(start, [weight[0] for weight in weights])

    def _count(self, weights: Sequence[Weight]) -> None:
        for _, filtered, failed in weights:
            self._filtered += filtered
            self._failed += failed

    def _grant_again(self, start: int, weights: Sequence[Weight]) -> None:
        part = ((start, start + len(weights)),)
        returned = self._returned.take(part)
        back = set(numbers(normal(returned)))
        new = set(numbers(intersection(self._skipped, part)))
        for number, weight in enumerate(weights, start):
            if number in new:
                self._count([weight])
            elif number not in back:  # it was completed, and is wanted again
                self._completed -= weight[0]
        if new:
            self._skipped = difference(self._skipped, part)

    def acknowledge(self, session: str, ranges: Ranges) -> int:
        """`session` is done with these batches. Gives how many of them that completes.

        What was taken from it meanwhile counts as long as nobody else was given it.
        """
        done: list[Run] = []
        if session in self._held:
            done = self._held[session].take(ranges)
            self._after(session)
        late = self._returned.take(ranges)
        if late:
            self.todo = difference(self.todo, normal(late))
        self._completed += samples_of(done) + samples_of(late)
        return count_of(done) + count_of(late)

    def give_back(self, session: str, ranges: Ranges | None = None) -> int:
        """Take these batches from `session`; None: all. Gives how many it had of them."""
        held = self._held.get(session)
        if held is None:
            return 0
        part = held.ranges if ranges is None else intersection(held.ranges, ranges)
        taken = held.take(part)
        self._returned.merge(taken)
        self.todo = union(self.todo, part)
        self._after(session)
        return count_of(taken)

    def give_back_all(self) -> int:
        """Take what everybody holds. Gives how many batches that were."""
        return sum(self.give_back(session) for session in self.sessions)

    def reconcile(self, session: str, acknowledged: Ranges, held: Ranges) -> Agreement:
        """Agree with a session on what it has, after either side was away.

        Args:
            session: who comes back.
            acknowledged: what it has acknowledged, as far as it does not know that this was heard.
            held: what has arrived at it and is not acknowledged.
        """
        self.acknowledge(session, acknowledged)
        mine = self.held(session)
        lost = difference(held, mine)
        again = intersection(lost, self._returned.ranges)
        if again:
            own = self._held.setdefault(session, Holding(holder=session))
            own.merge(self._returned.take(again))
            self._moved.add(session)
            self.todo = difference(self.todo, again)
        return Agreement(resend=difference(mine, held), dropped=difference(lost, again))

    def seek(self, number: int, *, by: str | None = None) -> bool:
        """Move the cursor: all before `number` has been delivered, all from there on has not.

        Args:
            number: where to.
            by: the session that asks; when it asks a second time, it is its first request that is
                repeated, and nothing is done.

        Returns:
            Whether it was moved.
        """
        if by is not None and by == self._moved_by:
            return False
        self._moved_by = by
        self.give_back_all()
        before = ((0, number),)
        self._completed += samples_of(self._returned.take(before))
        if number > self.next:
            self._skipped = union(self._skipped, ((self.next, number),))
            self.next = number
        self.todo = normal_range(number, self.next)
        return True

    @property
    def has_ended(self) -> bool:
        """Whether it is known what was left out behind the last batch."""
        return self._tail is not None

    def lowest(self) -> int:
        """No batch before this one will be asked for again, unless somebody moves the cursor."""
        held = [one.lowest for one in self._held.values()]
        return min([self.place()[0], *held])

    def ends(self, filtered: int, failed: int) -> None:
        """Count what was left out behind the last batch. May be said again."""
        self._tail = (filtered, failed)

    def finished(self, total: int, *, session: str | None = None) -> bool:
        """Whether nothing is left of `total` batches, but perhaps what `session` itself holds."""
        if self.next < total or self.todo:
            return False
        return all(holder == session for holder in self._held)

    def check(self) -> None:
        """Raise AssertionError when the books do not add up."""
        parts = [held.ranges for held in self._held.values()]
        parts += [self._returned.ranges, self._skipped]
        together: Ranges = NOTHING
        for part in parts:
            assert not intersection(together, part), f"{part} is in two places"
            together = union(together, part)
        assert not difference(together, normal_range(0, self.next)), "beyond what was granted"
        assert not difference(self._returned.ranges, self.todo), "returned, and nobody gets it"
        for held in self._held.values():
            assert not intersection(held.ranges, self.todo), "held, and to be granted"
            assert held, "an empty holding is kept"

    def _after(self, session: str) -> None:
        """Something was taken from it."""
        self._moved.add(session)
        if not self._held[session]:
            del self._held[session]


def normal_range(start: int, stop: int) -> Ranges:
    """The numbers from `start` to `stop`, which may be none.

    Example:
        >>> normal_range(3, 3), normal_range(3, 5)
        ((), ((3, 5),))
    """
    return ((start, stop),) if start < stop else NOTHING


def _ranges(kept: Mapping[str, Any], name: str) -> Ranges:
    return tuple((start, stop) for start, stop in kept.get(name, ()))
