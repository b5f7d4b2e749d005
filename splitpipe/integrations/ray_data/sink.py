"""Datasets of Ray, written as one dataset of ours.

Responsible for: `Datasink`, whose tasks write parts and whose commit makes one dataset of them, and
`from_ray`.

Rules:
- a part belongs to one attempt of one task and has a name that no other has: an attempt that died
  half way, or that was made again, leaves something that nobody names;
- only parts that Ray reports as written are taken, each task once, in the order of tasks; their
  records are counted again, and the sum has to be what Ray says it wrote;
- credentials stay where the commit is made: tasks are given neither the url nor the options;
- keys and metadata are columns of parts, and become what they are in the commit: whether a key is
  there twice is known then;
- the dataset is there as a whole or not at all: the commit is that of every other writer;
- parts lie in a folder of this run, which is removed when it is over, however it ends, as long as
  the process that began it lives.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.block import Block as RayBlock
from ray.data.block import BlockAccessor
from ray.data.datasource import WriteResult

from splitpipe.conversion.blocks import Block, Packer, Reader, block_records
from splitpipe.dataset import Dataset, dataset_of, open_dataset
from splitpipe.dataset.opening import is_remote
from splitpipe.errors import FormatError, PipelineError, StorageError
from splitpipe.integrations.labelled import label_fields
from splitpipe.integrations.ray_data.blocks import columns_of, schema_of
from splitpipe.schema import BARE, FieldLike, Schema
from splitpipe.storage import files
from splitpipe.storage.base import MemoryRecords
from splitpipe.storage.session import Opening, Session
from splitpipe.storage.volume import find

__all__ = ["Datasink", "Part", "from_ray"]

SchemaLike = Schema | Mapping[str, FieldLike] | FieldLike

# What is held before it is written.
_HELD_NBYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """What one attempt of one write task made.

    Attributes:
        task: its number.
        path: the folder; ``None`` where there was nothing to write.
        rows: how many records it has.
    """

    task: int
    path: str | None
    rows: int


class Datasink(ray.data.Datasink[Part]):  # type: ignore[misc]  # Ray's are not read for types
    """Writes a Ray dataset as a dataset of ours, for ``ray.data.Dataset.write_datasink``.

    Records come in the order of Ray's write tasks: that of the data where Ray keeps it
    (``DataContext.execution_options.preserve_order``, or read, map and write in one task).

    Args:
        path: the dataset's directory, reached from every node by the same path; or its url.
        schema: what a record is; without it, what the first block suggests.
        overwrite, append: as for `DatasetWriter`.
        bins: how many bins share the records.
        parts_dir: the folder in which tasks leave their parts, reached from every node by the same
            path. Default: one beside ``path``; for a url it has to be said.
        storage_options: for the store at a url.
        keys: a column of texts that holds the keys of records, and is none of theirs.
        metas: the same of their metadata: objects, or texts of JSON.

    Raises:
        FormatError: options contradict each other, or a column is of pickled values.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: SchemaLike | None = None,
        *,
        overwrite: bool = False,
        append: bool = False,
        bins: int | None = None,
        parts_dir: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        keys: str | None = None,
        metas: str | None = None,
    ) -> None:
        if append and overwrite:
            raise FormatError("say append or overwrite, not both")
        self._remote = is_remote(path)
        if self._remote and parts_dir is None:
            raise FormatError(
                "say parts_dir=: a folder that every node reaches, for what tasks write before "
                "the commit uploads it"
            )
        self._path = os.fspath(path) if self._remote else files.local(path)
        where = os.path.dirname(self._path) if parts_dir is None else files.local(parts_dir)
        name = os.path.basename(self._path.rstrip("/")) or "dataset"
        self._parts = os.path.join(where, f".{name}.parts-{secrets.token_hex(8)}")
        self._labels = _Labels(keys, metas)
        # Of what tasks write.
        self._schema = None if schema is None else self._labels.added(Schema.parse(schema))
        self._opening = Opening(bins=bins, append=append, overwrite=overwrite)
        self._storage_options = storage_options

    def __getstate__(self) -> dict[str, Any]:
        # What travels to tasks, through Ray's store: they write parts, and need nothing else.
        return {**self.__dict__, "_path": "", "_storage_options": None}

    def get_name(self) -> str:
        """What write tasks are called."""
        return "Splitpipe"

    def on_write_start(self, schema: Any = None) -> None:
        """Look whether the dataset may be written, before anything is read.

        Raises:
            StorageError: there is a dataset already, or the folder cannot be made.
        """
        if self._schema is None and isinstance(schema, pa.Schema):
            self._schema = self._labels.typed(schema)
        if not self._remote:
            how = self._opening
            find(self._path, change=how.append or how.overwrite)
        try:
            os.makedirs(self._parts, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(
                error.errno or errno.EIO,
                f"cannot make the folder for what tasks write: {error.strerror}",
                self._parts,
            ) from error

    def write(self, blocks: Iterable[RayBlock], ctx: Any) -> Part:
        """Write the part of one task; runs in the task.

        Raises:
            FormatError: a value does not fit its column.
            StorageError: the folder cannot be written; it has to be there on every node.
        """
        number, made = int(ctx.task_idx), None
        path = os.path.join(self._parts, f"{number:06d}-{secrets.token_hex(8)}")
        tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
        filled = (table for table in tables if table.num_rows)
        first = next(filled, None)
        if first is None:
            return Part(number, None, 0)
        if not os.path.isdir(self._parts):
            raise StorageError(
                errno.ENOENT,
                "this node does not see the folder that the writing program made: say parts_dir=, "
                "a folder that all nodes share",
                self._parts,
            )
        schema = self._schema or self._labels.typed(first.schema)
        with _written(Session(path, Opening(bins=1), schema)) as session:
            made = _Filling(session, schema)
            made.add(first)
            for table in filled:
                made.add(table)
        return Part(number, path, made.rows)

    def on_write_complete(self, write_result: WriteResult[Part]) -> None:
        """Make one dataset of all parts.

        Raises:
            PipelineError: Ray does not tell of every record once.
            LockedError: somebody else writes there.
            StorageError: it cannot be written.
        """
        parts = sorted(write_result.write_returns, key=lambda part: part.task)
        _check(parts, write_result)
        there = [part for part in parts if part.path is not None]
        schema = self._schema
        if schema is None and there:
            schema = open_dataset(str(there[0].path)).schema
        with _written(self._session(self._labels.removed(schema))) as session:
            for part in there:
                _copy(session, part, self._labels)
        self._remove_parts()

    def on_write_failed(self, error: Exception) -> None:
        """Take back what tasks left."""
        self._remove_parts()

    def _session(self, schema: Schema | None) -> Session:
        # What is there says the schema of what is added to it.
        known = None if self._opening.append else schema
        if not self._remote:
            return Session(self._path, self._opening, known)
        upload = import_module("splitpipe.remote.upload")
        made: Session = upload.UploadingSession(
            self._path, self._opening, known, storage_options=self._storage_options
        )
        return made

    def _remove_parts(self) -> None:
        # Its name was made for this run alone.
        shutil.rmtree(self._parts, ignore_errors=True)


def _checked(schema: Schema) -> Schema:
    for name, field in schema.items():
        if field.kind == "pickle":
            raise FormatError(
                f"column {name!r} is of pickled values, which are not taken from Ray: say another "
                "type"
            )
    return schema


@dataclass(frozen=True, slots=True)
class _Labels:
    """The columns of blocks that are keys and metadata; `None`: there are none."""

    keys: str | None
    metas: str | None

    def __post_init__(self) -> None:
        label_fields(self.keys, self.metas)

    def added(self, schema: Schema) -> Schema:
        """The schema of parts, from that of records."""
        more = label_fields(self.keys, self.metas)
        if both := more.keys() & set(schema):
            raise FormatError(f"column {min(both)!r} of the schema cannot be keys or metadata, too")
        return _checked(Schema({**schema, **more}) if more else schema)

    def typed(self, kind: pa.Schema) -> Schema:
        """The schema of parts, as blocks suggest it."""
        more = label_fields(self.keys, self.metas)
        if missing := more.keys() - set(kind.names):
            raise FormatError(f"the blocks have no column {min(missing)!r}: {kind.names}")
        names = [name for name in kind.names if name not in more]
        return self.added(schema_of(pa.schema([kind.field(name) for name in names])))

    def removed(self, schema: Schema | None) -> Schema | None:
        """The schema of records, from that of parts."""
        if schema is None or not (more := label_fields(self.keys, self.metas)):
            return schema
        names = [name for name in schema if name not in more]
        return Schema(schema[BARE] if names == [BARE] else {name: schema[name] for name in names})

    def enlist(self, session: Session, source: Dataset, block: Block) -> None:
        """Tell the catalog of records that are about to be added.

        Raises:
            FormatError: a key is there already, or metadata is no object.
        """
        names = [name for name in (self.keys, self.metas) if name is not None]
        if not names and session.catalog is None:
            return
        rows = np.arange(block.start, block.start + block.count, dtype=np.int64)
        found = source.records.read(rows, names) if names else {}
        there = {name: column.lengths >= 0 for name, column in block.columns.items()}
        present = {name: made.tolist() for name, made in there.items() if not made.all()}
        session.open_catalog({}).add(
            session.rows,
            None if self.keys is None else list(found[self.keys]),
            None if self.metas is None else [meta or None for meta in found[self.metas]],
            present,
            count=block.count,
        )
        session.catalog_changed = True


def _check(parts: list[Part], told: WriteResult[Part]) -> None:
    """Raise ``PipelineError`` unless every task tells of its records once."""
    rows = sum(part.rows for part in parts)
    if len({part.task for part in parts}) != len(parts) or rows != told.num_rows:
        raise PipelineError(
            f"Ray wrote {told.num_rows} records, {len(parts)} write tasks tell of {rows}: nothing "
            "was committed; write again"
        )


@contextmanager
def _written(session: Session) -> Iterator[Session]:
    """A session that commits, or takes everything back."""
    try:
        yield session
        session.commit()
    except BaseException:
        session.abort()
        raise
    session.release()


class _Filling:
    """Blocks of Ray as they go into a session.

    Attributes:
        rows: how many records there were.
    """

    def __init__(self, session: Session, schema: Schema) -> None:
        self.rows = 0
        self._session, self._schema = session, schema

    def add(self, table: pa.Table) -> None:
        """Add the records of a block."""
        columns: Any = columns_of(table, self._schema)  # arrays are sequences enough
        records = MemoryRecords(self._schema, columns)
        reader = Reader(dataset_of(records), len(records))
        _take(self._session, Packer(reader, self._schema, {})(0))
        self.rows += len(records)


def _take(session: Session, block: Block) -> None:
    for name, intake in session.intakes.items():
        intake.pending.extend(block.columns[name].values())
    session.flush()


def _copy(session: Session, part: Part, labels: _Labels) -> None:
    """Add the records of a part.

    Raises:
        PipelineError: it has not as many as its task said.
    """
    source = open_dataset(str(part.path))
    try:
        if len(source) != part.rows:
            raise PipelineError(
                f"the part of write task {part.task} has {len(source)} records, the task wrote "
                f"{part.rows}: nothing was committed"
            )
        schema, made = session.manifest.schema, labels.removed(source.schema)
        if made != schema:
            raise FormatError(
                f"write task {part.task} made {made!r}, the dataset has {schema!r}: say "
                "schema= for what is written"
            )
        reader = Reader(source, max(1, block_records(source)))
        packer = Packer(reader, schema, {})
        for start in range(0, len(source), reader.size):
            block = packer(start)
            labels.enlist(session, source, block)
            _take(session, block)
    finally:
        source.close()


def from_ray(
    dataset: Any, path: str | os.PathLike[str], schema: SchemaLike | None = None, **options: Any
) -> None:
    """Write a ``ray.data.Dataset`` as a dataset.

    Args:
        dataset: of Ray.
        path: the dataset's directory, reached from every node by the same path; or its url.
        schema: what a record is; without it, what the first block suggests.
        options: see `Datasink`; ``concurrency`` and ``ray_remote_args`` are for Ray.

    Raises:
        StorageError: there is a dataset already and neither ``append`` nor ``overwrite`` was said,
            or it cannot be written.
        FormatError: a value does not fit its column.
    """
    how = {
        name: options.pop(name) for name in ("concurrency", "ray_remote_args") if name in options
    }
    dataset.write_datasink(Datasink(path, schema, **options), **how)
