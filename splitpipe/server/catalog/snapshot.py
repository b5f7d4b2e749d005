"""A dataset as an iteration sees it, from its beginning to its end.

Responsible for: the JSON form of a snapshot, `open_snapshot`, and `blamed`, which tells the column
set that an error is about.

Rules:
- a snapshot says everything: where the files are and which versions of them, how many rows each
  has, the columns, the rule of the join. Opened again, tomorrow or in another process, it is the
  same rows in the same order, or an error;
- it holds no credentials. What may be read is said in it, too, so that a link that was bent later
  leads nowhere;
- files are opened when their rows are read, also those of a join, which is kept: one that is gone
  is an error at its rows, not before.
"""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from splitpipe.dataset.dataset import Dataset
from splitpipe.errors import DatasetChanged, FormatError, SplitpipeError, UnsupportedVersion
from splitpipe.schema import Schema
from splitpipe.server.catalog.columns import columns_of, schema_from
from splitpipe.server.catalog.examine import Found, Wanted
from splitpipe.server.catalog.generations import generation_of_snapshot
from splitpipe.server.catalog.joining import Side, matched, side_by_side
from splitpipe.server.catalog.kept import keep, kept, note, noted
from splitpipe.server.catalog.listing import FileEntry
from splitpipe.server.catalog.locations import Locations, Place
from splitpipe.server.catalog.parts import FilePart, Openings, Reading
from splitpipe.storage.base import MemoryRecords, Records, Rows
from splitpipe.storage.manifest import decode
from splitpipe.storage.snapshot import open_all, read_manifest
from splitpipe.storage.table import OpenOptions, TableRecords
from splitpipe.stores import open_store, told_url
from splitpipe.views.concat import concat
from splitpipe.views.subset import Columns

__all__ = ["SnapshotDataset", "blamed", "counted", "open_snapshot", "pinned_set", "snapshot_of"]

VERSION: Final = 1
_MATCHED: Final = "matched"
"""Folder of what was matched, below that of indices."""
Json = dict[str, Any]


def pinned_set(wanted: Wanted, found: Found) -> Json:
    """A column set as a snapshot has it."""
    return {
        "name": wanted.name,
        "format": wanted.format,
        "location": wanted.location,
        "place": found.place,
        "remote": found.remote,
        "columns": columns_of(found.schema),
        "files": [entry.to_json() for entry in found.entries],
        "rows": found.rows,
        "generation": found.generation,
        "manifest": found.manifest,
    }


def snapshot_of(
    dataset: Mapping[str, Any],
    sets: Sequence[Json],
    *,
    locations: Locations,
    indices: str,
) -> tuple[Json, SnapshotDataset]:
    """A snapshot, looked at, and its records; close them.

    Args:
        dataset: with ``id``, ``name``, ``uid_column`` and ``join``.
        sets: its column sets, see `pinned_set`, the main one first.
        locations: what may be read.
        indices: the folder of indices.

    Raises:
        FormatError: there is no column set, or the rule of the join refuses them.
        StorageError: a file cannot be read.
    """
    if not sets:
        raise FormatError(
            f"dataset {dataset['name']!r} has no column set yet: add one, or write one"
        )
    snapshot: Json = {
        "version": VERSION,
        "dataset": dict(dataset),
        "locations": locations.to_json(),
        "indices": indices,
        "column_sets": list(sets),
    }
    owned: list[Any] = []
    try:
        opened = _sets(snapshot, owned, decode_media=False)
        uid = dataset["uid_column"]
        rows = _matched(snapshot, opened)
        records = side_by_side(opened, uid, rows)
        snapshot["rows"] = len(records)
    except BaseException:
        _close(owned)
        raise
    return snapshot, SnapshotDataset(records, owned)


