"""What becomes of records that fail.

Responsible for: `Left`, something that failed and was left out; `Judge`, which says when that is
too much; and `Quarantines`, in which a job that is done again has each line once.

Rules:
- budgets are judged in the order of the source, by one who sees all of it, also over several runs:
  a share is one of the records that were read so far;
- lines are written before the commit that they are part of. A run that was killed in between has
  written some that the next one finds, and does not write again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.failed import FIRST, FailedItem, too_many
from splitpipe.pipeline.stages.policy import LeaveOut, Policy, policy_of, quarantine
from splitpipe.runtime.quarantine import Quarantine, line_of
from splitpipe.storage import files

__all__ = ["JOB", "Judge", "Left", "Quarantines", "policy_said"]

JOB = "job"
"""Who leaves records out that no stage has a policy for."""


class Left(NamedTuple):
    """Something that failed and was left out.

    Attributes:
        judge: the stage whose policy it was, or `JOB`.
        position: of the record, in the order of the job.
        records: how many records were left out as a whole; 0 for a part of one.
        record: which record it is, in words.
        failed: what is known of it.
        policy: why it was left out.
    """

    judge: str
    position: int
    records: int
    record: str
    failed: FailedItem
    policy: LeaveOut

    @property
    def text(self) -> str:
        """It as a line."""
        more = f" (and {self.records - 1} with it)" if self.records > 1 else ""
        failed = self.failed
        return f"{self.record}{more} in stage {failed.stage!r}: {failed.error}: {failed.message}"


def policy_said(said: Policy | str | None) -> Policy | None:
    """What a user means by `said`, on a command line too.

    Raises:
        GraphError: nothing.

    Example:
        >>> policy_said("quarantine:bad.jsonl").action, policy_said("skip").action
        ('quarantined', 'skipped')
    """
    if isinstance(said, str):
        kind, _, path = said.partition(":")
        if kind == "quarantine" and path:
            return quarantine(path)
        if said not in ("raise", "skip"):
            raise GraphError(
                f"on_error must be 'raise', 'skip' or 'quarantine:PATH', or a policy (sp.skip, "
                f"sp.retry, sp.quarantine), not {said!r}"
            )
    return policy_of(said)


class Judge:
    """Counts what was left out, in the order of the source.

    Args:
        earlier: how many there were at the last commit, by who left them out.

    Attributes:
        counts: how many there are.
    """

    def __init__(self, earlier: Mapping[str, int]) -> None:
        self.counts = dict(earlier)
        self._first: dict[str, list[str]] = {}
        self._policies: dict[str, LeaveOut] = {}

    def enter(self, left: Left) -> None:
        """Take note of one more.

        Raises:
            BudgetExceeded: it was one too many.
        """
        count = self.counts[left.judge] = self.counts.get(left.judge, 0) + 1
        first = self._first.setdefault(left.judge, [])
        if len(first) < FIRST:
            first.append(left.text)
        self._policies[left.judge] = left.policy
        read = left.position + 1
        if left.policy.exceeded(count, read):
            raise too_many(left.judge, 0, left.policy, count, read, first)

    def end(self, read: int) -> None:
        """All records were read.

        Raises:
            BudgetExceeded: too many of them were left out.
        """
        for name, policy in self._policies.items():
            count = self.counts[name]
            if policy.exceeded(count, read, ended=True):
                raise too_many(name, 0, policy, count, read, self._first[name])


class Quarantines:
    """The quarantines of a job; other programs may write to them as well.

    Args:
        job: which job it is, in hexadecimal digits.
    """

    def __init__(self, job: str) -> None:
        self._job = job
        self._known: dict[str, set[Any]] = {}

    def add(self, left: Iterable[Left]) -> None:
        """Write a line for everything that has none yet, durably.

        Raises:
            StorageError: it cannot be written, or is no quarantine.
        """
        lines: dict[str, list[bytes]] = {}
        for one in left:
            path = one.policy.path
            if path is None:
                continue
            known = self._known_at(path)
            if one.failed.identity not in known:
                known.add(one.failed.identity)
                lines.setdefault(path, []).append(line_of(replace(one.failed, run=self._job)))
        for path, texts in lines.items():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with files.opened(path, flags, doing="open the quarantine") as descriptor:
                with files.translated("write to the quarantine", path):
                    data = memoryview(b"".join(texts))
                    while data:
                        data = data[os.write(descriptor, data) :]
                files.sync(descriptor, path)

    def _known_at(self, path: str) -> set[Any]:
        known = self._known.get(path)
        if known is None:
            items = Quarantine.read(path).items if files.is_there(path) else ()
            known = {item.identity for item in items if item.run == self._job}
            self._known[path] = known
        return known
