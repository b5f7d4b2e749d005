"""An export from beginning to end.

Responsible for: `export`: what is written, by whom, the proof, and the report.

Rules:
- what was written is read again, by the reader of that format, and compared with the source record
  by record, before the folder gets its name;
- workers read and pack, one process writes, in order: what is written does not depend on how many
  there are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack

import numpy as np

from splitpipe.conversion.blocks import BLOCK_NBYTES, Reader, block_records, name_of
from splitpipe.conversion.proof import differs
from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.integrations.exports.base import Form, Packed, Settings
from splitpipe.integrations.exports.columnar import HuggingFaceForm, ParquetForm
from splitpipe.integrations.exports.folder import NewFolder
from splitpipe.integrations.exports.mds import MdsForm
from splitpipe.integrations.exports.webdataset import WebDatasetForm
from splitpipe.integrations.labelled import with_labels
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline

__all__ = ["ExportOptions", "ExportReport", "export"]

Progress = Callable[[str, int, int], None]

_FORMS: Final[Mapping[str, Callable[[Settings], Form]]] = {
    "mds": MdsForm,
    "webdataset": WebDatasetForm,
    "parquet": ParquetForm,
    "hf": HuggingFaceForm,
}
_FIRST: Final = 16
SHARD_NBYTES: Final = 64 << 20


class ExportOptions(TypedDict, total=False):
    """How an export is written.

    Attributes:
        columns: which columns, all of them unless said.
        keys: the column that keys of records become there; ``"__key__"`` names the samples of
            WebDataset. Unless said they are left out.
        metas: the column that their metadata becomes, as JSON. Unless said it is left out.
        compression: MDS: ``"zstd"`` or ``"none"`` (unless said); Parquet: a codec that it knows,
            ``"zstd"`` unless said.
        extensions: of WebDataset: column -> extension of its members.
        shard_nbytes: about how large a file becomes; 64 MiB unless said.
        overwrite: replace an earlier export. Readers see that or the new one; a folder that holds
            anything else is not touched.
    """

    columns: Sequence[str] | None
    keys: str | None
    metas: str | None
    compression: str | None
    extensions: Mapping[str, str] | None
    shard_nbytes: int
    overwrite: bool


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        source: what was read.
        path: folder of the export.
        to: its format.
        records: how many there are; each was read again and is equal.
        files: how many files hold them.
        nbytes: of these files.
        changed: column -> what it is there, where the format has no type of that kind.
        left_out: what was not asked for: ``keys and metadata``, or one of them.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> with sp.DatasetWriter(path := tempfile.mkdtemp()) as writer:
        ...     writer.write({"yes": True})
        >>> report = sp.export(path, os.path.join(tempfile.mkdtemp(), "mds"), "mds")
        >>> report.records, report.files, report.changed
        (1, 2, {'yes': 'uint8'})
    """

    source: str
    path: str
    to: str
    records: int
    files: int
    nbytes: int
    changed: Mapping[str, str]
    left_out: tuple[str, ...]


def export(
    source: Dataset | str | os.PathLike[str],
    path: str | os.PathLike[str],
    to: str,
    *,
    workers: int = 0,
    progress: Progress | None = None,
    **options: Unpack[ExportOptions],
) -> ExportReport:
    """Write a dataset in the format of another library, and prove that it reads back the same.

    The folder appears when everything is written and compared; a run that fails leaves nothing
    of that name. ``docs/exporting.md`` says what becomes of which column.

    Args:
        source: a dataset, a view of one, or a path that `open_dataset` knows.
        path: folder to write, which must not hold anything.
        to: ``"mds"``, ``"webdataset"``, ``"parquet"`` or ``"hf"`` (a folder for Hugging Face's
            ``load_from_disk``).
        workers: processes that read and pack; 0 does it in this one.
        progress: told what is being done, and how many records of how many are.
        options: see `ExportOptions`.

    Raises:
        FormatError: the format cannot hold a column or a value, named.
        StorageError: something is at ``path``, or it cannot be written.
        CorruptRecord: a record cannot be read, or did not come back equal.

    Example:
        >>> import os, tempfile, splitpipe as sp
        >>> folder = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(os.path.join(folder, "ds")) as writer:
        ...     writer.write_many([{"text": "a", "label": 1}, {"text": "b", "label": 2}])
        >>> shards = os.path.join(folder, "shards")
        >>> sp.export(os.path.join(folder, "ds"), shards, "mds").records
        2
        >>> sp.open_dataset(shards)[1]
        {'label': 2, 'text': 'b'}
    """
    if unknown := set(options) - set(ExportOptions.__annotations__):
        raise TypeError(f"export has no option {min(unknown)!r}")
    if to not in _FORMS:
        raise FormatError(f"datasets are exported to {', '.join(_FORMS)}, not to {to!r}")
    if isinstance(source, Dataset):
        return _Export(source, path, to, workers, progress).run(options)
    with open_dataset(source) as opened:
        return _Export(opened, path, to, workers, progress).run(options)


