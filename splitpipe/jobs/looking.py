"""What a job would do, found out without writing anything.

Responsible for: `look`: whether this graph can be a job, what an earlier run left, and whether that
is of the same job; `Looked`, the answer.

Rules:
- what cannot work is refused here, before anything is locked, started or written;
- what another job wrote, or somebody by hand, is never added to, and replaced only where that is
  asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from splitpipe.codecs import Zstd
from splitpipe.conversion.origin import reads_from
from splitpipe.errors import FormatError, GraphError, ResumeError, StorageError
from splitpipe.jobs.column import gathered_at
from splitpipe.jobs.identity import Identity, Note, described, identify
from splitpipe.jobs.shape import Shape, shape_of, task_size
from splitpipe.jobs.summary import Counts, JobSummary
from splitpipe.jobs.target import note_at
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.stage import check_count
from splitpipe.pipeline.stages.policy import Policy
from splitpipe.schema import Schema, checked_name
from splitpipe.storage import files
from splitpipe.storage.committed import Manifest
from splitpipe.storage.format import MANIFEST_NAME
from splitpipe.storage.options import Compression, checked_bins
from splitpipe.storage.snapshot import read_manifest

__all__ = ["JobOptions", "Looked", "look"]


class JobOptions(TypedDict, total=False):
    """What a `Job` may be told beyond the usual.

    Attributes:
        task: records of the source between two commits; what a killed run loses at most. About
            16 MiB of the source unless said, 256 to 8192 records.
        by_task: let stages over whole streams (`through`, `shuffle`, `pack`, ...) see each task as
            a stream of its own. The size of a task is part of what the job means then.
        missing: for a column: let the value be missing where the pipeline filtered a record out.
        bins: how many bins share the records of a new dataset.
        compression: as a `DatasetWriter` takes it: ``"zstd"``, a `Zstd`, or a mapping from column
            to one of them. A dictionary must be given: workers cannot train one together.
        version: stands for the code of the pipeline, where that cannot be identified, or where a
            change of it shall not matter. A job goes on only while it is the same.
        on_error: what becomes of records that fail, where no stage says it: ``"raise"`` (the
            usual), ``"skip"``, or a policy (`sp.skip`, `sp.retry`, `sp.quarantine`).
    """

    task: int | None
    by_task: bool
    missing: bool
    bins: int | None
    compression: str | Zstd | Mapping[str, str | Zstd] | None
    version: str | None
    on_error: Policy | str | None


@dataclass(frozen=True)
class Looked:
    """What was found out about a job.

    Attributes:
        pipeline: what it does.
        shape: of its graph.
        identity: what decides what it writes.
        path: of the dataset, absolute.
        column: that it makes, if it does.
        note: what an earlier run left to go on with.
        before: the dataset that is there.
        schema: of what it makes, as far as that was said.
        compression: of what it makes.
        options: what it was told.
        restart: whether what is there is to be replaced.
    """

    pipeline: Pipeline
    shape: Shape
    identity: Identity
    path: str
    column: str | None
    note: Note | None
    before: Manifest | None
    schema: Schema | None
    compression: Compression
    options: JobOptions
    restart: bool

    @property
    def finished(self) -> bool:
        """Whether everything is done."""
        note = self.note
        if note is None:
            return False
        return note.finished and (self.column is None or note.column is not None)

    @property
    def task(self) -> int:
        """Records of a task."""
        return self.identity.task

    @property
    def done(self) -> int:
        """Records that earlier runs have done."""
        return 0 if self.note is None else self.note.done

    def summary(
        self, *, elapsed_s: float = 0.0, faults: Sequence[str] = (), workers: int | str = 0
    ) -> JobSummary:
        """Of a run that did nothing."""
        return JobSummary(
            output=self.path,
            column=self.column,
            records=self.shape.positions,
            resumed_at=self.done,
            done=self.done,
            tasks=0,
            counts=Counts(),
            total=Counts() if self.note is None else self.note.total,
            finished=self.finished,
            elapsed_s=elapsed_s,
            faults=faults,
            workers=workers,
        )

    def upto(self, limit: int | None) -> int:
        """The record at which to stop; between records that are treated together."""
        positions = self.shape.positions
        if limit is None:
            return positions
        group = self.task if self.shape.whole else self.shape.group
        return max(self.done, min(positions, -(-limit // group) * group))

    def what_is_there(self) -> str:
        """What an earlier run left, in words."""
        of = f"of {self.shape.positions:,} records"
        if self.finished:
            return f"done already: all {of}"
        if self.note is not None:
            return f"goes on at record {self.note.done:,} {of}"
        if self.before is not None and self.column is None and self.before.live_rows:
            return f"replaces a dataset of {self.before.live_rows:,} records"
        if self.before is not None and self.column in self.before.schema:
            return f"replaces the values of column {self.column!r}"
        return "nothing is there yet"


def look(
    pipeline: Pipeline,
    path: str,
    *,
    column: str | None,
    schema: Any,
    options: JobOptions,
    restart: bool,
) -> Looked:
    """Find out what a job would do.

    Raises:
        GraphError: this graph can be no job.
        FormatError: an option cannot be.
        StorageError: another dataset is there.
        ResumeError: what is there is of another job; the message says what changed.
    """
    shape = shape_of(pipeline)
    _check_shape(shape, path, column, options)
    compression = Compression(_with_dictionaries(options.get("compression")))
    wanted = _schema(schema, column, compression)
    there = files.is_there(os.path.join(path, MANIFEST_NAME))
    before = read_manifest(path) if there or column is not None else None
    note = None if restart else _note(path, column, before)
    looked = Looked(
        pipeline=pipeline,
        shape=shape,
        identity=identify(
            pipeline,
            shape,
            output=_output(options, column, wanted),
            task=task_size(_task(options, note), shape),
            into=None if column is None else _into(path, column, before, shape),
            version=options.get("version"),
        ),
        path=path,
        column=column,
        note=note,
        before=before,
        schema=wanted,
        compression=compression,
        options=options,
        restart=restart,
    )
    if not restart:
        _check_there(looked)
    return looked


def _task(options: JobOptions, note: Note | None) -> int | None:
    """How many records a task was said to have, now or by the run that began."""
    task = options.get("task")
    check_count("task", task, least=1)
    return note.identity.task if task is None and note is not None else task


def _check_shape(shape: Shape, path: str, column: str | None, options: JobOptions) -> None:
    """Raise unless such a graph can be such a job."""
    if shape.whole and not options.get("by_task"):
        raise GraphError(
            f"{', '.join(map(repr, shape.whole))} need whole streams, of which a job sees one task "
            "at a time: say by_task=True if that is what you mean, or leave them to the pipeline "
            "that reads the output"
        )
    records = getattr(shape.source.sequence, "records", None)
    if column is None and records is not None and reads_from(records, path):
        raise FormatError(f"{path} cannot be written over its own source: choose another directory")


def _with_dictionaries(compression: Any) -> Any:
    some = compression.values() if isinstance(compression, Mapping) else [compression]
    if any(isinstance(how, Zstd) and how.dictionary is True for how in some):
        raise FormatError(
            "workers cannot train a dictionary together: train one from some values "
            "(splitpipe.codecs.train) and give it, Zstd(dictionary=...)"
        )
    return compression


def _schema(said: Any, column: str | None, compression: Compression) -> Schema | None:
    if column is not None:
        checked_name(column)
        if isinstance(said, Mapping) and not (isinstance(said, Schema) and said.bare):
            raise FormatError(f"a column has one type, not {said!r}")
    return None if said is None else compression.applied(Schema.parse(said))


def _output(options: JobOptions, column: str | None, schema: Schema | None) -> dict[str, Any]:
    bins = options.get("bins")
    return {
        "column": column,
        "schema": None if schema is None else schema.to_json(),
        "bins": None if bins is None else checked_bins(bins),
        "compression": described(options.get("compression")),
        "missing": bool(options.get("missing")),
        "by_task": bool(options.get("by_task")),
    }


def _note(path: str, column: str | None, before: Manifest | None) -> Note | None:
    """What an earlier run left."""
    if before is None:
        return None
    note = Note.from_json(before.note)
    if column is None:
        return note
    if note is not None and note.column == column and column in before.schema:
        return note
    return note_at(gathered_at(path, column))


def _into(path: str, column: str, before: Manifest | None, shape: Shape) -> dict[str, Any]:
    """The dataset that a column is for; refuses what can have no such column."""
    assert before is not None
    source = shape.source
    if before.bare:
        raise FormatError(f"{path} has plain values as records, which have no columns")
    if source.shuffle is not None or source.passes != 1 or source.streams is not None:
        raise GraphError(
            "a column has its values in the order of the records: the pipeline of its job reads "
            "them once, without shuffle="
        )
    if before.live_rows != shape.positions:
        raise FormatError(
            f"{path} has {before.live_rows} records, and the pipeline reads {shape.positions}: "
            f"column {column!r} needs a value for each"
        )
    return {"dataset": before.dataset.hex(), "generation": before.generation}


def _check_there(looked: Looked) -> None:
    """Raise if there is something that this job did not leave."""
    before, note = looked.before, looked.note
    if note is not None:
        _check_same(looked, note)
    elif looked.column is not None:
        if before is not None and looked.column in before.schema:
            raise FormatError(
                f"{looked.path} has a column {looked.column!r} already: choose another name, or "
                "say restart to replace its values"
            )
    elif before is not None and before.generation:
        raise StorageError(
            errno.EEXIST,
            f"a dataset of {before.live_rows} records is here that no job left like this: choose "
            "another directory, or say restart to replace it",
            looked.path,
        )


def _check_same(looked: Looked, note: Note) -> None:
    """Raise if what is there is of another job."""
    earlier, mine = note.identity, looked.identity
    if note.column is not None:
        # The column itself is what changed the dataset since.
        source = dict(mine.source)
        data, into = source["data"], mine.into
        if isinstance(data, Mapping) and into is not None and into.items() <= data.items():
            source["data"] = {**data, "generation": earlier.source["data"].get("generation")}
        mine = replace(mine, into=earlier.into, source=source)
    changed = mine.differences(earlier)
    if changed:
        where = looked.path if looked.column is None else f"{looked.path}, {looked.column!r},"
        raise ResumeError(
            f"{where} was {'made' if note.finished else 'begun'} by another job than this: "
            f"{'; '.join(changed)}. Change it back to go on, choose another place, or say restart "
            "to begin anew"
        )
