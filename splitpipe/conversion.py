"""Any dataset into bins, in parallel, resumably, and proven equal at the end.

Responsible for: `convert`: reading the source in worker processes, writing with one writer, going
on where a killed conversion was, and comparing every value of the copy with its source.

Rules:
- the copy has the source's records, keys and metadata, in the source's row order;
- it is committed every `COMMIT_NBYTES`, so that little is lost with a killed run;
- ``conversion.json`` beside the copy says of which source it is and whether it was proven; a copy
  is only gone on with while both are what they were, and a proven one is left as it is;
- no report without the proof: what differs is an error that names the record and the column.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack

import numpy as np

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.storage import files
from splitpipe.storage.base import Batch
from splitpipe.storage.snapshot import read_manifest
from splitpipe.storage.writer import DatasetWriter

__all__ = ["ConversionReport", "ConvertOptions", "Progress", "convert"]

Progress = Callable[[str, int, int], None]
"""Told what is being done (``"copy"`` or ``"compare"``), and how many records of how many are."""

NAME: Final = "conversion.json"
COMMIT_NBYTES: Final = 256 << 20
BLOCK_NBYTES: Final = 4 << 20
_MOST_BLOCK_RECORDS: Final = 4096
_SAMPLE: Final = 16
_LARGEST_NOTE: Final = 1 << 20


class ConvertOptions(TypedDict, total=False):
    """How the copy is written; see `splitpipe.DatasetWriter` for each."""

    bins: int | None
    compression: Any
    overwrite: bool


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: what was read.
        path: directory of the copy.
        records: how many there are.
        resumed_at: how many of them an earlier run had copied.
        compared: how many were compared with the source; all of them.
        nbytes: of the copied values as they lie in memory, of this run.
    """

    source: str
    path: str
    records: int
    resumed_at: int
    compared: int
    nbytes: int


def convert(
    source: Dataset | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    workers: int = 1,
    open_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Unpack[ConvertOptions],
) -> ConversionReport:
    r"""Copy a dataset of any format into bins and prove that the copy is equal.

    A conversion that was interrupted goes on where it was when it is called again with the same
    source. The result does not depend on ``workers``.

    Args:
        source: a dataset, or a path that `open_dataset` knows.
        path: directory of the copy.
        workers: processes that read and decode the source; 0 reads in this one.
        open_options: for `open_dataset`, when ``source`` is a path: ``format``, ``index_dir``.
        progress: told how far it is.
        options: ``bins``, ``compression``, ``overwrite``.

    Raises:
        StorageError: another dataset is at ``path`` and ``overwrite`` was not said.
        CorruptRecord: a record of the source cannot be read, or the copy of one is not equal to it.
        FormatError: the source cannot be copied, or changed since the conversion was begun.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> from splitpipe.conversion import convert
        >>> lines, bins = (os.path.join(tempfile.mkdtemp(), name) for name in ("a.jsonl", "bins"))
        >>> with open(lines, "w") as file:
        ...     _ = file.write('{"n": 1}\n{"n": 2}\n')
        >>> convert(lines, bins, workers=0).records, list(sp.open_dataset(bins))
        (2, [{'n': 1}, {'n': 2}])
    """
    known = set(ConvertOptions.__annotations__)
    if unknown := set(options) - known:
        raise TypeError(f"convert has no option {min(unknown)!r}")
    if isinstance(source, Dataset):
        return _Conversion(source, path, workers, progress).run(options)
    with open_dataset(source, **dict(open_options or {})) as opened:
        return _Conversion(opened, path, workers, progress).run(options)


