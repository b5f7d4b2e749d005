"""Writing a catalog: keys, metadata and which values are missing, one file a commit.

Responsible for: `CatalogWriter`, one writing session. The table is described in
``catalog_file``; what may be asked of it, in ``catalog``.

Rules:
- what is wrong with a batch is found before any of it is added;
- a failing disk takes back the batch that met it, and nothing else: it stays pending and can be
  tried again.

Keys come in any order, and keeping an index of random keys up to date takes five times as long as
building it at the end. So while many records are added there is no index: 64 bits of a hash of
every key say that a key is new. One that may not be is looked up, with an index from then on.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError, StorageError
from splitpipe.storage.catalog_file import KEY_INDEX, METADATA_TYPES, CatalogId, check_names
from splitpipe.storage.catalog_values import (
    check_keys,
    declared_value,
    declared_values,
    decode_meta,
    encode_metas,
)
from splitpipe.storage.catalog_work import WorkFile
from splitpipe.storage.hashes import Hashes

__all__ = ["CatalogId", "CatalogWriter"]

# Records, and bytes of metadata, that wait to be added in one transaction.
_PENDING: Final = 8192
_PENDING_NBYTES: Final = 16 << 20
# Records added to a stored catalog before its index of keys is given up until the end; a quarter
# of what is stored, if that is more.
_FEW: Final = 20_000

I64 = npt.NDArray[np.int64]


class CatalogWriter:
    """One writing session over the catalog of the last commit.

    Args:
        directory: of the dataset.
        volume: of the dataset's files.
        previous: the last commit's catalog; ``None`` begins an empty one.
        metadata: declared names and their types: ``int64``, ``float64``, ``str``, ``bool`` or
            ``json``. What was declared before stays so; a new name is filled from the
            metadata of the records that are there.
        columns: the dataset's columns.

    Raises:
        FormatError: a name or a type cannot be, or contradicts what was declared before; or the
            previous catalog is damaged.
        StorageError: the files cannot be read or written.

    Example:
        >>> import tempfile
        >>> writer = CatalogWriter(
        ...     tempfile.mkdtemp(), 1, None, metadata={"length": "int64"}, columns=["text"]
        ... )
        >>> writer.add(0, ["a", "b"], [{"length": 3}, None], {"text": [True, False]})
        >>> writer.row("b")
        1
        >>> writer.finish(0).metadata
        {'length': 'int64'}
        >>> writer.close()
    """

    def __init__(
        self,
        directory: str,
        volume: int,
        previous: CatalogId | None,
        *,
        metadata: Mapping[str, str],
        columns: Sequence[str],
    ) -> None:
        self._metadata = dict(previous.metadata) if previous else {}
        for name, kind in metadata.items():
            if self._metadata.setdefault(name, kind) != kind:
                raise FormatError(
                    f"metadata {name!r} was declared as {self._metadata[name]!r} before, not "
                    f"{kind!r}: declare it as it is, or under another name"
                )
        self._columns = list(columns)
        check_names(self._metadata, self._columns)
        self._closed = False
        # What waits: rows, keys, metadata, declared metadata, presence; a list each.
        self._pending: list[list[Any]] = [[] for _ in range(3 + len(self._metadata) + len(columns))]
        self._pending_keys: set[str] = set()
        self._pending_nbytes = 0
        # Hashes of all keys, as long as they have no index; and how many records may still be
        # added to an index.
        self._known: Hashes | None = None
        self._left = 0
        self._work = WorkFile(directory, volume, previous)
        try:
            self._create() if previous is None else self._complete()
        except BaseException:
            self._work.close()
            raise

    # -- adding ----------------------------------------------------------------------------

    def add(
        self,
        first_row: int,
        keys: Sequence[str | None] | None,
        metas: Sequence[Mapping[str, Any] | None] | None,
        present: Mapping[str, Sequence[bool]] | None,
        *,
        count: int | None = None,
    ) -> None:
        """Add consecutive records.

        Args:
            first_row: the physical row of the first; rows only grow.
            keys: one a record; ``None`` for no key, all or some.
            metas: one metadata dict a record, likewise.
            present: for columns in which values may be missing, whether each record has one. A
                column that is not named here has all its values.
            count: how many records; needed where the other three are ``None``.

        Raises:
            FormatError: a key is there already, twice in the batch, or no string; metadata does
                not fit its declaration or is no JSON. Nothing was added.
            StorageError: the disk failed. Nothing was added.
        """
        self._check_open()
        # What waits is written first: once this batch was looked at, nothing can fail any more.
        if len(self._pending[0]) >= _PENDING or self._pending_nbytes >= _PENDING_NBYTES:
            self._flush()
        total = _count(keys, metas, present, count)
        rows = range(first_row, first_row + total)
        given = [None] * total if keys is None else keys
        values = self._meta_values(rows, metas)
        flags = self._presence(present, total)
        self._claim(given)
        for waiting, new in zip(self._pending, (rows, given, *values, *flags), strict=True):
            waiting.extend(new)
        self._left -= total

    def _meta_values(
        self, rows: range, metas: Sequence[Mapping[str, Any] | None] | None
    ) -> list[Sequence[Any]]:
        """The values of the column ``meta`` and of all declared ones."""
        if metas is None:
            return [[None] * len(rows) for _ in range(1 + len(self._metadata))]
        texts = encode_metas(metas, rows.start)
        self._pending_nbytes += sum(len(text) for text in texts if text is not None)
        declared = [
            declared_values(name, kind, metas, rows.start) for name, kind in self._metadata.items()
        ]
        return [texts, *declared]

    def _presence(
        self, present: Mapping[str, Sequence[bool]] | None, total: int
    ) -> list[Sequence[int | None]]:
        present = present or {}
        for name in present:
            self._check_column(name)
        return [
            [1 if flag else None for flag in present[name]] if name in present else [1] * total
            for name in self._columns
        ]

    def _check_column(self, name: str) -> None:
        if name not in self._columns:
            raise FormatError(
                f"there is no column {name!r}: the columns are {', '.join(self._columns)}"
            )

    # -- keys ------------------------------------------------------------------------------

    def _claim(self, keys: Sequence[str | None]) -> None:
        """Raise unless all keys are new, and remember them."""
        fresh = [key for key in keys if key is not None]
        check_keys(fresh)
        if not fresh:
            return
        if len(set(fresh)) < len(fresh):
            twice = Counter(fresh).most_common(1)[0][0]
            raise FormatError(f"key {twice!r} is there twice in the batch: keys are unique")
        if self._known is None and self._left < len(fresh):
            self._forget_index()
        if self._known is not None:
            hashes = np.fromiter(map(hash, fresh), np.int64, len(fresh))
            if not self._known.any_of(hashes):
                self._known.add(hashes)
                return
            self._build_index()
        for key in fresh:
            if key in self._pending_keys or self._stored_row(key) is not None:
                raise FormatError(
                    f"key {key!r} is there already (row {self.row(key)}): keys are unique; "
                    "update the record that has it, or leave it out"
                )
        self._pending_keys.update(fresh)

    def row(self, key: str) -> int:
        """The physical row of a key.

        Raises:
            KeyError: no record has it.
        """
        self._check_open()
        self._build_index()
        if key in self._pending_keys:
            self._flush()
        row = self._stored_row(key)
        if row is None:
            raise KeyError(key)
        return row

    def _stored_row(self, key: str) -> int | None:
        found = self._work.run("SELECT row FROM records WHERE key = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def _build_index(self) -> None:
        if self._known is None:
            return
        self._flush()
        self._work.run(
            f"CREATE UNIQUE INDEX {KEY_INDEX} ON records (key) WHERE key IS NOT NULL"
        ).fetchall()
        self._known = None
        self._allow_few()

    def _forget_index(self) -> None:
        self._flush()
        known = Hashes()
        cursor = self._work.run("SELECT key FROM records WHERE key IS NOT NULL")
        while found := cursor.fetchmany(_PENDING):
            known.add(np.fromiter((hash(key) for (key,) in found), np.int64, len(found)))
        self._work.run(f"DROP INDEX {KEY_INDEX}").fetchall()
        self._known = known

    def _allow_few(self) -> None:
        """Say after how many more records it pays to build the index of keys anew."""
        (last,) = self._work.run("SELECT coalesce(max(row), 0) FROM records").fetchone()
        self._left = max(_FEW, last // 4)

    # -- changing --------------------------------------------------------------------------

    def set_meta(self, row: int, meta: Mapping[str, Any] | None) -> None:
        """Replace the whole metadata of a record.

        Raises:
            FormatError: there is no such row, or the metadata does not fit.
        """
        self._flush()
        values = [part[0] for part in self._meta_values(range(row, row + 1), [meta])]
        sets = ", ".join(f'"{name}" = ?' for name in ("meta", *self._metadata))
        if self._work.change((f"UPDATE records SET {sets} WHERE row = ?", [(*values, row)])) != 1:
            raise FormatError(f"the catalog has no row {row}")

    def set_present(
        self,
        rows: Sequence[int] | I64,
        column: str,
        present: Sequence[bool] | npt.NDArray[np.bool_],
    ) -> None:
        """Say of records whether they have a value in a column."""
        self._check_column(column)
        self._flush()
        flags = [(1 if flag else None, int(row)) for flag, row in zip(present, rows, strict=True)]
        self._work.change((f'UPDATE records SET "{column}" = ? WHERE row = ?', flags))

    def delete(self, rows: Sequence[int] | I64) -> None:
        """Remove records; their keys are free again."""
        self._flush()
        self._work.change(("DELETE FROM records WHERE row = ?", [(int(row),) for row in rows]))

    def add_column(self, name: str) -> None:
        """Add a column of the dataset, in which all values are missing."""
        if name in self._columns:
            raise FormatError(f"there is a column {name!r} already")
        check_names(self._metadata, [*self._columns, name])
        self._flush()
        self._work.run(f'ALTER TABLE records ADD COLUMN "{name}" INTEGER').fetchall()
        self._columns.append(name)
        self._pending.append([])

    # -- the table -------------------------------------------------------------------------

    def _create(self) -> None:
        typed = [f'"{name}" {METADATA_TYPES[kind]}' for name, kind in self._metadata.items()]
        typed += [f'"{name}" INTEGER' for name in self._columns]
        rest = "".join(f", {column}" for column in typed)
        self._work.run(
            f"CREATE TABLE records (row INTEGER PRIMARY KEY, key TEXT, meta TEXT{rest})"
        ).fetchall()
        self._known = Hashes()

    def _complete(self) -> None:
        """Add what was declared since the last catalog was finished."""
        have = [row[1] for row in self._work.run("PRAGMA table_info(records)").fetchall()]
        for name in self._columns:
            if name not in have:
                self._work.run(f'ALTER TABLE records ADD COLUMN "{name}" INTEGER').fetchall()
        for name, kind in self._metadata.items():
            if name not in have:
                self._work.run(
                    f'ALTER TABLE records ADD COLUMN "{name}" {METADATA_TYPES[kind]}'
                ).fetchall()
                self._fill(name, kind)
        self._allow_few()

    def _fill(self, name: str, kind: str) -> None:
        row = -1
        while found := self._work.run(
            f"SELECT row, meta FROM records WHERE row > ? AND meta IS NOT NULL ORDER BY row "
            f"LIMIT {_PENDING}",
            (row,),
        ).fetchall():
            row = found[-1][0]
            values = [
                (declared_value(name, kind, decode_meta(meta).get(name), at), at)
                for at, meta in found
            ]
            self._work.change((f'UPDATE records SET "{name}" = ? WHERE row = ?', values))

    def _flush(self) -> None:
        self._check_open()
        if self._pending[0]:
            names = ["row", "key", "meta", *self._metadata, *self._columns]
            self._work.insert(names, self._pending)
        for waiting in self._pending:
            waiting.clear()
        self._pending_keys = set()
        self._pending_nbytes = 0

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(errno.EBADF, "the catalog's writer is closed", self._work.path)

    # -- ending ----------------------------------------------------------------------------

    def finish(self, number: int) -> CatalogId:
        """Make what was added so far the catalog of a commit, durable and never changed again.

        Args:
            number: of the file; not that of a catalog that a commit named before.

        Raises:
            StorageError: the disk failed; it may be tried again.
        """
        self._flush()
        self._build_index()
        for name, kind in self._metadata.items():
            if kind != "json":
                self._work.run(
                    f'CREATE INDEX IF NOT EXISTS "metadata_{name}" ON records ("{name}")'
                ).fetchall()
        self._work.run("ANALYZE").fetchall()
        return self._work.publish(number, self._metadata)

    def close(self) -> None:
        """End the session; what was not finished is gone. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._pending.clear()
            self._work.close()

    def __enter__(self) -> CatalogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _count(
    keys: Sequence[Any] | None,
    metas: Sequence[Any] | None,
    present: Mapping[str, Sequence[bool]] | None,
    count: int | None,
) -> int:
    """Of how many records these are."""
    sizes = {len(part) for part in (keys, metas) if part is not None}
    sizes |= {len(flags) for flags in (present or {}).values()}
    if count is not None:
        sizes.add(count)
    if len(sizes) != 1:
        raise FormatError(
            "keys, metadata and presence must be of equally many records, not of "
            f"{' and '.join(map(str, sorted(sizes))) or 'an unknown number (say count=)'}"
        )
    return sizes.pop()