def _matched(snapshot: Json, sets: Sequence[tuple[str, Records]]) -> Rows | None:
    """Which rows of all sets make a record, and what did not fit, into the snapshot.

    It is found out once for every state of a dataset: the uids of all sets are read for it.
    """
    dataset = snapshot["dataset"]
    folder, name = os.path.join(snapshot["indices"], _MATCHED), generation_of_snapshot(snapshot)
    known = noted(folder, name)
    if known is not None and set(known) == {"join", "matched"}:
        rows = None if len(sets) == 1 else kept(folder, known["matched"])
        if rows is not None or len(sets) == 1:
            snapshot.update(known)
            return rows
    found = matched(sets, dataset["uid_column"], dataset["join"])
    told = None if found.rows is None else keep(folder, name, found.rows)
    snapshot.update(join=[side.to_json() for side in found.sides], matched=told)
    note(folder, name, {"join": snapshot["join"], "matched": told})
    return found.rows


def counted(
    dataset: Mapping[str, Any], sets: Sequence[Json], *, locations: Locations, indices: str
) -> list[Side]:
    """What does not fit in the join of column sets, whatever its rule says about that.

    Raises:
        FormatError: the sets cannot be compared.
        StorageError: a uid cannot be read.
    """
    snapshot: Json = {
        "dataset": {**dataset, "join": None},
        "locations": locations.to_json(),
        "indices": indices,
        "column_sets": list(sets),
    }
    owned: list[Any] = []
    try:
        opened = _sets(snapshot, owned, decode_media=False)
        return matched(opened, dataset["uid_column"], None).sides
    finally:
        _close(owned)


def open_snapshot(
    snapshot: Mapping[str, Any],
    columns: Sequence[str] | None = None,
    *,
    decode: bool = False,
) -> SnapshotDataset:
    """Open a dataset as a snapshot has it.

    Args:
        snapshot: of `Datasets.pin`.
        columns: those of a record, in this order; all unless said.
        decode: give images, sound and video of bins decoded instead of as bytes.

    Returns:
        The dataset; close it.

    Raises:
        FormatError: there is no such column, or the rule of the join refuses what is there.
        DatasetChanged: bins of it were removed since.
        StorageError: a uid cannot be read.
        UnsupportedVersion: a newer server made the snapshot.
    """
    if snapshot.get("version") != VERSION:
        raise UnsupportedVersion(
            f"this snapshot is of version {snapshot.get('version')!r}, made by a newer splitpipe: "
            "update it"
        )
    owned: list[Any] = []
    try:
        sets = _sets(snapshot, owned, decode_media=decode)
        uid = snapshot["dataset"]["uid_column"]
        records = side_by_side(sets, uid, _rows(snapshot, sets))
        if len(records) != snapshot["rows"]:
            raise DatasetChanged(
                errno.ESTALE,
                f"the dataset has {len(records)} records and had {snapshot['rows']}: values of its "
                "uid column were changed; begin another iteration",
                str(snapshot["dataset"]["name"]),
            )
        if columns is not None:
            records = Columns(records, records.schema.select(columns))
    except BaseException:
        _close(owned)
        raise
    return SnapshotDataset(records, owned)


def _sets(
    snapshot: Mapping[str, Any], owned: list[Any], *, decode_media: bool
) -> list[tuple[str, Records]]:
    return [
        (one["name"], _records(one, snapshot, owned, decode_media=decode_media))
        for one in snapshot["column_sets"]
    ]


def _rows(snapshot: Mapping[str, Any], sets: Sequence[tuple[str, Records]]) -> Rows | None:
    """Which rows of all sets make a record; matched again only where that was not kept."""
    if len(sets) == 1:
        return None
    found = kept(os.path.join(snapshot["indices"], _MATCHED), snapshot["matched"])
    if found is not None:
        return found
    dataset = snapshot["dataset"]
    return matched(sets, dataset["uid_column"], dataset["join"]).rows


