"""Datasets and column sets, as the database knows them.

Responsible for: `Datasets`: creating, listing and deleting datasets; adding, syncing and removing
column sets; pinning a dataset for an iteration.

Rules:
- adding a column set never changes another one, nor where the others lie;
- what is found out about files is found out outside of any transaction, and written in one;
- what is asked for and not there is `NotFound`, what contradicts what is there is `Conflict`;
- data is removed only where it was uploaded here, and only when that is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from splitpipe.errors import Conflict, InvalidRequest, NotFound, SplitpipeError
from splitpipe.schema import Schema
from splitpipe.server.catalog import adding
from splitpipe.server.catalog.columns import columns_of, schema_from
from splitpipe.server.catalog.examine import Found, Wanted, examine
from splitpipe.server.catalog.held import Pinned
from splitpipe.server.catalog.joining import RULES
from splitpipe.server.catalog.listing import FileEntry
from splitpipe.server.catalog.locations import Locations
from splitpipe.server.catalog.pins import Pins
from splitpipe.server.catalog.preview import media, preview
from splitpipe.server.catalog.rows import (
    ID,
    all_told,
    check_absent,
    check_clashes,
    check_name,
    check_uid,
    checked_uid,
    dataset_row,
    entries_of,
    set_row,
    set_rows,
    stored,
    told,
    told_set,
)
from splitpipe.server.state import Database, new_id, now_s
from splitpipe.server.state.tables import column_sets, datasets, statistics

__all__ = ["Datasets"]

Json = dict[str, Any]
Progress = Callable[[int, int], None]


class Datasets:
    """The datasets of a server.

    Args:
        database: where they are kept.
        locations: what may be read.
        indices: a folder for indices of files of text.
    """

    def __init__(self, database: Database, locations: Locations, *, indices: str) -> None:
        self.database = database
        self.locations = locations
        self.indices = indices
        self._pins = Pins(locations, indices)

    # -- datasets --------------------------------------------------------------------------

    def create(self, name: str, *, uid_column: str | None = None, join: str = "left") -> Json:
        """Make a dataset without column sets; said again, that gives the one that is there.

        Args:
            name: letters, digits, ``_``, ``-`` and ``.``.
            uid_column: the column by which its column sets are joined; ``None``: by row.
            join: ``left``, ``inner`` or ``strict``: what becomes of records without a partner.

        Raises:
            InvalidRequest: a name or rule cannot be.
            Conflict: there is another dataset of this name.
        """
        check_name(name, "dataset")
        if ID.fullmatch(name):
            raise InvalidRequest(f"{name!r} looks like an id: choose another name")
        if join not in RULES:
            raise InvalidRequest(f"join must be one of {', '.join(RULES)}, not {join!r}")
        if uid_column is not None:
            checked_uid(uid_column)
        row = {
            "id": new_id(),
            "name": name,
            "uid_column": uid_column,
            "join_rule": join,
            "created_at": now_s(),
        }
        try:
            with self.database.write() as connection:
                connection.execute(sa.insert(datasets).values(row))
        except IntegrityError as error:
            there = self.get(name)
            if (there["uid_column"], there["join"]) != (uid_column, join):
                raise Conflict(
                    f"there is a dataset {name!r} already: choose another name, or delete that one"
                ) from error
        return self.get(name)

    def list(self) -> Sequence[Json]:
        """All datasets by name, with their column sets."""
        with self.database.read() as connection:
            return all_told(connection)

    def get(self, dataset: str) -> Json:
        """A dataset by its name or id.

        Raises:
            NotFound: there is none.
        """
        return told(*self._rows(dataset))

    def delete(self, dataset: str, *, remove_data: bool = False) -> None:
        """Forget a dataset and its column sets.

        Args:
            dataset: name or id.
            remove_data: also remove what was uploaded into it. Files elsewhere are never touched.

        Raises:
            NotFound: there is none.
        """
        with self.database.write() as connection:
            row = dataset_row(connection, dataset)
            sets = set_rows(connection, row["id"])
            connection.execute(sa.delete(datasets).where(datasets.c.id == row["id"]))
        self._pins.close()
        if remove_data:
            for one in sets:
                self._remove_uploaded(one)

    # -- column sets -----------------------------------------------------------------------

    def add_column_set(
        self,
        dataset: str,
        name: str,
        *,
        location: str,
        format: str,
        columns: Any = None,
        progress: Progress | None = None,
    ) -> Json:
        """Add columns that lie somewhere; the first set of a dataset says its order and rows.

        Said again, that gives the set that is there.

        Args:
            dataset: name or id.
            name: of the set.
            location: a path below the server's data, an absolute one, a pattern, or a url.
            format: ``bins``, ``csv``, ``jsonl`` or ``parquet``.
            columns: names and types; inferred from the first file unless said.
            progress: told how many files of how many were looked at.

        Returns:
            The column set.

        Raises:
            NotAllowed: the operator does not let it be read.
            FormatError: a file does not fit, or a column of another set has the same name.
            Conflict: there is another set of this name.
        """
        wanted = adding.wanted(
            self, dataset, name, location=location, format=format, columns=columns
        )
        there = adding.same_set(self, dataset, wanted)
        return there or adding.added(self, dataset, wanted, examine(wanted, progress=progress))

    def insert_set(
        self, dataset: str, name: str, location: str, format: str, values: Mapping[str, Any]
    ) -> Json:
        """Write a column set into the database, behind those that are there.

        Raises:
            Conflict: there is one of this name.
            FormatError: a column of another set has the same name.
        """
        try:
            with self.database.write() as connection:
                row = dataset_row(connection, dataset)
                sets = set_rows(connection, row["id"])
                check_absent(sets, name, row["name"])
                check_clashes(row, name, values["columns"], sets)
                made = {
                    "id": new_id(),
                    "dataset_id": row["id"],
                    "name": name,
                    "location": location,
                    "format": format,
                    "position": 1 + max((one["position"] for one in sets), default=-1),
                    "created_at": now_s(),
                    **values,
                }
                connection.execute(sa.insert(column_sets).values(made))
        except IntegrityError as error:
            raise Conflict(f"column set {name!r} was added by somebody else just now") from error
        return told_set(made)

    def column_set(self, dataset: str, name: str) -> Json:
        """One column set.

        Raises:
            NotFound: there is none.
        """
        return told_set(self.stored_set(dataset, name))

    def stored_set(self, dataset: str, name: str) -> Json:
        """The row of a column set, as it is stored.

        Raises:
            NotFound: there is none.
        """
        row, sets = self._rows(dataset)
        for one in sets:
            if one["name"] == name:
                return one
        raise NotFound(f"dataset {row['name']!r} has no column set {name!r}")

    def remove_column_set(self, dataset: str, name: str, *, remove_data: bool = False) -> None:
        """Forget a column set.

        Args:
            dataset: name or id.
            name: of the set.
            remove_data: also remove it where it was uploaded.

        Raises:
            NotFound: there is none.
            Conflict: it is the main set of a dataset that has others.
        """
        one = self.stored_set(dataset, name)
        with self.database.write() as connection:
            sets = set_rows(connection, one["dataset_id"])
            if len(sets) > 1 and sets[0]["id"] == one["id"]:
                raise Conflict(
                    f"column set {name!r} is the main one, which says the order of the records: "
                    "remove the others first, or delete the dataset"
                )
            connection.execute(sa.delete(column_sets).where(column_sets.c.id == one["id"]))
        self._pins.close()
        if remove_data:
            self._remove_uploaded(one)

    # -- syncing ---------------------------------------------------------------------------

    def wanted_for_sync(self, dataset: str, name: str) -> tuple[Json, Wanted, Sequence[FileEntry]]:
        """What `examine` needs to look at a column set again."""
        one = self.stored_set(dataset, name)
        if one["status"] == "writing":
            raise Conflict(f"column set {name!r} is being written: finish it first")
        kept = one["files"] or {}
        declared = schema_from(kept["declared"]) if kept.get("declared") else None
        wanted = self._wanted(name, one["location"], one["format"], declared)
        return one, wanted, entries_of(one)

    def sync(self, dataset: str, name: str, *, progress: Progress | None = None) -> Json:
        """Look at a location again: new, changed and removed files.

        Returns:
            Names of files by ``new``, ``changed`` and ``removed``, and the ``column_set``.

        Raises:
            FormatError: a file does not fit; what was known before stays.
            StorageError: it cannot be read.
        """
        one, wanted, known = self.wanted_for_sync(dataset, name)
        try:
            found = examine(wanted, known, progress)
        except Exception as error:
            self.sync_failed(one["id"], str(error))
            raise
        return self.synced(one["id"], found, wanted.declared)

    def synced(self, column_set: str, found: Found, declared: Schema | None) -> Json:
        """Write what a sync found.

        Args:
            column_set: its id.
            found: of `examine`.
            declared: columns that hold for files that come later; ``None``: the first file's.

        Raises:
            NotFound: the set was removed meanwhile.
            FormatError: its columns changed, and another set has one of them.
        """
        with self.database.write() as connection:
            one = set_row(connection, column_set)
            row = dataset_row(connection, one["dataset_id"])
            others = [s for s in set_rows(connection, row["id"]) if s["id"] != one["id"]]
            check_uid(row, one["name"], found.schema)
            check_clashes(row, one["name"], columns_of(found.schema), others)
            kept = one["files"] or {}
            values = {
                **stored(found, declared=declared, uploaded=bool(kept.get("uploaded"))),
                "status": "ready",
                "error": None,
            }
            connection.execute(
                sa.update(column_sets).where(column_sets.c.id == column_set).values(values)
            )
        changes = found.changes
        return {
            "new": [] if changes is None else [*changes.new],
            "changed": [] if changes is None else [*changes.changed],
            "removed": [] if changes is None else [*changes.removed],
            "column_set": told_set({**one, **values}),
        }

    def sync_failed(self, column_set: str, message: str) -> None:
        """Note that the location of a column set could not be looked at."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(column_sets)
                .where(column_sets.c.id == column_set)
                .values(error=message[:2000])
            )

    # -- pinning ---------------------------------------------------------------------------

    def pin(self, dataset: str, *, columns: Sequence[str] | None = None) -> Json:
        """A dataset as it is now, for an iteration: see `open_snapshot`.

        Args:
            dataset: name or id.
            columns: are looked for, so that a wrong one is told here.

        Raises:
            NotFound: there is none.
            FormatError: it has no column set, or the rule of its join refuses what there is, or
                there is no such column.
            Conflict: a column set is being written.
            DatasetChanged: files changed since the last sync.
        """
        with self.opened(dataset) as pinned:
            if columns is not None:
                pinned.dataset.schema.checked_names(columns)
            return copy.deepcopy(pinned.snapshot)

    @contextmanager
    def opened(self, dataset: str) -> Iterator[Pinned]:
        """A dataset as it is now, open for a block.

        Raises:
            Exception: as `pin`.
        """
        with self._pins.opened(*self._rows(dataset)) as found:
            yield found

    # -- looking ---------------------------------------------------------------------------

    def preview(
        self, dataset: str, *, offset: int = 0, limit: int = 20, columns: Any = None
    ) -> Json:
        """Some records in values of JSON: see `splitpipe.server.catalog.preview.preview`.

        Raises:
            Exception: as `pin`, and as that.
        """
        with self.opened(dataset) as pinned:
            return preview(pinned.dataset, offset=offset, limit=limit, columns=columns)

    def media(self, dataset: str, row: int, column: str) -> tuple[str, bytes]:
        """One value as bytes, and their MIME type: see `splitpipe.server.catalog.preview.media`.

        Raises:
            Exception: as `pin`, and as that.
        """
        with self.opened(dataset) as pinned:
            return media(pinned.dataset, row, column)

    def statistics(self, dataset: str) -> Json | None:
        """The figures that a task found last: ``current`` is false where the data changed since.

        Returns:
            See `splitpipe.server.catalog.figures.figures`; ``None``: nobody counted yet.

        Raises:
            NotFound: there is no such dataset.
        """
        row, sets = self._rows(dataset)
        wanted = sa.select(statistics).where(statistics.c.dataset_id == row["id"])
        with self.database.read() as connection:
            found = connection.execute(wanted).mappings().first()
        if found is None:
            return None
        try:
            now = self._pins.generation(row, sets)
        except SplitpipeError:  # it cannot be read now; what was found stays
            now = ""
        return {**found["result"], "current": found["generation"] == now}

    def keep_statistics(self, dataset: str, generation: str, result: Json) -> None:
        """Write the figures of a dataset, instead of earlier ones."""
        with self.database.write() as connection:
            row = dataset_row(connection, dataset)
            connection.execute(sa.delete(statistics).where(statistics.c.dataset_id == row["id"]))
            made = {"dataset_id": row["id"], "generation": generation, "result": result}
            connection.execute(sa.insert(statistics).values(made))

    def close(self) -> None:
        """Let go of the datasets that are held open; a second call does nothing."""
        self._pins.close()

    def describe(self, dataset: str) -> Json:
        """A dataset with what its join makes of it: ``records``, ``join_counts``, ``problem``.

        ``join_counts`` says for every column set how many rows it has, how many uids of it are
        missing, there twice, or belong to no record; ``problem`` why it cannot be iterated now.

        Raises:
            NotFound: there is none.
        """
        made = self.get(dataset)
        made.update(records=None, join_counts=[], problem=None)
        if not made["column_sets"]:
            return made
        row, sets = self._rows(dataset)
        try:
            with self._pins.opened(row, sets) as pinned:
                made["records"] = len(pinned.dataset)
                made["join_counts"] = pinned.snapshot["join"]
        except Exception as error:  # it is what a person wants to see here
            made["problem"] = str(error)
            with suppress(SplitpipeError):  # whatever the rule says of it
                made["join_counts"] = self._pins.counts(row, sets)
        return made

    # -- helpers ---------------------------------------------------------------------------

    def _rows(self, dataset: str) -> tuple[Json, Sequence[Json]]:
        """A dataset and its column sets, as they are stored."""
        with self.database.read() as connection:
            row = dataset_row(connection, dataset)
            return row, set_rows(connection, row["id"])

    def _wanted(self, name: str, location: str, format: str, declared: Schema | None) -> Wanted:
        return Wanted(name, location, format, declared, self.locations, self.indices)

    def _remove_uploaded(self, one: Mapping[str, Any]) -> None:
        from splitpipe.server.catalog.uploads import remove_uploaded

        if (one["files"] or {}).get("uploaded"):
            remove_uploaded(self.locations, one["location"])
