"""`ColumnSetWriter`: rows that a server is to keep.

Responsible for: sending rows in numbered calls, and saying when they are complete.

Rules:
- a call is said again until it is answered; its number lets the server add it once;
- what was answered is durable. What waits here is not: `flush` sends it;
- no call is larger than the server takes; a row that is, is refused before it is sent;
- a writer that ends with an error leaves the column set unfinished: opened again, it says in
  `rows_written` how many rows are there, and goes on behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from splitpipe.client.http import Http, path
from splitpipe.errors import ClosedChannel, InvalidRequest
from splitpipe.wire.limits import Limits
from splitpipe.wire.packing import pack

__all__ = ["ColumnSetWriter"]

_CALL_NBYTES = 8 << 20
_CALL_ROWS = 10_000
_HEAD_NBYTES = 64 << 10
"""Room for what the values of a call need besides their bytes."""
_KIND = "application/octet-stream"


class ColumnSetWriter:
    """Writes one column set of a dataset on a server. Made by `Client.writer`.

    Attributes:
        rows_written: how many rows the server has.
    """

    def __init__(
        self,
        http: Http,
        dataset: str,
        column_set: str,
        *,
        format: str,
        columns: Any,
        reopen: bool = False,
    ) -> None:
        self._http = http
        self._where = path("datasets", dataset, "column-sets", column_set)
        self._name = f"{dataset}/{column_set}"
        self._rows: list[Mapping[str, Any]] = []
        self._nbytes = 0
        self._over = False
        body = {"name": column_set, "format": format, "columns": _columns(columns)}
        if reopen:
            body["reopen"] = True
        begun = http.post(path("datasets", dataset, "column-sets"), body)
        self._sequence = int(begun["next_sequence"])
        self.rows_written = int(begun.get("rows") or 0)
        self._most_nbytes = int(begun["call_nbytes"])
        self._call_nbytes = min(_CALL_NBYTES, self._most_nbytes - _HEAD_NBYTES)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row: the columns of this set by their names.

        Raises:
            InvalidRequest: it is larger than the server takes at a time.
            ServiceError: the server does not take it, or could not be reached.
        """
        if self._over:
            raise ClosedChannel(f"the writer of {self._name} was closed")
        if not isinstance(row, Mapping):
            raise InvalidRequest(f"a row is a dict of columns, not {row!r:.100}")
        nbytes = sum(map(_nbytes, row.values())) + 16
        if nbytes + _HEAD_NBYTES > self._most_nbytes:
            raise InvalidRequest(
                f"a row of {nbytes:,} bytes for {self._name}: the server takes "
                f"{self._most_nbytes:,} at a time. Serve with a larger --max-upload, or add the "
                "column set by a location that the server can read"
            )
        if self._rows and self._nbytes + nbytes > self._call_nbytes:
            self.flush()
        self._rows.append(dict(row))
        self._nbytes += nbytes
        if len(self._rows) >= _CALL_ROWS:
            self.flush()

    def write_many(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add several."""
        for row in rows:
            self.write(row)

    def flush(self) -> None:
        """Send what waits; when this returns the server has it for good."""
        if not self._rows:
            return
        body = pack(self._rows, limits=Limits(nbytes=self._most_nbytes))
        asked = self._http.ask(
            "POST",
            f"{self._where}/rows",
            body=body,
            kind=_KIND,
            query={"sequence": self._sequence},
        )
        answer = asked.json()
        self._sequence = int(answer["next_sequence"])
        self.rows_written = int(answer["rows"])
        self._rows.clear()
        self._nbytes = 0

    def finish(self) -> dict[str, Any]:
        """Send what waits, and let the column set be part of its dataset; return it."""
        self.flush()
        self._over = True
        made: dict[str, Any] = self._http.post(f"{self._where}/finish")
        return made

    def close(self) -> None:
        """Finish, unless that was done."""
        if not self._over:
            self.finish()

    def __enter__(self) -> ColumnSetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        self._over = True

    def __repr__(self) -> str:
        return f"ColumnSetWriter({self._name!r}, {self.rows_written} rows)"


def _columns(columns: Any) -> Any:
    """Return columns as JSON: names with the words of a type, or with what a `Field` says."""
    if columns is None:
        return None
    if not isinstance(columns, Mapping):
        raise InvalidRequest(f"columns are a dict of names and types, not {columns!r:.100}")
    return {
        name: field if isinstance(field, str) else field.to_json()
        for name, field in columns.items()
    }


def _nbytes(value: Any) -> int:
    """Return about how many bytes a value takes."""
    nbytes = getattr(value, "nbytes", None)
    if type(nbytes) is int:
        return nbytes
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return 8 + sum(map(_nbytes, value))
    if isinstance(value, dict):
        return 8 + sum(map(_nbytes, value)) + sum(map(_nbytes, value.values()))
    return 8
