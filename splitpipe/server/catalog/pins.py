"""Datasets as they are now.

Responsible for: `Pins`, which makes snapshots of what the database says, and keeps the datasets
that were looked at last open.

Rules:
- bins are pinned at their last commit; files as the last sync saw them, and a file that was changed
  or removed since is refused by name. New files do not count before a sync;
- what was counted of a join is kept while nothing of it changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from splitpipe.errors import Conflict, DatasetChanged
from splitpipe.server.catalog.columns import schema_from
from splitpipe.server.catalog.examine import Found, Wanted, examine
from splitpipe.server.catalog.generations import generation_of
from splitpipe.server.catalog.held import Held, Pinned
from splitpipe.server.catalog.listing import FileEntry, list_files
from splitpipe.server.catalog.locations import Locations
from splitpipe.server.catalog.rows import entries_of, pinned_dataset
from splitpipe.server.catalog.snapshot import counted, pinned_set, snapshot_of
from splitpipe.stores import told_url

__all__ = ["Pins"]

Json = dict[str, Any]
Row = Mapping[str, Any]

_MOST_COUNTED: Final = 100


class Pins:
    """Makes snapshots of datasets.

    Args:
        locations: what may be read.
        indices: the folder of indices.
    """

    def __init__(self, locations: Locations, indices: str) -> None:
        self._locations = locations
        self._indices = indices
        self._counted: dict[str, Sequence[Json]] = {}
        self._held = Held()

    @contextmanager
    def opened(self, row: Row, sets: Sequence[Row]) -> Iterator[Pinned]:
        """A dataset, pinned and open for a block; it is not to be changed.

        Raises:
            FormatError, Conflict, DatasetChanged, StorageError: it cannot be read as it is.
        """
        pinned = [self._pinned(one) for one in sets]

        def open_one() -> Pinned:
            snapshot, opened = snapshot_of(
                pinned_dataset(row), pinned, locations=self._locations, indices=self._indices
            )
            return Pinned(snapshot, opened)

        with self._held.use(generation_of(row, pinned), open_one) as found:
            yield found

    def generation(self, row: Row, sets: Sequence[Row]) -> str:
        """Stands for the records that a dataset has now.

        Raises:
            FormatError, Conflict, DatasetChanged, StorageError: it cannot be read as it is.
        """
        return generation_of(row, [self._pinned(one) for one in sets])

    def counts(self, row: Row, sets: Sequence[Row]) -> Sequence[Json]:
        """What does not fit in the join of a dataset: see `Side`.

        Raises:
            FormatError, Conflict, DatasetChanged, StorageError: it cannot be read as it is.
        """
        pinned = [self._pinned(one) for one in sets]
        key = generation_of(row, pinned)
        if key not in self._counted:
            sides = counted(
                pinned_dataset(row), pinned, locations=self._locations, indices=self._indices
            )
            while len(self._counted) > _MOST_COUNTED:
                self._counted.pop(next(iter(self._counted)), None)
            self._counted[key] = [side.to_json() for side in sides]
        return self._counted[key]

    def close(self) -> None:
        """Let go of the datasets that are held open; a second call does nothing."""
        self._held.close()

    def _pinned(self, one: Row) -> Json:
        """A column set as it is now."""
        name, kept = one["name"], one["files"]
        if one["status"] != "ready":
            raise Conflict(f"column set {name!r} is being written: finish it, or remove it")
        schema = schema_from(one["columns"])
        wanted = Wanted(
            name, one["location"], one["format"], schema, self._locations, self._indices
        )
        if one["format"] == "bins":
            return pinned_set(wanted, examine(wanted))
        entries = entries_of(one)
        self._check_files(wanted, entries)
        found = Found(
            schema=schema,
            place=kept["place"],
            remote=self._locations.place(one["location"]).remote,
            entries=tuple(entries),
            rows=one["rows"],
            generation=one["generation"],
        )
        return pinned_set(wanted, found)

    def _check_files(self, wanted: Wanted, entries: Sequence[FileEntry]) -> None:
        """Refuse a set whose files are not those of the last sync; new ones do not count yet."""
        place = self._locations.place(wanted.location)
        now = {e.name: e for e in list_files(place, wanted.format, self._locations)}
        for entry in entries:
            found = now.get(entry.name)
            if found is None or not found.same_as(entry):
                what = "was removed" if found is None else "was changed"
                path = os.path.join(place.path, entry.name) if entry.name else place.path
                raise DatasetChanged(
                    0,
                    f"a file of column set {wanted.name!r} {what} since the last sync: sync it",
                    told_url(path),
                )
