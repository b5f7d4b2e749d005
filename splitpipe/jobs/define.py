"""`Job`: a pipeline and where its output goes.

Responsible for: what users hold of a job, and checking what they say.

Rules:
- a job is a value: describing one opens nothing, starts nothing and writes nothing;
- a function that makes the pipeline is called when the job runs, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, Unpack

from splitpipe.errors import FormatError, GraphError
from splitpipe.jobs.faults import policy_said
from splitpipe.jobs.looking import JobOptions, Looked, look
from splitpipe.jobs.running import Order, Preview, preview, run
from splitpipe.jobs.summary import JobProgress, JobSummary
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.resources import joined, resources_of
from splitpipe.pipeline.stage import Workers, check_choice
from splitpipe.pipeline.stages.policy import Policy
from splitpipe.schema import FieldLike, Schema
from splitpipe.storage import files

__all__ = ["Job", "JobRunOptions", "job"]

EXECUTORS = ("process", "thread", "ray")
"""What the workers of a job may be."""


class JobRunOptions(TypedDict, total=False):
    """How a job is run; of these, only `limit` and `on_error` have a say in what is written.

    Attributes:
        workers: processes that read, run the pipeline and encode; 0 does it in this one. Unless
            said, ``"auto"``: it begins with one and adds more while that pays; on Ray, as many as
            find room now. The ``workers=`` of
            the pipeline's own stages do not count.
        limit: end after the first so many records of the source. A run with a larger one, or
            without, goes on from there.
        dry_run: look at what is there and try a few records; write nothing.
        restart: begin anew, and replace what is there with the first commit.
        on_error: instead of the job's own.
        progress: called with a `JobProgress` whenever results come.
        executor: what workers are: ``"process"``, ``"ray"`` (actors of a cluster), or ``"thread"``.
        resources: what each of them has of a Ray cluster; ``{"CPU": 1}`` unless said.
    """

    workers: Workers
    limit: int | None
    dry_run: bool
    restart: bool
    on_error: Policy | str | None
    progress: Callable[[JobProgress], None] | None
    executor: str
    resources: Mapping[str, float] | None


class Job:
    """A pipeline whose output is a new dataset, or a new column of one.

    It is cut into tasks, ranges of the source. Workers take parts of them, one process writes what
    comes out, in the order of the source, and commits it a task at a time. A run that ended early,
    whatever ended it, is gone on with by the next one; the files are the same for any number of
    workers and of such runs.

    Args:
        pipeline: what is done: over one source with ``len()`` and ``[i]``, with any stages that
            treat each record by itself (`map`, `filter`, `flat_map`, `async_map`, `unbatch`), and
            `batch` before any that change how many there are. Or a function without arguments that
            makes it.
        output: the directory of the new dataset; with `column`, of the dataset that gets it.
        column: the name of a column to make: the pipeline gives one value for every record.
        schema: what a record is, as a `DatasetWriter` takes it, or the type of the column. Unless
            said, what the first record suggests.
        options: see `JobOptions`.

    Raises:
        FormatError: an option cannot be.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> path = os.path.join(tempfile.mkdtemp(), "squares")
        >>> pipe = sp.Pipeline(range(10)).filter(lambda n: n % 3)
        >>> pipe = pipe.map(lambda n: {"n": n, "n2": n * n})
        >>> summary = sp.Job(pipe, path).run(workers=0)
        >>> summary.finished, summary.total
        (True, Counts(read=10, used=6, filtered=4, skipped=0, written=6))
        >>> sp.open_dataset(path)[-1]
        {'n': 8, 'n2': 64}

        A column of it, from its own records:

        >>> pipe = sp.Pipeline(sp.open_dataset(path)).map(lambda record: record["n2"] ** 0.5)
        >>> _ = sp.Job(pipe, path, column="root", schema="float32").run(workers=0)
        >>> sp.open_dataset(path)[-1]
        {'n': 8, 'n2': 64, 'root': 8.0}
    """

    def __init__(
        self,
        pipeline: Pipeline | Callable[[], Pipeline],
        output: str | os.PathLike[str],
        *,
        column: str | None = None,
        schema: Schema | FieldLike | Any = None,
        **options: Unpack[JobOptions],
    ) -> None:
        unknown = options.keys() - JobOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"a Job has no option {min(unknown)!r}")
        if not isinstance(pipeline, Pipeline) and not callable(pipeline):
            raise GraphError(
                "a job needs a Pipeline, or a function without arguments that makes one, not "
                f"{pipeline!r}"
            )
        if column is not None and options.get("bins") is not None:
            raise FormatError("a column has as many bins as its dataset: leave bins out")
        if column is None and options.get("missing"):
            raise FormatError("missing=True is for jobs that make a column")
        files.local(output)  # it goes on in what it has written: objects cannot be added to
        policy_said(options.get("on_error"))
        self._pipeline = pipeline
        self._output = os.fspath(output)
        self._column = column
        self._schema = schema
        self._options = options

    @property
    def output(self) -> str:
        """The directory of the dataset, as it was said."""
        return self._output

    @property
    def column(self) -> str | None:
        """The column that is made; ``None`` for a new dataset."""
        return self._column

    def run(self, **options: Unpack[JobRunOptions]) -> JobSummary:
        """Do what is left to do of it.

        Args:
            options: see `JobRunOptions`.

        Raises:
            ResumeError: what is there was begun by another job: the message says what changed.
            LockedError: another run, or another writer, is at work there.
            StorageError: a dataset is there that no job left, or it cannot be written.
            GraphError: the pipeline can be no job.
            FormatError: what comes out cannot be stored; for a column, is not one value a record.
            Exception: of a stage, at the first record that is not to be skipped. What was
                committed is kept, and gone on from by the next run.

        Example:
            >>> import os, tempfile, splitpipe as sp
            >>> path = os.path.join(tempfile.mkdtemp(), "numbers")
            >>> job = sp.Job(sp.Pipeline(range(100)), path, task=10)
            >>> job.run(workers=0, limit=25).done, job.run(workers=0).resumed_at
            (25, 25)
        """
        order = self._order(options)
        looked = self._look(restart=options.get("restart", False))
        if options.get("dry_run"):
            told = preview(looked, order, items=1)
            return looked.summary(faults=told.faults)
        return run(looked, order)

    def preview(self, items: int = 3, **options: Unpack[JobRunOptions]) -> Preview:
        """What `run` would do, with the same options: tries the first records in this process, and
        writes nothing.

        Args:
            items: how many of what comes out are wanted.
            options: see `JobRunOptions`.

        Raises:
            Exception: as `run`.

        Example:
            >>> import splitpipe as sp
            >>> told = sp.Job(sp.Pipeline(range(10**6)).map(str), "text").preview(2, limit=10_000)
            >>> told.items, told.tasks, told.state
            (("'0'", "'1'"), 3, 'nothing is there yet')
        """
        order = self._order(options)
        return preview(self._look(restart=options.get("restart", False)), order, items=items)

    def _order(self, options: JobRunOptions) -> Order:
        unknown = options.keys() - JobRunOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"a job is run without an option {min(unknown)!r}")
        limit = options.get("limit")
        if limit is not None and (isinstance(limit, bool) or limit < 0):
            raise FormatError(f"limit must be a number of records, not {limit!r}")
        workers = options.get("workers", "auto")
        executor, resources = options.get("executor", "process"), options.get("resources")
        check_choice("executor", executor, EXECUTORS)
        if executor == "ray" and workers in (None, "auto"):
            from splitpipe.runtime.onray.cluster import places

            workers = places(joined((resources_of(resources),)))
        on_error = options.get("on_error") or self._options.get("on_error")
        return Order(
            workers="auto" if workers is None else workers,
            limit=limit,
            policy=policy_said(on_error),
            progress=options.get("progress"),
            executor=executor,
            resources=resources,
        )

    def _look(self, *, restart: bool) -> Looked:
        pipeline = self._pipeline if isinstance(self._pipeline, Pipeline) else self._pipeline()
        if not isinstance(pipeline, Pipeline):
            raise GraphError(f"the function of a job made no Pipeline, but {pipeline!r}")
        return look(
            pipeline,
            os.path.abspath(self._output),
            column=self._column,
            schema=self._schema,
            options=self._options,
            restart=restart,
        )

    def __repr__(self) -> str:
        what = self._pipeline
        name = repr(what) if isinstance(what, Pipeline) else getattr(what, "__qualname__", "job")
        where = self._output if self._column is None else f"{self._output}, column {self._column!r}"
        return f"Job({name}, {where})"


def job(
    output: str | os.PathLike[str],
    *,
    column: str | None = None,
    schema: Schema | FieldLike | Any = None,
    **options: Unpack[JobOptions],
) -> Callable[[Callable[[], Pipeline]], Job]:
    """Make a `Job` of a function that makes its pipeline; as a decorator.

    What the function opens is opened when the job runs, not when its module is imported.

    Args:
        output: see `Job`, as for the others.
        column: of the dataset at `output`.
        schema: of what comes out.
        options: see `JobOptions`.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> path = os.path.join(tempfile.mkdtemp(), "squares")
        >>> @sp.job(path)
        ... def squares():
        ...     return sp.Pipeline(range(4)).map(lambda n: n * n)
        >>> squares.run(workers=0).total.written, list(sp.open_dataset(path))
        (4, [0, 1, 4, 9])
    """

    def made(function: Callable[[], Pipeline]) -> Job:
        return Job(function, output, column=column, schema=schema, **options)

    return made