class _Conversion:
    """One run of `convert`."""

    def __init__(
        self,
        source: Dataset,
        path: str | os.PathLike[str],
        workers: int,
        progress: Progress | None,
    ) -> None:
        if not len(source):
            raise FormatError(f"{source!r} is empty: there is nothing to convert")
        self._source = source
        self._path = os.path.abspath(os.fspath(path))
        self._workers = workers
        self._progress = progress
        self._about: dict[str, Any] = {
            "source": repr(source),
            "records": len(source),
            "schema": source.schema.to_json(),
        }
        self._size = _block_records(source)

    def run(self, options: ConvertOptions) -> ConversionReport:
        done = self._copied(overwrite=bool(options.get("overwrite")))
        nbytes = self._copy(done or 0, options, fresh=done is None)
        compared = self._compare()
        self._note(proven=True)
        return ConversionReport(
            self._about["source"], self._path, len(self._source), done or 0, compared, nbytes
        )

    # -- what is there

    def _copied(self, *, overwrite: bool) -> int | None:
        """How many records an earlier run has copied; None where there is nothing to go on with."""
        note = _read_note(self._path)
        if note is None or overwrite:
            return None
        differing = [key for key, value in self._about.items() if note.get(key) != value]
        if differing:
            raise FormatError(
                f"{self._path} is a copy of {note.get('source')}, whose {differing[0]} differs "
                f"from that of {self._source!r}: choose another directory, or say overwrite"
            )
        return read_manifest(self._path).rows

    def _note(self, *, proven: bool) -> None:
        dataset = read_manifest(self._path).dataset.hex()
        document = {"dataset": dataset, **self._about, "proven": proven}
        text = json.dumps(document, indent=1)
        files.replace(os.path.join(self._path, NAME), text.encode())
        files.sync_directory(self._path)

    # -- copying

    def _copy(self, done: int, options: ConvertOptions, *, fresh: bool) -> int:
        """Copy records from ``done`` on; return their bytes."""
        count = len(self._source)
        if done == count:
            return 0
        given: dict[str, Any] = dict(options) if fresh else {"append": True}
        schema = self._source.schema
        total = pending = 0
        with DatasetWriter(self._path, schema, **given) as writer:
            if fresh:
                self._note(proven=False)
            for block in self._blocks(_Read(self._source, self._size), done):
                writer.write_many(_records(block.values, schema.bare), block.keys, block.metas)
                pending += block.nbytes
                done += block.count
                if pending >= COMMIT_NBYTES:
                    writer.commit()
                    total, pending = total + pending, 0
                self._tell("copy", done)
        return total + pending

    def _compare(self) -> int:
        """Compare every record of the copy with its source; return how many."""
        compared = 0
        with open_dataset(self._path) as copy:
            if len(copy) != len(self._source):
                raise FormatError(f"{self._path} has {len(copy)} records of {len(self._source)}")
            check = _Compare(_Read(self._source, self._size), _Read(copy, self._size))
            for count, difference in self._blocks(check, 0):
                if difference is not None:
                    raise CorruptRecord(
                        f"{difference} of {self._path} is not equal to that of {self._source!r}: "
                        "the source changed while it was read, or this is a fault of splitpipe"
                    )
                compared += count
                self._tell("compare", compared)
        return compared

    def _blocks(self, work: Any, first: int) -> Iterator[Any]:
        """What ``work`` makes of the source's rows from ``first`` on, block by block."""
        starts = range(first, len(self._source), self._size)
        pipe = Pipeline(starts).map(work, workers=self._workers or None, name="read")
        with _loader(pipe, self._workers) as loader:
            yield from loader

    def _tell(self, what: str, done: int) -> None:
        if self._progress is not None:
            self._progress(what, done, len(self._source))


def _loader(pipe: Pipeline, workers: int) -> Loader:
    loader: Loader = pipe.loader(executor="process" if workers else "inline")
    return loader


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive records of a dataset, column by column."""

    start: int
    count: int
    values: Batch
    keys: list[str | None] | None
    metas: list[dict[str, Any]] | None
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Read:
    """Reads a block; travels to workers with its dataset."""

    dataset: Dataset
    size: int

    def __call__(self, start: int) -> _Block:
        records = self.dataset.records
        rows = np.arange(start, min(start + self.size, len(records)), dtype=np.int64)
        values = records.read(rows, tuple(records.schema))
        keys = metas = None
        if records.catalog is not None:
            keys, metas = records.catalog.keys(rows), records.catalog.meta(rows)
        nbytes = sum(map(_nbytes, values.values()))
        return _Block(start, len(rows), values, keys, metas, nbytes)


@dataclass(frozen=True, slots=True)
class _Compare:
    """Compares a block of two datasets."""

    source: _Read
    copy: _Read

    def __call__(self, start: int) -> tuple[int, str | None]:
        """How many records were compared, and what differs first, if anything does."""
        mine, theirs = self.source(start), self.copy(start)
        for name, values in mine.values.items():
            at = _first_difference(values, theirs.values[name])
            if at is not None:
                return at, f"column {name!r} of record {start + at}"
        for what, wanted, found in (
            ("the key", mine.keys, theirs.keys),
            ("the metadata", mine.metas, theirs.metas),
        ):
            if wanted != found and _text(wanted) != _text(found):
                return 0, f"{what} of one of the records {start} to {start + mine.count - 1}"
        return mine.count, None


def _first_difference(wanted: Any, found: Any) -> int | None:
    """Where two columns differ first; NaN equals itself, and 0.0 does not equal -0.0."""
    if isinstance(wanted, np.ndarray) and isinstance(found, np.ndarray) and _same(wanted, found):
        return None
    for at, (one, other) in enumerate(zip(wanted, found, strict=True)):
        if not _same(one, other):
            return at
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | np.generic):
        a, b = np.asarray(one), np.asarray(other)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(one) is type(other) and one == other:
        return True
    return _text(one) == _text(other)  # NaN somewhere inside, or a tuple that JSON makes a list


def _text(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return f"{type(value)} {value!r}"


def _records(values: Batch, bare: bool) -> Iterator[Any]:
    columns = list(values.values())
    if bare:
        yield from columns[0]
        return
    names = tuple(values)
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _nbytes(values: Any) -> int:
    if isinstance(values, np.ndarray):
        return int(values.nbytes)
    return sum(
        len(v) if isinstance(v, bytes | str) else int(getattr(v, "nbytes", 64)) for v in values
    )


def _block_records(source: Dataset) -> int:
    """Records of about `BLOCK_NBYTES`, as the first ones are."""
    first = _Read(source, _SAMPLE)(0)
    mean = max(1, first.nbytes // first.count)
    return max(1, min(_MOST_BLOCK_RECORDS, BLOCK_NBYTES // mean))


def _read_note(path: str) -> dict[str, Any] | None:
    """What a conversion wrote beside its copy; None where it is about no dataset that is there."""
    try:
        note = json.loads(files.read_whole(os.path.join(path, NAME), limit=_LARGEST_NOTE))
        if note["dataset"] == read_manifest(path).dataset.hex():
            return dict(note)
    except (StorageError, FormatError, ValueError, KeyError, TypeError):
        pass
    return None