class _Export:
    """One run of `export`."""

    def __init__(
        self,
        source: Dataset,
        path: str | os.PathLike[str],
        to: str,
        workers: int,
        progress: Progress | None,
    ) -> None:
        if not len(source):
            raise FormatError(f"{name_of(source)} has no records: there is nothing to export")
        self._name = name_of(source)
        self._source = source
        self._path, self._to = path, to
        self._workers = workers
        self._progress = progress

    def run(self, options: ExportOptions) -> ExportReport:
        source = self._source
        columns = options.get("columns")
        if columns is not None:
            source = source.select(columns)
        labels = {"keys": options.get("keys"), "metadata": options.get("metas")}
        has_catalog = source.records.catalog is not None
        source = self._source = with_labels(source, labels["keys"], labels["metadata"])
        limit = options.get("shard_nbytes", SHARD_NBYTES)
        if isinstance(limit, bool) or limit < 1:
            raise FormatError(f"shard_nbytes must be a number of bytes, not {limit!r}")
        form = _FORMS[self._to](
            Settings(
                source.schema,
                source.records.read(np.arange(min(_FIRST, len(source))), tuple(source.schema)),
                options.get("compression"),
                options.get("extensions") or {},
                limit,
            )
        )
        with NewFolder(self._path, overwrite=bool(options.get("overwrite"))) as folder:
            reader = Reader(source, _block_records(source, limit))
            with closing(form.sink(folder.partial)) as sink:
                for packed in self._blocks("write", Pack(reader, form)):
                    sink.add(packed)
                sink.finish()
            self._prove(reader, form, folder.partial)
            sizes = [entry.stat().st_size for entry in os.scandir(folder.partial)]
            folder.commit()
        without = [what for what, name in labels.items() if has_catalog and name is None]
        return ExportReport(
            *(self._name, folder.path, self._to, len(source), len(sizes), sum(sizes)),
            changed=dict(form.changed),
            left_out=(" and ".join(without),) if without else (),
        )

    def _prove(self, reader: Reader, form: Form, folder: str) -> None:
        with tempfile.TemporaryDirectory() as scratch, form.opened(folder, scratch) as copy:
            if len(copy) != len(self._source):
                raise CorruptRecord(
                    f"{len(copy)} records of {len(self._source)} came back from the export: this "
                    "is a fault of splitpipe"
                )
            for difference in self._blocks("compare", Prove(reader, form, copy)):
                if difference is not None:
                    raise CorruptRecord(difference)

    def _blocks(self, what: str, work: Callable[[int], Any]) -> Iterator[Any]:
        """What ``work`` makes of the source's rows, block by block."""
        size, total = work_size(work), len(self._source)
        pipe = Pipeline(range(0, total, size)).map(work, workers=self._workers or None, name=what)
        loader: Loader = pipe.loader(executor="process" if self._workers else "inline")
        with loader:
            for number, made in enumerate(loader, 1):
                yield made
                if self._progress is not None:
                    self._progress(what, min(number * size, total), total)


def _block_records(source: Dataset, shard_nbytes: int) -> int:
    """How many records at a time: no more than a file shall hold."""
    usual = block_records(source)
    return max(1, min(usual, usual * shard_nbytes // BLOCK_NBYTES))


def work_size(work: Any) -> int:
    """How many records a piece of work is about."""
    return int(work.reader.size)


class Pack:
    """Reads a block and packs it; travels to workers.

    Args:
        reader: of the source.
        form: of the export.
    """

    def __init__(self, reader: Reader, form: Form) -> None:
        self.reader = reader
        self._form = form

    def __call__(self, start: int) -> Packed:
        """The block that begins with row ``start``."""
        values = self.reader.read(self.reader.rows(start)).values
        return self._form.pack(values, start)


class Prove:
    """Compares a block with what was written of it; travels to workers.

    Args:
        reader: of the source.
        form: of the export.
        copy: what was written.
    """

    def __init__(self, reader: Reader, form: Form, copy: Dataset) -> None:
        self.reader = reader
        self._form = form
        self._copy = copy

    def __call__(self, start: int) -> str | None:
        """What differs first in the block that begins with row ``start``, in words."""
        rows = self.reader.rows(start)
        wanted = self.reader.read(rows).values
        schema = self.reader.dataset.schema
        there = [name for name in self._form.columns(list(schema)) if name in self._copy.schema]
        found = self._copy.records.read(rows, there)
        for name, field in schema.items():
            values = self._form.restored(name, found)
            at = differs(field, wanted[name], values)
            if at is not None:
                return (
                    f"column {name!r} of record {rows[at]} would be {values[at]!r:.60} there, not "
                    f"{wanted[name][at]!r:.60}: leave the column out, or convert it first"
                )
        return None
