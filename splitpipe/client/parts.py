"""The nouns of a service: datasets, iterations, tasks, modules, tokens.

Responsible for: one call for each route of the REST interface. What comes back is what the server
says, as dicts and lists.

Rules:
- everything that makes or starts something may be said again after a lost answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from splitpipe.client.http import Http, path
from splitpipe.client.modules import Module, references
from splitpipe.errors import ServiceError

__all__ = ["ColumnSets", "Datasets", "Iterations", "Modules", "Tasks", "Tokens"]

Json = dict[str, Any]
_OVER = frozenset({"done", "failed", "aborted"})
_LOOK_S = 0.2
_VALUE_NBYTES = 1 << 34
"""Most of one value: what a person asked for may be large."""


class _Part:
    """One noun of a server."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def __repr__(self) -> str:
        return f"{type(self).__name__}(at {self._http.url})"


class ColumnSets(_Part):
    """The column sets of datasets."""

    def list(self, dataset: str) -> list[Json]:
        """Return all of a dataset."""
        found: list[Json] = self._http.get(path("datasets", dataset))["column_sets"]
        return found

    def get(self, dataset: str, name: str) -> Json:
        """Return one."""
        found: Json = self._http.get(path("datasets", dataset, "column-sets", name))
        return found

    def add(
        self,
        dataset: str,
        name: str,
        location: str,
        *,
        format: str,
        columns: Mapping[str, Any] | None = None,
    ) -> Json:
        """Add columns that lie at `location`: a path or URL that the server can read.

        Where there is much to look at, a task of the server does that, and is waited for.

        Raises:
            ServiceError: the server refuses it, or the task failed.
        """
        body = {"name": name, "location": location, "format": format, "columns": columns}
        made: Json = self._http.post(path("datasets", dataset, "column-sets"), body)
        if "kind" in made:  # a task
            Tasks(self._http).wait(made)
            made = self.get(dataset, name)
        return made

    def remove(self, dataset: str, name: str, *, remove_data: bool = False) -> None:
        """Forget one. Files stay where they are.

        Args:
            dataset: name or id.
            name: of the set.
            remove_data: also remove what was uploaded into it. Files elsewhere are never touched.
        """
        where = path("datasets", dataset, "column-sets", name)
        self._http.delete(where, remove_data=_said(remove_data))

    def sync(self, dataset: str, name: str) -> Json:
        """Let the server look for new, changed and removed files; return the task."""
        task: Json = self._http.post(path("datasets", dataset, "column-sets", name, "sync"))
        return task


