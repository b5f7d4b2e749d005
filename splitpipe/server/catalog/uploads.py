"""Column sets that clients write here.

Responsible for: `Uploads`: beginning, adding rows, finishing.

Rules:
- rows come in numbered calls. What was answered is durable; a call that comes again is answered as
  it was and changes nothing; one that comes too early is refused with the number that is wanted;
- how far an upload is stands in the data itself: in the note of the last commit of bins, in the
  numbers of the files of the other formats. A server that is killed at any moment cannot know less
  than it answered, nor write a call twice;
- until it is finished a column set cannot be read; nothing else of its dataset changes.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from splitpipe.errors import Conflict, InvalidRequest, NotAllowed
from splitpipe.schema import Schema
from splitpipe.server.catalog.columns import columns_of, schema_from
from splitpipe.server.catalog.datasets import Datasets
from splitpipe.server.catalog.examine import Wanted, examine
from splitpipe.server.catalog.listing import FORMATS
from splitpipe.server.catalog.locations import Locations
from splitpipe.server.catalog.rows import (
    check_clashes,
    check_name,
    check_uid,
    dataset_row,
    declared_columns,
    set_rows,
    told_set,
)
from splitpipe.server.catalog.sinks import BinSink, FileSink, Sink, rows_of
from splitpipe.server.state import new_id
from splitpipe.server.state.tables import column_sets, uploads
from splitpipe.storage import files

__all__ = ["Uploads", "remove_uploaded"]

Json = dict[str, Any]
_MOST_OPEN: Final = 8


class Uploads:
    """The column sets that are being written.

    Args:
        catalog: of the server.
    """

    def __init__(self, catalog: Datasets) -> None:
        self._catalog = catalog
        self._database = catalog.database
        self._sinks: OrderedDict[str, Sink] = OrderedDict()
        self._busy: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    # -- writing ---------------------------------------------------------------------------

    def begin(
        self,
        dataset: str,
        name: str,
        *,
        format: str = "bins",
        columns: Any = None,
        reopen: bool = False,
    ) -> Json:
        """Begin to write a column set, or go on with one that was begun like this.

        Args:
            dataset: name or id.
            name: of the set.
            format: ``bins``, ``csv``, ``jsonl`` or ``parquet``.
            columns: names and types; the first rows say them otherwise.
            reopen: go on also behind a set that was finished: it is being written again then.

        Returns:
            ``next_sequence``, the number that the next call with rows has, how many ``rows``
            there are, and ``column_set``.

        Raises:
            Conflict: there is a set of this name that is finished, or was begun otherwise.
            InvalidRequest: a name, format or type cannot be.
        """
        check_name(name, "column set")
        if format not in FORMATS:
            raise InvalidRequest(f"format is one of {', '.join(FORMATS)}, not {format!r}")
        declared = None if columns is None else declared_columns(columns)
        said = None if declared is None else columns_of(declared)
        one = self._find(dataset, name)
        if one is None:
            one = self._insert(dataset, name, format, declared)
        else:
            _check_same(one, format, said, reopen=reopen)
            if one["status"] != "writing":
                self._reopen(one)
        with self._sink(one) as sink:
            return {
                "next_sequence": sink.next_sequence,
                "rows": sink.rows,
                "column_set": told_set(one),
            }

    def append(self, dataset: str, name: str, sequence: int, value: Any) -> Json:
        """Add rows.

        Args:
            dataset: name or id.
            name: of the set.
            sequence: of this call, from 0.
            value: a list of rows (dicts), or a dict of columns that have equally many values.

        Returns:
            ``next_sequence``, and how many ``rows`` there are now.

        Raises:
            Conflict: another number is wanted, or the set is not being written.
            FormatError: a row does not fit; none of them was added.
        """
        one = self._writing(dataset, name)
        with self._sink(one) as sink:
            if sequence > sink.next_sequence or sequence < 0:
                raise Conflict(
                    f"rows number {sequence} came, and {sink.next_sequence} is wanted: send that "
                    "first"
                )
            if sequence == sink.next_sequence:
                rows = rows_of(value)
                schema = self._schema(one, rows)
                try:
                    sink.append(sequence, rows, schema)
                except BaseException:
                    self._drop(one["id"])
                    raise
            return {"next_sequence": sink.next_sequence, "rows": sink.rows}

    def finish(self, dataset: str, name: str) -> Json:
        """Make a column set that was written part of its dataset; again, that does nothing.

        Returns:
            The column set.

        Raises:
            Conflict: nothing was written.
            FormatError: it does not fit the others.
        """
        one = self._found(dataset, name)
        if one["status"] == "ready" and one["files"].get("uploaded"):
            return told_set(one)
        with self._sink(self._writing(dataset, name)) as sink:
            if not one["columns"]:
                raise Conflict(f"nothing was written into column set {name!r}: it has no columns")
            schema = schema_from(one["columns"])
            sink.finish(schema)
            self._drop(one["id"])
        # Parquet says itself what it holds, which may be less than was declared (JSON is text).
        declared = None if one["format"] == "parquet" else schema
        catalog = self._catalog
        wanted = Wanted(
            name, one["location"], one["format"], declared, catalog.locations, catalog.indices
        )
        told: Json = catalog.synced(one["id"], examine(wanted), declared)["column_set"]
        with self._database.write() as connection:
            connection.execute(sa.delete(uploads).where(uploads.c.column_set_id == one["id"]))
        return told

    def close(self) -> None:
        """Let go of what is being written; it can be gone on with. A second call does nothing."""
        with self._lock:
            sinks = list(self._sinks.values())
            self._sinks.clear()
        for sink in sinks:
            sink.close()

    # -- the database ----------------------------------------------------------------------

    def _find(self, dataset: str, name: str) -> Json | None:
        with self._database.read() as connection:
            row = dataset_row(connection, dataset)
            for one in set_rows(connection, row["id"]):
                if one["name"] == name:
                    return one
        return None

    def _found(self, dataset: str, name: str) -> Json:
        return self._catalog.stored_set(dataset, name)

    def _writing(self, dataset: str, name: str) -> Json:
        one = self._found(dataset, name)
        if one["status"] != "writing":
            raise Conflict(f"column set {name!r} is not being written: it is {one['status']}")
        return one

    def _insert(self, dataset: str, name: str, format: str, declared: Schema | None) -> Json:
        columns = None if declared is None else columns_of(declared)
        with self._database.read() as connection:
            row = dataset_row(connection, dataset)
        if declared is not None:
            check_uid(row, name, declared)
        values = {
            "columns": columns or [],
            "files": {"declared": columns, "uploaded": True},
            "rows": None,
            "generation": None,
            "status": "writing",
            "error": None,
        }
        # Never the name of an earlier set: what that left does not come back.
        location = f"{row['id']}/{name}-{new_id()[:8]}"
        made = self._catalog.insert_set(row["id"], name, location, format, values)
        with self._database.write() as connection:
            connection.execute(
                sa.insert(uploads).values(
                    id=new_id(), column_set_id=made["id"], next_sequence=0, state=None
                )
            )
        return self._found(dataset, name)

    def _reopen(self, one: Json) -> None:
        """Let rows be added to a set that was finished. Iterations that run have what it was."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(column_sets).where(column_sets.c.id == one["id"]).values(status="writing")
            )
            connection.execute(sa.delete(uploads).where(uploads.c.column_set_id == one["id"]))
            connection.execute(
                sa.insert(uploads).values(
                    id=new_id(), column_set_id=one["id"], next_sequence=0, state=None
                )
            )
        one["status"] = "writing"

    def _schema(self, one: Json, rows: Sequence[Mapping[str, Any]]) -> Schema:
        """The columns of a set; the first rows say them where nobody declared any."""
        if one["columns"]:
            return schema_from(one["columns"])
        schema = _inferred(rows)
        columns = columns_of(schema)
        with self._database.write() as connection:
            row = dataset_row(connection, one["dataset_id"])
            check_uid(row, one["name"], schema)
            others = [s for s in set_rows(connection, row["id"]) if s["id"] != one["id"]]
            check_clashes(row, one["name"], columns, others)
            kept = {**one["files"], "declared": columns}
            connection.execute(
                sa.update(column_sets)
                .where(column_sets.c.id == one["id"])
                .values(columns=columns, files=kept)
            )
        return schema

    # -- what is open ----------------------------------------------------------------------

    @contextmanager
    def _sink(self, one: Json) -> Iterator[Sink]:
        """Where the rows of a set go, for one caller at a time."""
        with self._lock:
            busy = self._busy.setdefault(one["id"], threading.Lock())
        with busy:
            with self._lock:
                sink = self._sinks.pop(one["id"], None)
            if sink is None:
                sink = self._opened(one)
            with self._lock:
                self._sinks[one["id"]] = sink
                idle = self._idle()
            for other in idle:
                other.close()
            yield sink

    def _idle(self) -> list[Sink]:
        """What was written to least lately, where too many are open."""
        found: list[Sink] = []
        for key in list(self._sinks):
            if len(self._sinks) <= _MOST_OPEN:
                break
            if not self._busy[key].locked():
                found.append(self._sinks.pop(key))
        return found

    def _drop(self, column_set: str) -> None:
        with self._lock:
            sink = self._sinks.pop(column_set, None)
        if sink is not None:
            sink.close()

    def _opened(self, one: Json) -> Sink:
        locations = self._catalog.locations
        path = locations.inside(os.path.join(locations.data, one["location"]))
        make: Callable[[str, str], Sink] = BinSink if one["format"] == "bins" else FileSink
        return make(path, one["format"])