def _records(
    one: Mapping[str, Any], snapshot: Mapping[str, Any], owned: list[Any], *, decode_media: bool
) -> Records:
    """The rows of one column set."""
    locations = Locations.from_json(snapshot["locations"])
    schema = schema_from(one["columns"])
    if one["format"] == "bins":
        options = OpenOptions(decode=decode_media)
        try:
            records = _bins(one, locations, options)
        except SplitpipeError as error:
            error.add_note(f"of column set {one['name']!r}")
            raise
        owned.append(records)
        same = not records.schema.bare and list(records.schema) == list(schema)
        return records if same else Columns(records, Schema({n: records.schema[n] for n in schema}))
    reading = Reading(
        one["name"],
        one["format"],
        one["place"],
        one["remote"],
        schema,
        locations,
        snapshot["indices"],
    )
    openings = Openings()
    owned.append(openings)
    entries = [FileEntry.from_json(entry) for entry in one["files"]]
    parts = [FilePart(reading, entry, openings, len(entries)) for entry in entries if entry.rows]
    if not parts:
        return MemoryRecords(schema, {name: [] for name in schema})
    return parts[0] if len(parts) == 1 else concat(parts)


def _bins(one: Mapping[str, Any], locations: Locations, options: OpenOptions) -> Any:
    wanted = decode(base64.b64decode(one["manifest"]), told_url(one["place"]))
    if not one["remote"]:
        path = locations.inside(one["place"])
        try:
            return TableRecords(path, open_all(path, wanted), options)
        except FormatError as error:
            if os.path.isdir(path) and read_manifest(path).dataset == wanted.dataset:
                raise
            raise DatasetChanged(
                errno.ESTALE,
                f"the bins of column set {one['name']!r} were overwritten: begin another iteration",
                path,
            ) from error
    from splitpipe.cache import BlockCache
    from splitpipe.remote import RemoteRecords
    from splitpipe.remote.versions import Versions

    place: Place = locations.place(one["place"])
    cache = BlockCache(None if locations.cache is None else os.path.join(locations.cache, "blocks"))
    store = open_store(place.path, storage_options=locations.options_for(place.path))
    try:
        return RemoteRecords(store, wanted, Versions(store), cache, options=options)
    except BaseException:
        store.close()
        cache.close()
        raise


class SnapshotDataset(Dataset):
    """A dataset that closes the column sets that it is made of.

    Args:
        records: its rows.
        owned: what is closed with it.
    """

    __slots__ = ("owned",)

    def __init__(self, records: Records, owned: Sequence[Any] = ()) -> None:
        super().__init__(records)
        self.owned = tuple(owned)

    def where(
        self, clause: str, parameters: Sequence[Any] = (), *, limit: int | None = None
    ) -> Dataset:
        """See `Dataset.where`; without a catalog, the columns that are named are read for it."""
        if self.records.catalog is not None:
            return super().where(clause, parameters, limit=limit)
        from splitpipe.raw.catalog import TableCatalog  # a large room for a rare wish

        rows = TableCatalog(self.records).where(clause, parameters, limit=limit)
        return self.subset(rows)

    def close(self) -> None:
        """Let go of all files; a second call does nothing."""
        super().close()
        _close(self.owned)

    def __reduce__(self) -> Any:
        return SnapshotDataset, (self._records, self.owned)


def _close(owned: Sequence[Any]) -> None:
    for one in owned:
        one.close()


def blamed(error: BaseException, snapshot: Mapping[str, Any]) -> str | None:
    """The column set that an error names, or a file of which it names; ``None`` if there is none.

    Example:
        >>> one = {"name": "train", "place": "/data/train"}
        >>> blamed(FormatError("/data/train/a.csv is cut"), {"column_sets": [one]})
        'train'
    """
    told = "\n".join([str(error), *getattr(error, "__notes__", ())])
    best, longest = None, -1
    for one in snapshot["column_sets"]:
        place = told_url(one["place"])
        if place in told and len(place) > longest:
            best, longest = one["name"], len(place)
        if f"column set {one['name']!r}" in told:
            return str(one["name"])
    return best
