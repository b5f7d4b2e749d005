"""A conversion from beginning to end.

Responsible for: `convert`: what is copied, how, whether an earlier run is gone on with, and that
no report is given without the proof.

Rules:
- the copy has the source's records, keys, metadata and declared metadata, in the source's order;
  columns that are compressed stay so, with their dictionary, unless something else is said;
- what an earlier run copied is compared with the source at some places before it is gone on with,
  and as a whole, like everything else, at the end;
- workers read, decode and pack, one process writes in order: what is written does not depend on
  how many there are.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, SupportsIndex, TypedDict, Unpack

import numpy as np

from splitpipe.codecs import Zstd
from splitpipe.conversion.blocks import Packer, Reader, block_records, trained
from splitpipe.conversion.origin import declared_metadata, dictionaries, reads_from
from splitpipe.conversion.proof import Compare
from splitpipe.conversion.target import Begun, Note, Plan, Target, begun
from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.schema import BARE, Schema
from splitpipe.storage import files
from splitpipe.storage.options import Compression, checked_bins
from splitpipe.storage.snapshot import read_manifest

__all__ = ["ConversionReport", "ConvertOptions", "Progress", "convert"]

Progress = Callable[[str, int, int], None]
"""Told what is being done (``"copy"`` or ``"compare"``), and how many records of how many are."""

_PLACES: Final = 64


class ConvertOptions(TypedDict, total=False):
    """How the copy is written.

    Attributes:
        bins: how many bins share the records; 64 unless said.
        compression: ``"zstd"`` or a `Zstd` for every column that gains by it, a mapping from
            column to one of them, or ``"none"``. Unless said, columns are as in the source.
        overwrite: replace the dataset that is there. Its records are gone with the first
            commit of the copy; a copy that an earlier run began is begun anew.
    """

    bins: int | None
    compression: str | Zstd | Mapping[str, str | Zstd] | None
    overwrite: bool


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: what was read.
        path: directory of the copy.
        records: how many there are.
        resumed_at: how many of them earlier runs had copied.
        compared: how many were compared with the source and are equal: all of them.
        skipped: how many broken records the source's format had left out, as it was told to.
        nbytes: of the values that this run copied, as they are stored.
    """

    source: str
    path: str
    records: int
    resumed_at: int
    compared: int
    skipped: int
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
    source. One that is done is compared again. The result does not depend on ``workers``.

    Args:
        source: a dataset, a view of one, or a path that `open_dataset` knows.
        path: directory of the copy.
        workers: processes that read the source, decode and compress; 0 does it in this one.
        open_options: for `open_dataset`, when ``source`` is a path: ``format``, ``index_dir``.
        progress: told how far it is.
        options: see `ConvertOptions`.

    Raises:
        StorageError: another dataset is at ``path`` and ``overwrite`` was not said, or the disk
            failed. What was committed is gone on with by the next call.
        CorruptRecord: a record of the source cannot be read (what came before it is kept, and
            gone on with once it is mended), or the copy of one is not equal to it.
        FormatError: the source cannot be copied, or is not the one that the copy was begun of.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> lines, bins = (os.path.join(tempfile.mkdtemp(), name) for name in ("a.jsonl", "bins"))
        >>> with open(lines, "w") as file:
        ...     _ = file.write('{"n": 1}\n{"n": 2}\n')
        >>> sp.convert(lines, bins, workers=0).records, list(sp.open_dataset(bins))
        (2, [{'n': 1}, {'n': 2}])
    """
    if unknown := set(options) - set(ConvertOptions.__annotations__):
        raise TypeError(f"convert has no option {min(unknown)!r}")
    count = _checked_workers(workers)
    if isinstance(source, Dataset):
        return _Conversion(source, path, count, progress).run(options)
    with open_dataset(source, **dict(open_options or {})) as opened:
        return _Conversion(opened, path, count, progress).run(options)


def _checked_workers(workers: SupportsIndex) -> int:
    try:
        count = operator.index(workers)
    except TypeError:
        count = -1
    if isinstance(workers, bool) or count < 0:
        raise FormatError(f"workers must be an integer from 0 on, not {workers!r}")
    return count


class _Conversion:
    """One run of `convert`."""

    def __init__(
        self,
        source: Dataset,
        path: str | os.PathLike[str],
        workers: int,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._path = files.local(path)
        self._workers = workers
        self._progress = progress
        if reads_from(source.records, self._path):
            raise FormatError(f"{self._path} cannot be copied over itself: choose another path")
        self._reader = Reader(source, block_records(source))

    def run(self, options: ConvertOptions) -> ConversionReport:
        note = self._note(options)
        earlier = None if options.get("overwrite") else begun(self._path)
        if earlier is None:
            done, plan = 0, self._plan(options)
            note = replace(note, levels={name: how.level for name, how in plan.zstd.items()})
        else:
            self._check_same(note, earlier)
            note = replace(earlier.note, proven=None)
            done, plan = earlier.rows, self._plan_of(earlier)
        nbytes = self._copy(note, earlier, plan) if done < note.records or not done else 0
        compared = self._compare()
        manifest = read_manifest(self._path)
        replace(note, proven=manifest.generation).write(self._path, manifest.dataset)
        skipped = int(getattr(self._source.records, "skipped", 0))
        return ConversionReport(
            note.source, self._path, note.records, done, compared, skipped, nbytes
        )

    # -- what is there ---------------------------------------------------------------------

    def _note(self, options: ConvertOptions) -> Note:
        bins = options.get("bins")
        return Note(
            source=repr(self._source),
            records=len(self._source),
            schema=self._source.schema.to_json(),
            options={
                "bins": None if bins is None else checked_bins(bins),
                "compression": _described(options.get("compression")),
            },
        )

    def _check_same(self, note: Note, earlier: Begun) -> None:
        """Raise unless an earlier run copied this source, in the same way."""
        before = earlier.note
        for what in ("source", "records", "schema"):
            mine, theirs = getattr(note, what), getattr(before, what)
            if mine != theirs:
                raise FormatError(
                    f"{self._path} is a copy of {before.source}, begun when it was something else "
                    f"than what is to be copied now, {note.source} ({what} differ): choose another "
                    "directory, or say overwrite"
                )
        for what, value in note.options.items():
            if value is not None and value != before.options.get(what):
                raise FormatError(
                    f"{self._path} was begun with {what}={before.options.get(what)}, not {value}: "
                    "leave it out to go on, or say overwrite to begin anew"
                )
        # Sources that are called alike may hold something else, views above all.
        places = np.unique(np.linspace(0, earlier.rows - 1, _PLACES, dtype=np.int64))
        with self._opened_copy() as copy:
            found = Compare(self._reader, Reader(copy, 1)).rows(places)
        if found.difference is not None:
            raise CorruptRecord(
                f"{self._path} is not a copy of {note.source} as it is now: {found.difference}. "
                "Choose another directory, or say overwrite"
            )

    # -- copying ---------------------------------------------------------------------------

    def _copy(self, note: Note, earlier: Begun | None, plan: Plan) -> int:
        """Copy the records that are not copied yet; return their bytes."""
        with Target(self._path, note, earlier, plan) as target:
            packer = Packer(self._reader, plan.schema, plan.zstd)
            for block in self._blocks(packer, target.rows):
                target.add(block)
                self._tell("copy", target.rows)
        return target.nbytes

    def _plan(self, options: ConvertOptions) -> Plan:
        """How a new copy is written."""
        source, wanted = self._source, options.get("compression")
        schema = source.schema
        zstd: dict[str, Zstd] = {}
        if wanted == "none":
            plain = {name: replace(field, compression=None) for name, field in schema.items()}
            schema = Schema(plain[BARE]) if schema.bare else Schema(plain)
        elif wanted is not None:
            compression = Compression(wanted)
            schema = compression.applied(schema)
            zstd = compression.of(schema)
        known = dictionaries(source.records)
        compressed = {
            name: zstd.get(name) or Zstd(dictionary=known.get(name, False))
            for name, field in schema.items()
            if field.compression is not None
        }
        metadata = None
        if source.records.catalog is not None:
            metadata = declared_metadata(source.records)
        return Plan(
            schema,
            trained(self._reader, schema, compressed),
            metadata,
            bins=options.get("bins"),
            overwrite=bool(options.get("overwrite")),
        )

    def _plan_of(self, earlier: Begun) -> Plan:
        """How an earlier run wrote."""
        manifest = earlier.manifest
        schema = manifest.schema
        with self._opened_copy() as copy:
            known = dictionaries(copy.records)
        zstd = {
            name: Zstd(earlier.note.levels.get(name, 3), known.get(name, False))
            for name, field in schema.items()
            if field.compression is not None
        }
        return Plan(schema, zstd, None)

    # -- comparing -------------------------------------------------------------------------

    def _compare(self) -> int:
        """Compare every record of the copy with its source; return how many."""
        compared = 0
        self._tell("compare", 0)
        with self._opened_copy() as copy:
            if len(copy) != len(self._source):
                raise FormatError(f"{self._path} has {len(copy)} records of {len(self._source)}")
            check = Compare(self._reader, Reader(copy, self._reader.size))
            for found in self._blocks(check, 0):
                compared += found.count
                if found.difference is not None:
                    raise CorruptRecord(
                        f"{found.difference}: the source or the copy changed in between, or this "
                        "is a fault of splitpipe. Copy it again with overwrite"
                    )
                self._tell("compare", compared)
        return compared

    def _opened_copy(self) -> Dataset:
        # What the source let us read, the copy may: pickled values are the source's own.
        trusted = any(field.kind == "pickle" for field in self._source.schema.values())
        return open_dataset(self._path, allow_pickle=trusted)

    # -- working ---------------------------------------------------------------------------

    def _blocks(self, work: Callable[[int], Any], first: int) -> Iterator[Any]:
        """What ``work`` makes of the source's rows from ``first`` on, block by block."""
        starts = range(first, len(self._source), self._reader.size)
        if not starts:
            return
        pipe = Pipeline(starts).map(work, workers=self._workers or None, name="read")
        executor = "process" if self._workers else "inline"
        loader: Loader = pipe.loader(executor=executor)
        with loader:
            yield from loader

    def _tell(self, what: str, done: int) -> None:
        if self._progress is not None:
            self._progress(what, done, len(self._source))


def _described(compression: str | Zstd | Mapping[str, str | Zstd] | None) -> Any:
    """A compression as JSON, for the note."""
    if isinstance(compression, Mapping):
        return {name: _described(one) for name, one in compression.items()}
    if not isinstance(compression, Zstd):
        return compression
    given = compression.dictionary
    if isinstance(given, bytes):
        return f"zstd {compression.level} with a dictionary of {len(given)} bytes"
    return f"zstd {compression.level}" + (" with a dictionary" if given else "")
