"""What a worker does with a range of the source.

Responsible for: `Work`, from positions of the source to the bytes that are stored and what became
of each record; `Made`, which travels to the one process that writes.

Rules:
- what a range gives depends on its records alone, not on who works on it, nor on where ranges are
  cut (with ``by_task``: a range is a task);
- a record is taken as a whole: of one that failed nothing is kept;
- a column has one value for every record: none is ever moved to the place of another.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from splitpipe.codecs import Codec, Zstd, codec
from splitpipe.conversion.blocks import PackedColumn
from splitpipe.distinct import distinct
from splitpipe.errors import FormatError
from splitpipe.jobs.faults import JOB, Left
from splitpipe.jobs.shape import Shape
from splitpipe.jobs.stretch import Stretch
from splitpipe.jobs.summary import Counts
from splitpipe.order import Order
from splitpipe.pipeline.stages.base import Context
from splitpipe.pipeline.stages.failed import FailedItem, Ledger
from splitpipe.pipeline.stages.policy import LeaveOut, Policy, decide
from splitpipe.runtime.blame import Blame
from splitpipe.runtime.failure import annotate
from splitpipe.schema import Field, Schema

__all__ = ["Made", "Probed", "Rules", "Work"]

_MISSING: Final = -1
PROBE_S: Final = 0.1
"""How long is tried how fast a job is; the first record may take longer."""
PREVIEW_S: Final = 5.0
"""How long something to look at is waited for."""


class Made(NamedTuple):
    """What a range of the source became.

    Attributes:
        start, stop: the positions.
        columns: the stored values of each column.
        rows: how many there are of each.
        counts: what became of the records.
        left: what failed and was left out.
    """

    start: int
    stop: int
    columns: dict[str, PackedColumn]
    rows: int
    counts: Counts
    left: tuple[Left, ...]


class Probed(NamedTuple):
    """What the first records of a job tell.

    Attributes:
        schema: of what comes out; ``None`` if nothing did.
        record_s: about how long a record takes.
        items: the first of what comes out, as text.
        counts: what became of the records that were tried.
        left: what failed and was left out.
    """

    schema: Schema | None
    record_s: float
    items: tuple[str, ...]
    counts: Counts
    left: tuple[Left, ...]


@dataclass(frozen=True)
class Rules:
    """How records are treated.

    Attributes:
        column: whether there is to be one value for every record.
        missing: whether a value may be missing where the pipeline gave none.
        policy: what becomes of records that fail, where no stage says it.
        whole: positions of a task that is treated as one stream; 0 where records are by themselves.
    """

    column: bool = False
    missing: bool = False
    policy: Policy | None = None
    whole: int = 0


class Work:
    """Runs a job's graph over ranges of its source; travels to workers.

    Args:
        shape: of the graph.
        rules: how records are treated.
        schema: of what is written; ``None`` while only `probe` is called.
        zstd: how columns are compressed, with their dictionaries.
    """

    def __init__(
        self, shape: Shape, rules: Rules, schema: Schema | None, zstd: Mapping[str, Zstd]
    ) -> None:
        self.shape = shape
        self.rules = rules
        self.schema = schema
        self._zstd = dict(zstd)
        self._codecs: dict[str, Codec] = {}
        self.blame: Blame | None = None
        """Who is told which record it is at, and says which not to treat."""
        self.group = rules.whole or shape.group

    def with_schema(self, schema: Schema, zstd: Mapping[str, Zstd]) -> Work:
        """Return the same work, for records of this schema."""
        return Work(self.shape, self.rules, schema, zstd)

    def __call__(self, positions: tuple[int, int]) -> Made:
        """What the records of these positions become.

        Raises:
            Exception: of a stage, at a record that is not to be skipped; notes name it.
            FormatError: what came out cannot be stored, or is not one value for every record.
        """
        start, stop = positions
        assert self.schema is not None
        rows = _Rows(self.schema, self._all_codecs(self.schema), self.group)
        self._run(start, stop, rows)
        return rows.made(self, start, stop)

    def probe(self, positions: tuple[int, int], *, items: int = 1, at_most: int = 0) -> Probed:
        """Try some records, until the time is over and it is known what comes out.

        Args:
            positions: which may be tried.
            items: how many of what comes out are wanted.
            at_most: how many to stop at; 0 to go on for `PROBE_S`.
        """
        start, stop = positions
        seen = _Seen(items, at_most, column=self.rules.column)
        done, size = start, self.group
        try:
            while done < stop and not seen.over(known=self.schema is not None):
                last = min(done + size, stop)
                self._run(done, last, seen)
                done, size = last, size if self.rules.whole else 2 * size
        except _Enough:
            done = seen.owners[-1] + 1
        except Exception:
            # What fails here fails again, at its place: what comes before it is to be done first.
            if at_most or (seen.schema is None and self.schema is None):
                raise
            done = seen.owners[-1] + 1 if seen.owners else start + 1
        counts = _counted(seen.owners, self.group, (start, done), seen.left)
        texts, record_s = tuple(seen.texts), seen.record_s(start, done)
        return Probed(seen.schema, record_s, texts, counts, tuple(seen.left))

    @cached_property
    def _order(self) -> Order:
        return self.shape.source.order(0)

    def _all_codecs(self, schema: Schema) -> dict[str, Codec]:
        if not self._codecs:
            for name, field in schema.items():
                how = self._zstd.get(name) or Zstd()
                given = how.dictionary if isinstance(how.dictionary, bytes) else b""
                self._codecs[name] = codec(field, dictionary=given, level=how.level)
        return self._codecs

    # -- running -------------------------------------------------------------------------------

    def _run(self, start: int, stop: int, taker: _Taker) -> None:
        """Give everything that comes out to ``taker``, and tell it what failed."""
        todo, tries = [(start, stop)], Counter[int]()
        while todo:
            first, last = todo.pop()
            stretch = self._stretch(first, last, taker)
            try:
                stretch.run(taker.take)
            except Exception as error:
                annotate(error, stretch.where(error, "worker of a job"))
                at, waiting = stretch.failed_at()
                begin, end = self._group_of(at, start, stop)
                again = min(begin, self._group_of(waiting, start, stop)[0])
                policy = self.rules.policy
                decision = None if policy is None else decide(policy, error, tries[begin])
                if decision is None:
                    raise
                taker.forget(begin, again)
                tries[begin] += 1
                if isinstance(decision, float):
                    Ledger().pause(decision)
                    todo.append((again, last))
                    continue
                failed = self._failed(stretch, error, at, tries=tries[begin], policy=decision)
                described = self.described(at)
                taker.left.append(Left(JOB, at, end - begin, described, failed, decision))
                todo += [(one, two) for one, two in ((end, last), (again, begin)) if one < two]

    def _stretch(self, first: int, last: int, taker: _Taker) -> Stretch:
        def left_out(
            at: int, context: Context, policy: LeaveOut, error: BaseException, part: int, tries: int
        ) -> None:
            known = {"part": part, "tries": tries, "action": policy.action}
            failed = FailedItem.of(error, context, **self._known(at), **known)
            taker.left.append(Left(context.stage, at, 0, self.described(at), failed, policy))

        whole = self.rules.whole
        return Stretch(
            self.shape,
            self._order,
            first,
            last,
            epoch=first // whole if whole else 0,
            whole=bool(whole),
            left_out=left_out,
            blame=self.blame,
        )

    def _group_of(self, position: int, start: int, stop: int) -> tuple[int, int]:
        """The records that are treated together with one, among ``start`` to ``stop - 1``."""
        first = position // self.group * self.group
        return max(first, start), min(first + self.group, stop)

    def _failed(
        self, stretch: Stretch, error: Exception, at: int, *, tries: int, policy: LeaveOut
    ) -> FailedItem:
        stage = Context(stretch.stage_of(error) or JOB)
        return FailedItem.of(error, stage, **self._known(at), tries=tries, action=policy.action)

    def _known(self, at: int) -> dict[str, Any]:
        """What is known of the record at a position."""
        return {
            "position": at,
            "source": repr(self.shape.source),
            "record": int(self._order[at]),
            "key": self._key_of(at),
        }

    def _key_of(self, position: int) -> str | None:
        records = getattr(self.shape.source.sequence, "records", None)
        catalog = getattr(records, "catalog", None)
        if catalog is None:
            return None
        (key,) = catalog.keys(self._order.indices(position, position + 1))
        return None if key is None else str(key)

    def described(self, position: int) -> str:
        """Which record lies at a position, in words."""
        return self.shape.source.describe(position, 0)

    def __reduce__(self) -> Any:
        return Work, (self.shape, self.rules, self.schema, self._zstd)

    def __repr__(self) -> str:
        return "the work of a job"


class _Taker(ABC):
    """Takes what comes out of a range.

    Attributes:
        owners: the positions of the records that it came out of, ascending.
        left: what failed and was left out.
    """

    def __init__(self) -> None:
        self.owners: list[int] = []
        self.left: list[Left] = []

    @abstractmethod
    def take(self, position: int, item: Any) -> None:
        """Add what came out of a record."""

    def forget(self, position: int, again: int) -> None:
        """Drop what came out of the record at `position` and of those behind it.

        Args:
            position: of the record.
            again: from which on records will come again.
        """
        while self.owners and self.owners[-1] >= position:
            self.owners.pop()
        self.left = [one for one in self.left if one.position < again]


class _Rows(_Taker):
    """What came out of a range so far, as it is stored.

    Args:
        schema: of what comes out.
        codecs: of its columns.
        group: records that are treated together.
    """

    def __init__(self, schema: Schema, codecs: Mapping[str, Codec], group: int) -> None:
        super().__init__()
        self._schema = schema
        self._codecs = list(codecs.items())
        self._group = group
        self._values: list[list[bytes | None]] = [[] for _ in codecs]

    def take(self, position: int, item: Any) -> None:
        """Add what came out of a record.

        Raises:
            FormatError: it does not fit.
        """
        given = self._schema.values_of(item)
        row: list[bytes | None] = []
        for name, packer in self._codecs:
            value = given.get(name)
            try:
                row.append(None if value is None else packer.encode(value))
            except FormatError as error:
                where = "" if self._schema.bare else f"field {name!r}: "
                raise FormatError(f"{where}{error}") from error
        for values, stored in zip(self._values, row, strict=True):
            values.append(stored)
        self.owners.append(position)

    def forget(self, position: int, again: int) -> None:
        super().forget(position, again)
        for values in self._values:
            del values[len(self.owners) :]

    def made(self, work: Work, start: int, stop: int) -> Made:
        """Return it all, once the range is done."""
        counts = _counted(self.owners, self._group, (start, stop), self.left)
        if work.rules.column:
            self._align(work, start, stop)
        packed = {
            name: _packed(values)
            for (name, _), values in zip(self._codecs, self._values, strict=True)
        }
        return Made(start, stop, packed, len(self._values[0]), counts, tuple(self.left))

    def _align(self, work: Work, start: int, stop: int) -> None:
        """Make it one value for every record.

        Raises:
            FormatError: a record has none, or several.
        """
        (values,) = self._values
        aligned: list[bytes | None] = []
        failed = {one.position // self._group for one in self.left}
        at, first = 0, start
        while first < stop:
            group = first // self._group
            end = min((group + 1) * self._group, stop)
            count = 0
            while at + count < len(self.owners) and self.owners[at + count] < end:
                count += 1
            if count == end - first:
                aligned += values[at : at + count]
            elif not count and (group in failed or work.rules.missing):
                aligned += [None] * (end - first)
            else:
                raise _uneven(work, first, end, count)
            at, first = at + count, end
        values[:] = aligned


def _uneven(work: Work, first: int, end: int, count: int) -> FormatError:
    which = work.described(first)
    if end - first > 1:
        which = f"{end - first} records treated together, the first of them {which},"
    advice = (
        "give the job missing=True, so that the value of what is filtered out is missing"
        if not count
        else "a job for a new dataset may make several records of one"
    )
    return FormatError(
        f"the pipeline gave {count} values for {which} and a column has one for every record: "
        f"{advice}"
    )


def _counted(
    owners: Sequence[int], group: int, positions: tuple[int, int], left: Sequence[Left]
) -> Counts:
    """What became of the records at ``positions``, of which ``owners`` gave something."""
    start, stop = positions
    gave = distinct(np.asarray(owners, dtype=np.int64) // group)
    failed = distinct(np.array([one.position for one in left], dtype=np.int64) // group)
    used = _records(gave, group, positions)
    # Where only a part of a record failed, something came of it nevertheless.
    skipped = _records(np.setdiff1d(failed, gave), group, positions)
    return Counts(stop - start, used, stop - start - used - skipped, skipped, len(owners))


def _records(groups: npt.NDArray[np.int64], group: int, positions: tuple[int, int]) -> int:
    """How many records groups have, among those at ``positions``."""
    start, stop = positions
    sizes = np.minimum((groups + 1) * group, stop) - np.maximum(groups * group, start)
    return int(sizes.sum())


def _packed(values: Sequence[bytes | None]) -> PackedColumn:
    lengths = [_MISSING if value is None else len(value) for value in values]
    joined = b"".join(value for value in values if value is not None)
    return PackedColumn(np.frombuffer(joined, np.uint8), np.array(lengths, dtype=np.int64))


class _Enough(BaseException):
    """Enough was seen. No stage may swallow it."""


class _Seen(_Taker):
    """What the first records give, to look at.

    Args:
        items: how many are wanted.
        at_most: how many to stop at; 0 goes on until the time is over.
        column: whether they are values of a column.
    """

    def __init__(self, items: int, at_most: int, *, column: bool) -> None:
        super().__init__()
        self.schema: Schema | None = None
        self.texts: list[str] = []
        self._wanted = items
        self._at_most = at_most
        self._column = column
        self._began = time.perf_counter()
        self._first: tuple[int, float] | None = None

    def over(self, *, known: bool) -> bool:
        """Whether the time is over, and it is known what comes out."""
        elapsed = time.perf_counter() - self._began
        if self._at_most:
            return elapsed > PREVIEW_S
        return elapsed > PROBE_S and (known or self.schema is not None)

    def take(self, position: int, item: Any) -> None:
        self.owners.append(position)
        if len(self.texts) < self._wanted:
            self.texts.append(repr(item))
        if self.schema is None and not (self._column and item is None):
            self.schema = Schema(Field.of(item)) if self._column else Schema.infer(item)
        now = time.perf_counter()
        if self._first is None:
            self._first = position, now
        if self._at_most:
            enough = len(self.owners) >= self._at_most
        else:
            enough = now - self._first[1] > PROBE_S
        if enough and self.schema is not None:
            raise _Enough

    def record_s(self, start: int, done: int) -> float:
        """About how long a record takes; the first may have had a model to load."""
        now = time.perf_counter()
        if self._first is not None and done > self._first[0] + 1:
            return (now - self._first[1]) / (done - self._first[0] - 1)
        return (now - self._began) / max(1, done - start)
