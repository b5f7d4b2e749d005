"""The rows of a new column set, made by modules.

Responsible for: the work of the task ``preprocess``: filters and preprocessors over all records
of a dataset, written as bins by a `Job`.

Rules:
- by uid, records that a filter leaves out are not in the new set: they are missing in it. By row,
  they are there with every value missing;
- killed and begun again, the job goes on at its last commit, and ends in the same bytes;
- a batch that fails is left out as a whole, where that was asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.schema import Field, Schema
from splitpipe.server.catalog.locations import Locations
from splitpipe.server.catalog.snapshot import open_snapshot
from splitpipe.server.iterations.columns import stack
from splitpipe.server.modules.finding import find

__all__ = ["perform"]

Json = dict[str, Any]
Progress = Callable[..., None]

_BINS: Final = 16
_LOOKED: Final = 256
"""Rows that say the types of columns, where nobody did."""


def perform(job: Json, progress: Progress) -> Json:
    """Make the new column set.

    Returns:
        ``records`` that were read, and ``written``.

    Raises:
        FormatError: a preprocessor gives what is no batch of the same samples, or no new column.
        Exception: of a module.
    """
    # Imported here: the server, which prepares the job, needs none of what runs one.
    from splitpipe.jobs import Job, JobProgress
    from splitpipe.running import Pipeline

    locations = Locations.from_json(job["snapshot"]["locations"])
    path = locations.inside(os.path.join(locations.data, job["location"]))
    with open_snapshot(job["snapshot"], _read(job)) as dataset:
        work = _work(job, dataset.schema)
        schema, outputs = _schema(work, dataset, job)
        pipeline = (
            Pipeline(dataset)
            .batch(job["batch_size"], collate=list, name="batch")
            .flat_map(_Rows(work, outputs), name="preprocess")
        )

        def tell(now: JobProgress) -> None:
            progress(now.made, len(dataset), f"{now.counts.written} rows written")

        summary = Job(pipeline, path, schema=schema, bins=_BINS, version=_version(job)).run(
            workers=job["workers"], progress=tell
        )
    progress(len(dataset), len(dataset))
    return {"records": summary.total.read, "written": summary.total.written}


def _read(job: Json) -> list[str] | None:
    """The columns that are read: those that were asked for, and the uid."""
    uid = job["snapshot"]["dataset"]["uid_column"]
    columns = job["columns"]
    return columns if columns is None or uid is None or uid in columns else [*columns, uid]


def _version(job: Json) -> str:
    """Stands for everything that decides what is written."""
    told = {name: job[name] for name in ("modules", "generation", "outputs", "columns", "on_error")}
    sets = [(one["name"], one["generation"]) for one in job["snapshot"]["column_sets"]]
    return json.dumps([told, sets], sort_keys=True)


@dataclass(frozen=True)
class _Work:
    """What is done with a batch of samples.

    Attributes:
        filters: by name; a sample stays if all of them say so.
        preprocessors: by name; of a batch, in turn.
        uid: the column that every row has; ``None``: rows stay in their places.
        lenient: whether a batch that fails is left out.
    """

    filters: tuple[tuple[str, Callable[[Any], Any]], ...]
    preprocessors: tuple[tuple[str, Callable[[Any], Any]], ...]
    uid: str | None
    lenient: bool

    def __call__(self, samples: Sequence[Json]) -> list[Json | None]:
        """For every sample the row that was made of it, or ``None`` where it was left out."""
        made: list[Json | None] = [None] * len(samples)
        try:
            kept = [place for place, one in enumerate(samples) if self._stays(one)]
            if kept:
                rows = self._rows([samples[place] for place in kept])
                for place, row in zip(kept, rows, strict=True):
                    made[place] = row
        except Exception:
            if not self.lenient:
                raise
        if self.uid is not None:
            for place, sample in enumerate(samples):
                known, uid = made[place], sample[self.uid]
                made[place] = None if known is None or uid is None else {**known, self.uid: uid}
        return made

    def _stays(self, sample: Json) -> bool:
        return all(function(sample) for _, function in self.filters)

    def _rows(self, samples: list[Json]) -> list[Json]:
        batch = stack(samples)
        for _, function in self.preprocessors:
            batch = function(batch)
        return _split(batch, len(samples), self.preprocessors[-1][0])


def _split(batch: Any, count: int, name: str) -> list[Json]:
    """The rows of a batch."""
    if isinstance(batch, Mapping):
        for column, values in batch.items():
            if not hasattr(values, "__len__") or isinstance(values, str | bytes | Mapping):
                raise FormatError(
                    f"preprocessor {name!r} gave {type(values).__name__} for column {column!r}: a "
                    f"batch has a list or an array with a value for each of its {count} samples"
                )
            if len(values) != count:
                raise FormatError(
                    f"preprocessor {name!r} gave {len(values)} values for column {column!r}, and "
                    f"the batch has {count} samples: it must keep their number; leave some out by "
                    "a filter"
                )
        return [{str(column): values[n] for column, values in batch.items()} for n in range(count)]
    if isinstance(batch, list | tuple) and len(batch) == count:
        rows = [dict(row) for row in batch if isinstance(row, Mapping)]
        if len(rows) == count:
            return rows
    raise FormatError(
        f"preprocessor {name!r} gave {type(batch).__name__}, which is no batch of {count} samples: "
        "give a dict of columns, or a list of dicts"
    )


@dataclass(frozen=True)
class _Rows:
    """The rows that are written of a batch.

    Attributes:
        work: makes them.
        outputs: the columns that are written.
    """

    work: _Work
    outputs: tuple[str, ...]

    def __call__(self, samples: Sequence[Json]) -> list[Json]:
        rows = self.work(samples)
        # By row, one that was left out is there with every value missing.
        stay = [{} if row is None else row for row in rows if row or self.work.uid is None]
        return [self._chosen(row) for row in stay]

    def _chosen(self, row: Json) -> Json:
        return {name: row.get(name) for name in self.outputs}


def _work(job: Json, schema: Schema) -> _Work:
    folder = Path(job["folder"])

    def found(kind: str) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
        return tuple(
            (ref["name"], find(folder, kind, ref["name"], ref["params"]))
            for ref in job["modules"][kind]
        )

    uid = job["snapshot"]["dataset"]["uid_column"]
    return _Work(found("filter"), found("preprocessor"), uid, job["on_error"] == "skip")


def _schema(work: _Work, dataset: Any, job: Json) -> tuple[Schema, tuple[str, ...]]:
    """The columns that are made, from the first rows that are there."""
    rows: list[Json] = []
    for start in range(0, len(dataset), job["batch_size"]):
        samples = dataset[start : start + job["batch_size"]]
        rows += [row for row in work(samples) if row is not None]
        if len(rows) >= _LOOKED:
            break
    if not rows:
        raise FormatError(
            "nothing is left to be written: every record was left out, or there is none"
        )
    there = {name for one in job["snapshot"]["column_sets"] for name in _names_of(one)}
    names = job["outputs"] or [name for name in rows[0] if name not in there]
    if not names:
        raise FormatError(
            "the preprocessors made no new column: let them give one of another name, or say which "
            "are written, outputs=[...]"
        )
    if work.uid is not None and work.uid not in names:
        names = [work.uid, *names]
    fields = {name: _field(name, [row.get(name) for row in rows]) for name in names}
    if work.uid is not None:
        fields[work.uid] = dataset.schema[work.uid].compressed(None)
    return Schema(fields), tuple(names)


def _names_of(one: Json) -> list[str]:
    return [column["name"] for column in one["columns"]]


def _field(name: str, values: Sequence[Any]) -> Field:
    """The type that all of some values fit."""
    found = {Field.of(value) for value in values if value is not None}
    if len(found) == 1:
        return found.pop()
    if not found:
        raise FormatError(f"column {name!r} is missing in all of the first rows that were made")
    kinds = {one.kind for one in found}
    if kinds == {"scalar"}:
        return Field("scalar", dtype=str(np.result_type(*[one.numpy_dtype for one in found])))
    shapes = {one.shape for one in found}
    if kinds == {"ndarray"} and len({one.dtype for one in found}) == 1:
        axes = {len(shape) for shape in shapes if shape is not None}
        dtype = next(iter(found)).dtype
        if len(axes) == 1:
            lengths = [set(of) for of in zip(*[s for s in shapes if s is not None], strict=True)]
            shape = tuple(of.pop() if len(of) == 1 else None for of in lengths)
            return Field("ndarray", dtype=dtype, shape=shape)
        return Field("ndarray", dtype=dtype, shape=None)
    told = ", ".join(sorted(one.description for one in found))
    raise FormatError(f"column {name!r} has values of different types: {told}")
