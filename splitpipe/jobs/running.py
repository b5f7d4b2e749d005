"""One run of a job, from beginning to end.

Responsible for: `run`, the order of things: look, lock, try, work, commit; and `preview`, what it
would do.

Rules:
- workers read, run the graph and encode; one process writes, in order, and commits each task;
- nothing is told to be done that is not committed, and the counts of every commit add up;
- a run that ends early, however it does, leaves the last commit, and the next run goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from splitpipe.errors import GraphError, ResumeError
from splitpipe.jobs.column import ColumnTarget, tidy
from splitpipe.jobs.faults import Judge, Left, Quarantines
from splitpipe.jobs.identity import Note
from splitpipe.jobs.looking import Looked
from splitpipe.jobs.shape import Ranges
from splitpipe.jobs.summary import Counts, JobProgress, JobSummary
from splitpipe.jobs.target import DatasetTarget, Target
from splitpipe.jobs.work import Made, Probed, Rules, Work
from splitpipe.jobs.working import Working
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.stage import Workers
from splitpipe.pipeline.stages.policy import RAISE, Policy
from splitpipe.schema import Schema

__all__ = ["Preview", "preview", "run"]

_UNIT_S: Final = 0.05
"""About how long a worker is at a range; what a stopped run has to wait for."""
_MOST_UNIT: Final = 1024
_TOLD: Final = 10
"""How many faults a summary tells."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run of a job would do.

    Attributes:
        pipeline: what is done, in words.
        output: the dataset that is written.
        column: the column of it, if the job makes one.
        state: what an earlier run left, in words.
        records: of the source.
        start, stop: the records that this run would do.
        task: records of a task.
        tasks: how many it would commit.
        schema: of what comes out; ``None`` if nothing did.
        items: the first of what comes out, as text.
        counts: what became of the records that were tried.
        faults: those of them that failed.
    """

    pipeline: str
    output: str
    column: str | None
    state: str
    records: int
    start: int
    stop: int
    task: int
    tasks: int
    schema: Schema | None
    items: tuple[str, ...]
    counts: Counts
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """How a run is asked for.

    Attributes:
        workers: how many processes; 0 does it in this one.
        limit: how many records of the source, from the first; ``None`` for all.
        policy: what becomes of records that fail, where no stage says it.
        progress: told how far it is.
        executor: what its workers are, where it has any.
        resources: what each has of a cluster.
    """

    workers: Workers = "auto"
    limit: int | None = None
    policy: Policy | None = None
    progress: Callable[[JobProgress], None] | None = None
    executor: str = "process"
    resources: Mapping[str, float] | None = None


def preview(looked: Looked, order: Order, *, items: int) -> Preview:
    """What a run would do; tries the first records in this process, and writes nothing."""
    stop = looked.upto(order.limit)
    work = _work(looked, order.policy)
    start = looked.done
    if looked.finished or start >= stop or not items:
        tried = Probed(None, 0.0, (), Counts(), ())
    else:
        tried = work.probe((start, stop), items=items, at_most=items)
    schema = _known_schema(looked)
    if schema is None and tried.schema is not None:
        schema = looked.compression.applied(tried.schema)
    tasks = -(-stop // looked.task) - start // looked.task if stop > start else 0
    return Preview(
        pipeline=repr(looked.pipeline),
        output=looked.path,
        column=looked.column,
        state=looked.what_is_there(),
        records=looked.shape.positions,
        start=start,
        stop=stop,
        task=looked.task,
        tasks=tasks,
        schema=schema,
        items=tried.items,
        counts=tried.counts,
        faults=tuple(left.text for left in tried.left),
    )


def run(looked: Looked, order: Order) -> JobSummary:
    """Do what is left to do.

    Raises:
        LockedError: somebody else writes there.
        Exception: of a stage, at a record that is not to be skipped.
    """
    began = time.perf_counter()
    if looked.finished:
        return _done_already(looked, order, began)
    work = _work(looked, order.policy)
    with _opened(looked) as target:
        if target.note() != (None if looked.restart else looked.note):
            raise ResumeError(f"{looked.path} was changed by another run just now: try again")
        running = _Running(looked, order, work, target)
        with _telling(looked, running):
            running.all()
    return running.summary(time.perf_counter() - began)


def _done_already(looked: Looked, order: Order, began: float) -> JobSummary:
    tidy(looked.path, looked.column)
    return looked.summary(elapsed_s=time.perf_counter() - began, workers=_told(order.workers))


def _told(workers: Workers) -> int | str:
    return 1 if workers is None else workers


def _work(looked: Looked, policy: Policy | None) -> Work:
    """What workers do, without a schema so far.

    Raises:
        GraphError: single records cannot be skipped.
    """
    whole = bool(looked.shape.whole)
    if whole and policy is not None and policy != RAISE:
        raise GraphError(
            "where stages see whole streams nobody can tell which record of a task failed: "
            "on_error must be 'raise'"
        )
    rules = Rules(
        column=looked.column is not None,
        missing=bool(looked.options.get("missing")),
        policy=policy,
        whole=looked.task if whole else 0,
    )
    return Work(looked.shape, rules, None, {})


@contextmanager
def _opened(looked: Looked) -> Iterator[Target]:
    """What the job writes into, locked."""
    name, begun = looked.identity.name(), looked.note is not None
    target: Target
    if looked.column is None:
        target = DatasetTarget(
            looked.path,
            name=name,
            begun=begun,
            bins=looked.options.get("bins"),
            overwrite=looked.restart and looked.before is not None,
        )
    else:
        assert looked.before is not None
        target = ColumnTarget(
            looked.path,
            looked.column,
            seen=looked.before,
            name=name,
            begun=begun,
            overwrite=looked.restart,
        )
    with target:
        yield target


@contextmanager
def _telling(looked: Looked, running: _Running) -> Iterator[None]:
    """Say with every error what is kept, and how to go on."""
    try:
        yield
    except BaseException as error:
        error.add_note(
            f"{running.done} of {looked.shape.positions} records of the job are done and kept in "
            f"{looked.path}; run it again to go on"
        )
        raise


def _known_schema(looked: Looked) -> Schema | None:
    if looked.note is not None and looked.note.schema is not None:
        return Schema.from_json(looked.note.schema)
    return looked.schema


class _Running:
    """A run under way.

    Attributes:
        done: records of the source that are committed.
    """

    def __init__(self, looked: Looked, order: Order, work: Work, target: Target) -> None:
        self._looked, self._order = looked, order
        self._work, self._target = work, target
        self._start = self.done = looked.done
        self._stop = looked.upto(order.limit)
        self._before = looked.note.total if looked.note is not None else Counts()
        self._counts = Counts()
        self._committed = Counts()
        self._tasks = 0
        self._faults: list[str] = []
        self._judge = Judge(looked.note.left if looked.note is not None else {})
        self._finished = False

    def all(self) -> None:
        """Do everything there is to do."""
        looked = self._looked
        known, unit = self._first_look()
        # Of a type that nobody knows there is nothing.
        schema = known or Schema("bytes")
        self._target.begin(schema, looked.compression.of(schema))
        work = self._work.with_schema(schema, looked.compression.of(schema))
        ranges = Ranges(self._start, self._stop, looked.task, unit)
        kept = Quarantines(looked.identity.name().hex()[:16])
        waiting: list[Left] = []
        for made in self._made(work, ranges):
            self._take(made)
            waiting += made.left
            if self._ends_a_task(made.stop):
                kept.add(waiting)
                waiting.clear()
                self._commit(made.stop, known)
            self._tell(made.stop)
            del made  # its memory is wanted for the next one
        if not looked.shape.positions and looked.note is None:
            self._commit(0, known)  # nothing is an output, too
        if self.done == looked.shape.positions:
            self._target.finish(self._note(known))
            self._finished = True

    def _take(self, made: Made) -> None:
        for left in made.left:
            self._judge.enter(left)
        if made.stop == self._looked.shape.positions:
            self._judge.end(made.stop)
        self._target.add(made)
        self._counts += made.counts
        room = max(0, _TOLD - len(self._faults))
        self._faults += [left.text for left in made.left[:room]]

    def _ends_a_task(self, position: int) -> bool:
        return position % self._looked.task == 0 or position == self._stop

    def _commit(self, position: int, schema: Schema | None) -> None:
        committed, self._committed = self._committed, self._counts
        before, self.done = self.done, position
        try:
            self._target.commit(self._note(schema))
        except BaseException:
            self._committed, self.done = committed, before
            raise
        self._tasks += 1

    def _note(self, schema: Schema | None) -> Note:
        return Note(
            identity=self._looked.identity,
            schema=None if schema is None else schema.to_json(),
            done=self.done,
            total=self._before + self._committed,
            finished=self.done == self._looked.shape.positions,
            left=dict(self._judge.counts),
        )

    def _tell(self, made: int) -> None:
        if self._order.progress is not None:
            self._order.progress(JobProgress(self.done, made, self._stop, self._counts))

    # -- working -------------------------------------------------------------------------------

    def _first_look(self) -> tuple[Schema | None, int]:
        """What records are, and how many of them a worker is given at a time."""
        schema, left = _known_schema(self._looked), (self._start, self._stop)
        if schema is not None and left[1] - left[0] <= 1:
            return schema, self._unit(0.0)
        probed = Probed(None, 0.0, (), Counts(), ())
        if left[1] > left[0]:
            many = 1 if self._order.workers else 0
            (probed,) = self._through([left], self._work_to_probe(schema).probe, many)
        if schema is None and probed.schema is not None:
            schema = self._looked.compression.applied(probed.schema)
        return schema, self._unit(probed.record_s)

    def _work_to_probe(self, schema: Schema | None) -> Work:
        return self._work if schema is None else self._work.with_schema(schema, {})

    def _unit(self, record_s: float) -> int:
        shape, task = self._looked.shape, self._looked.task
        if shape.whole:
            return task
        unit = max(1, min(_MOST_UNIT, int(_UNIT_S / max(1e-9, record_s)), task))
        # What works ahead begins anew with every range.
        unit = max(unit, 4 * shape.ahead)
        return min(task, -(-unit // shape.group) * shape.group)

    def _made(self, work: Work, ranges: Ranges) -> Iterator[Made]:
        """What every range becomes, in order, each exactly once."""
        if not len(ranges):
            return
        reached = self._start
        for made in self._through(ranges, work, self._order.workers):
            if made.start != reached:
                raise AssertionError(f"records from {made.start} on came when {reached} was next")
            reached = made.stop
            yield made
            del made
        if reached != self._stop:
            raise AssertionError(f"{reached} records came of {self._stop}")

    def _through(self, parts: Any, work: Callable[[Any], Any], workers: Workers) -> Iterator[Any]:
        order = self._order
        pipe = Pipeline(parts)._pooled(Working(work), {"workers": workers, "name": "job"})
        loader: Loader = pipe.loader(
            executor="inline" if workers == 0 else order.executor, resources=order.resources
        )
        with loader:
            for made in loader:
                yield made
                del made

    def summary(self, elapsed_s: float) -> JobSummary:
        """What it did."""
        if self._committed != self._counts:
            raise AssertionError(f"{self._counts} came, {self._committed} was committed")
        return JobSummary(
            output=self._looked.path,
            column=self._looked.column,
            records=self._looked.shape.positions,
            resumed_at=self._start,
            done=self.done,
            tasks=self._tasks,
            counts=self._counts,
            total=self._before + self._committed,
            finished=self._finished,
            elapsed_s=elapsed_s,
            faults=tuple(self._faults),
            workers=_told(self._order.workers),
        )