def _check_same(one: Json, format: str, said: Any, *, reopen: bool) -> None:
    """Raise Conflict where a set that is there is not the one that somebody writes."""
    name, kept = one["name"], one["files"]
    if one["status"] != "writing" and not (reopen and kept.get("uploaded")):
        hint = (
            "reopen it, or choose another name" if kept.get("uploaded") else "choose another name"
        )
        raise Conflict(f"column set {name!r} is there already: {hint}")
    if one["format"] != format or (said and (kept["declared"] or one["columns"]) != said):
        raise Conflict(
            f"column set {name!r} was begun as {one['format']} with other columns: go on like "
            "that, or remove it"
        )


def _inferred(rows: Sequence[Mapping[str, Any]]) -> Schema:
    """What rows suggest: for each column the first value that is not missing."""
    if not rows:
        raise InvalidRequest("the first rows say which columns there are: send at least one")
    first: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if first.get(name) is None:
                first[name] = value
    for name, value in first.items():
        if value is None:
            raise InvalidRequest(
                f"column {name!r} is missing in all of the first rows: declare the columns"
            )
    return declared_columns(Schema.infer(first))


def remove_uploaded(locations: Locations, location: str) -> None:
    """Remove a column set that was uploaded here.

    Raises:
        NotAllowed: it does not lie in the folder of uploaded data.
        StorageError: it cannot be removed.
    """
    path = os.path.realpath(os.path.join(locations.data, location))
    folder = os.path.join(os.path.realpath(locations.data), "")
    if not path.startswith(folder):
        raise NotAllowed(f"{location!r} is no data that was uploaded here")
    with files.translated("remove the data", path):
        if os.path.isdir(path):
            shutil.rmtree(path)
