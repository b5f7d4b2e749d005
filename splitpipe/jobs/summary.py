"""What a job counts, and what it tells.

Responsible for: `Counts`, whose numbers must add up, `JobProgress`, what is told while it runs, and
`JobSummary`, what is told at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Counts", "JobProgress", "JobSummary"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of records of the source; each is counted once.

    Attributes:
        read: how many were taken of the source.
        used: of how many something was written.
        filtered: of how many the pipeline made nothing.
        skipped: how many failed, and were left out as `on_error` says.
        written: records, or values of the column, that were written.

    Example:
        >>> Counts(3, 2, 1, 0, 5) + Counts(1, 0, 0, 1, 0)
        Counts(read=4, used=2, filtered=1, skipped=1, written=5)
    """

    read: int = 0
    used: int = 0
    filtered: int = 0
    skipped: int = 0
    written: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.used + other.used,
            self.filtered + other.filtered,
            self.skipped + other.skipped,
            self.written + other.written,
        )

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.read - other.read,
            self.used - other.used,
            self.filtered - other.filtered,
            self.skipped - other.skipped,
            self.written - other.written,
        )

    def check(self, *, read: int, written: int) -> None:
        """Raise unless the numbers add up.

        Args:
            read: how many records of the source are done.
            written: how many there are where they were written.

        Raises:
            AssertionError: they do not: something was lost, or counted twice.
        """
        if self.read != self.used + self.filtered + self.skipped:
            raise AssertionError(f"a record was counted twice, or not at all: {self}")
        if (self.read, self.written) != (read, written):
            raise AssertionError(f"{read} records are done and {written} are written, not {self}")


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is.

    Attributes:
        done: records of the source that are done and committed, by earlier runs too.
        made: of how many the results have come, committed or not.
        stop: the record at which this run ends.
        counts: of this run, committed or not.
    """

    done: int
    made: int
    stop: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class JobSummary:
    """What one run of a job did.

    Attributes:
        output: the dataset that was written.
        column: the column of it, if the job makes one.
        records: of the source.
        resumed_at: how many of them earlier runs had done.
        done: how many are done now.
        tasks: how many this run committed.
        counts: of this run.
        total: of all runs together.
        finished: whether everything is done.
        elapsed_s: how long it took.
        faults: what was wrong with the first records that were skipped in this run.
        workers: how many made it; ``"auto"`` where the run found out.

    Example:
        >>> JobSummary("out", None, 10, 4, 10, 2, Counts(6, 6, 0, 0, 6), Counts(10, 10, 0, 0, 10),
        ...            True, 2.0).rate
        3.0
    """

    output: str
    column: str | None
    records: int
    resumed_at: int
    done: int
    tasks: int
    counts: Counts
    total: Counts
    finished: bool
    elapsed_s: float
    faults: Sequence[str] = field(default=())
    workers: int | str = 0

    @property
    def rate(self) -> float:
        """Records of the source a second, in this run."""
        return self.counts.read / max(1e-9, self.elapsed_s)

    def to_json(self) -> Mapping[str, Any]:
        """The summary as JSON."""
        return {**asdict(self), "faults": list(self.faults), "rate": self.rate}