class Datasets(_Part):
    """The datasets of a service."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        self.column_sets = ColumnSets(http)

    def list(self) -> list[Json]:
        """Return all."""
        found: list[Json] = self._http.get(path("datasets"))
        return found

    def get(self, dataset: str) -> Json:
        """Return one, by name or id, with its column sets, columns and counts."""
        found: Json = self._http.get(path("datasets", dataset))
        return found

    def create(self, name: str, *, uid_column: str | None = None, join: str = "left") -> Json:
        """Make one without column sets.

        Args:
            name: what it is called.
            uid_column: the column by which column sets are joined; None: by row.
            join: what becomes of records that a column set does not have: ``"left"``,
                ``"inner"``, or ``"strict"``, which refuses.
        """
        body = {"name": name, "uid_column": uid_column, "join": join}
        made: Json = self._http.post(path("datasets"), body)
        return made

    def delete(self, dataset: str, *, remove_data: bool = False) -> None:
        """Forget one. Files stay where they are.

        Args:
            dataset: name or id.
            remove_data: also remove what was uploaded into it. Files elsewhere are never touched.
        """
        self._http.delete(path("datasets", dataset), remove_data=_said(remove_data))

    def preview(
        self,
        dataset: str,
        *,
        offset: int = 0,
        limit: int = 20,
        columns: Sequence[str] | None = None,
    ) -> Json:
        """Return some records in a form for people: long values are cut."""
        found: Json = self._http.get(
            path("datasets", dataset, "records"), offset=offset, limit=limit, columns=columns
        )
        return found

    def media(self, dataset: str, row: int, column: str) -> bytes:
        """Return one value of a column of images, sound, video or bytes, as it is stored."""
        where = path("datasets", dataset, "records", str(row), column)
        return self._http.ask("GET", where, limit_nbytes=_VALUE_NBYTES).body

    def statistics(self, dataset: str) -> Json:
        """Return what was found out about every column."""
        found: Json = self._http.get(path("datasets", dataset, "statistics"))
        return found

    def start_statistics(self, dataset: str) -> Json:
        """Let the server find out about every column; return the task."""
        task: Json = self._http.post(path("datasets", dataset, "statistics"))
        return task

    def check(self, dataset: str) -> Json:
        """Let the server read every value; return the task, whose result says what it cannot."""
        task: Json = self._http.post(path("datasets", dataset, "check"))
        return task

    def preprocess(
        self,
        dataset: str,
        column_set: str,
        *,
        preprocessors: Sequence[Module] = (),
        filters: Sequence[Module] = (),
        columns: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        on_error: str = "raise",
    ) -> Json:
        """Let the server make a new column set of a dataset; return the task.

        Args:
            dataset: name or id.
            column_set: what the new one is called.
            preprocessors: each makes another batch of a batch; what the last one gives is written.
            filters: each says of a record whether it stays.
            columns: that are read; None: all.
            outputs: columns that are written; None: those that the dataset does not have yet.
            batch_size: records at a time.
            workers: processes; 0: the task's own one does it.
            on_error: what becomes of a batch that fails: ``"raise"``, the task fails; ``"skip"``,
                it is left out.
        """
        body = {
            "column_set": column_set,
            "preprocessors": references(preprocessors),
            "filters": references(filters),
            "columns": None if columns is None else list(columns),
            "outputs": None if outputs is None else list(outputs),
            "batch_size": batch_size,
            "workers": workers,
            "on_error": on_error,
        }
        task: Json = self._http.post(path("datasets", dataset, "preprocess"), body)
        return task


class Iterations(_Part):
    """The iterations of a service."""

    def list(self) -> list[Json]:
        """Return all, the newest first."""
        found: list[Json] = self._http.get(path("iterations"))
        return found

    def get(self, iteration: str) -> Json:
        """Return one, by id or name, with its progress."""
        found: Json = self._http.get(path("iterations", iteration))
        return found

    def create(self, spec: Mapping[str, Any], *, id: str | None = None) -> Json:
        """Make one, or return the one of this id."""
        body = {"spec": dict(spec), "id": id or uuid.uuid4().hex}
        made: Json = self._http.post(path("iterations"), body)
        return made

    def delete(self, iteration: str) -> None:
        """End one and forget it."""
        self._http.delete(path("iterations", iteration))

    def start(self, iteration: str) -> Json:
        """Go on with one that was stopped or failed."""
        return self._said(iteration, "start")

    def stop(self, iteration: str) -> Json:
        """End one until it is started again: its clients are told."""
        return self._said(iteration, "stop")

    def pushback(self, iteration: str) -> Json:
        """Take back what clients have and have not acknowledged."""
        return self._said(iteration, "pushback")

    def try_out(self, spec: Mapping[str, Any], *, count: int = 1) -> Json:
        """Return the first batches in a form for people; nothing is stored."""
        made: Json = self._http.post(
            path("iterations", "try"), {"spec": dict(spec), "count": count}
        )
        return made

    def snippet(self, spec: Mapping[str, Any], *, id: str | None = None) -> str:
        """Return the program that iterates so."""
        body = {"spec": dict(spec), "id": id}
        return str(self._http.post(path("iterations", "snippet"), body)["code"])

    def _said(self, iteration: str, what: str) -> Json:
        answer: Json = self._http.post(path("iterations", iteration, what))
        return answer


class Tasks(_Part):
    """What the server does in the background."""

    def list(self) -> list[Json]:
        """Return all, the newest first."""
        found: list[Json] = self._http.get(path("tasks"))
        return found

    def get(self, task: str) -> Json:
        """Return one, with its progress."""
        found: Json = self._http.get(path("tasks", task))
        return found

    def abort(self, task: str) -> Json:
        """End one."""
        told: Json = self._http.post(path("tasks", task, "abort"))
        return told

    def follow(self, task: str) -> Iterator[Json]:
        """Yield what the server says of a task whenever that changed, until it is over."""
        before: Json | None = None
        while True:
            told = self.get(task)
            if told != before:
                before = told
                yield told
            if told["status"] in _OVER:
                return
            time.sleep(_LOOK_S)

    def wait(self, task: str | Json, *, timeout_s: float | None = None) -> Json:
        """Wait until a task is over, and return what the server says of it.

        Raises:
            ServiceError: it failed, or was aborted.
            TimeoutError: it is not over yet.
        """
        name = task if isinstance(task, str) else task["id"]
        began_s = time.monotonic()
        while True:
            told = self.get(name)
            if told["status"] == "done":
                return told
            if told["status"] in _OVER:
                why = told.get("error") or "no reason was given"
                raise ServiceError(f"task {name} ({told.get('kind')}) {told['status']}: {why}")
            if timeout_s is not None and time.monotonic() - began_s > timeout_s:
                raise TimeoutError(f"task {name} is not over after {timeout_s} s")
            time.sleep(_LOOK_S)


class Modules(_Part):
    """Filters, categorizers, collaters and preprocessors of the server."""

    def list(self) -> Any:
        """Return all, with their parameters, and the errors of files that could not be read."""
        return self._http.get(path("modules"))

    def reload(self) -> Any:
        """Let the server read its modules folder again: for iterations that begin from now on."""
        return self._http.post(path("modules", "reload"))


class Tokens(_Part):
    """Who may use the service."""

    def list(self) -> list[Json]:
        """Return all, without what is secret in them."""
        found: list[Json] = self._http.get(path("tokens"))
        return found

    def create(self, name: str, *, role: str = "run", expires_in_s: float | None = None) -> Json:
        """Make one. The answer has the token, which is shown nowhere again."""
        body: Json = {"name": name, "role": role}
        if expires_in_s is not None:
            body["expires_in_s"] = expires_in_s
        made: Json = self._http.post(path("tokens"), body)
        return made

    def delete(self, token: str) -> None:
        """Let one be no good any more."""
        self._http.delete(path("tokens", token))


def _said(choice: bool) -> str | None:
    """Return a choice as a query says it; what is not wanted is not said."""
    return "true" if choice else None
