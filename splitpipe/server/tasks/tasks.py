"""Background tasks.

Responsible for: `Tasks`: starting, following and aborting them; as many at a time as the operator
lets, the others in line.

Rules:
- a task is in the database before its start is answered, and its result before it is called done;
- each runs in a process of its own, and one that ends badly is one failed task;
- a server that ended, however it did, goes on with every task that was not done: those that can go
  on do, the others begin anew;
- aborted means: its process is gone, and so is what it left half-made.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from splitpipe.errors import InvalidRequest, NotFound, SplitpipeError, Unavailable, WorkerStalled
from splitpipe.server.catalog import Datasets
from splitpipe.server.state import Database, new_id, now_s
from splitpipe.server.state.tables import tasks
from splitpipe.server.tasks.child import Child
from splitpipe.server.tasks.kinds import KINDS, Modules, Surroundings

__all__ = ["Tasks"]

Json = dict[str, Any]

_ENDED: Final = ("done", "failed", "aborted")
_LONGEST_ERROR: Final = 10_000
MOST_LISTED: Final = 1000


class _Aborted(Exception):
    """Somebody does not want it any more."""


class _Running:
    """A task that runs, or waits for its turn.

    Args:
        row: of the database.
    """

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.id: str = row["id"]
        self.kind: str = row["kind"]
        self.said: Json = row["params"]["said"]
        self.job: Json = row["params"]["job"]
        self.progress: Json | None = row["progress"]
        self.aborted = row["status"] == "aborting"
        self.ended = threading.Event()
        self.child: Child | None = None


class Tasks:
    """The background tasks of a server.

    Args:
        database: where they are kept.
        catalog: the datasets.
        modules: of the operator; ``None``: there are none.
        most: how many run at a time.
    """

    def __init__(
        self,
        database: Database,
        catalog: Datasets,
        *,
        modules: Modules | None = None,
        most: int = 2,
    ) -> None:
        self._database = database
        self._around = Surroundings(catalog, modules)
        self._lock = threading.Lock()
        self._known: dict[str, _Running] = {}
        self._waiting: list[_Running] = []
        self._places = most
        self._threads: set[threading.Thread] = set()
        self._asides: set[Child] = set()
        self._closing = False

    # -- asking ----------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on with what a server before left; once, when everything else is there."""
        wanted = sa.select(tasks).where(tasks.c.status.not_in(_ENDED)).order_by(tasks.c.created_at)
        with self._database.read() as connection:
            found = [dict(row) for row in connection.execute(wanted).mappings()]
        for row in found:
            self._enter(_Running(row))

    def start(self, kind: str, params: Mapping[str, Any]) -> Json:
        """Begin a task.

        Args:
            kind: ``add``, ``sync``, ``statistics``, ``check`` or ``preprocess``.
            params: see ``docs/server.md``.

        Raises:
            InvalidRequest: there is no such kind, or it does not take these parameters.
            NotFound, Conflict, FormatError: what it is about is not there, or not ready.
        """
        if kind not in KINDS:
            raise InvalidRequest(f"there is no task {kind!r:.100}: say one of {', '.join(KINDS)}")
        said = {name: value for name, value in params.items() if value is not None}
        now = now_s()
        row = {
            "id": new_id(),
            "kind": kind,
            "params": {"said": said, "job": KINDS[kind].prepare(self._around, said)},
            "status": "queued",
            "progress": None,
            "created_at": now,
            "updated_at": now,
        }
        with self._database.write() as connection:
            connection.execute(sa.insert(tasks).values(row))
        self._enter(_Running(row))
        return self.get(str(row["id"]))

    def list(self) -> Sequence[Json]:
        """The tasks, the latest first; at most `MOST_LISTED`."""
        wanted = sa.select(tasks).order_by(tasks.c.created_at.desc(), tasks.c.id).limit(MOST_LISTED)
        with self._database.read() as connection:
            return [self._told(dict(row)) for row in connection.execute(wanted).mappings().all()]

    def get(self, task: str) -> Json:
        """One task.

        It has ``id``, ``kind``, ``params``, ``status`` (``queued``, ``running``, ``aborting``,
        ``done``, ``failed``, ``aborted``), ``progress`` (``done``, ``total``, ``message``),
        ``result``, ``error``, ``created_at`` and ``updated_at``.

        Raises:
            NotFound: there is none.
        """
        return self._told(self._row(task))

    def abort(self, task: str) -> Json:
        """End a task, and remove what it left half-made; of one that has ended, nothing.

        Raises:
            NotFound: there is none.
        """
        row = self._row(task)
        with self._lock:
            known = self._known.get(task)
        if row["status"] not in _ENDED and known is not None:
            # First of all, so that a server that is killed now goes on with ending it.
            self._note(task, only_from=("queued", "running"), status="aborting")
            known.aborted = True
            with self._lock:
                child = known.child
                if known in self._waiting:
                    self._waiting.remove(known)
                    self._begin(known, place=False)
            if child is not None:
                child.kill()
        return self.get(task)

    def generations(self) -> set[str]:
        """The generations of modules that tasks which have not ended use."""
        with self._lock:
            found = [one.job.get("generation") for one in self._known.values()]
        return {generation for generation in found if generation is not None}

    def wait(self, task: str, timeout_s: float) -> Json:
        """Wait until a task has ended, and tell it as `get` does.

        Raises:
            NotFound: there is none.
            WorkerStalled: it takes longer.
        """
        with self._lock:
            known = self._known.get(task)
        if known is not None and not known.ended.wait(timeout_s):
            raise WorkerStalled(f"task {task} has not ended within {timeout_s:g} s")
        return self.get(task)

    def aside(self, kind: str, job: Json, *, deadline_s: float) -> Any:
        """Do something in a process of its own, and wait for it; nothing of it is kept.

        Args:
            kind: of what is done, of ``work.WORK``.
            job: as JSON, for that.
            deadline_s: when it is ended.

        Raises:
            InvalidRequest: it failed; the message is that of its error.
            WorkerStalled: it took too long.
        """
        with self._lock:
            if self._closing:
                raise Unavailable("the server is ending")
            child = Child(kind, job)
            self._asides.add(child)
        late = threading.Timer(deadline_s, child.kill)
        late.start()
        try:
            for message in child.messages():
                if "error" in message:
                    raise InvalidRequest(_text(message["error"]))
                if "result" in message:
                    return message["result"]
            raise AssertionError("messages() ends with a result or raises")
        except SplitpipeError as error:
            if not late.is_alive() and not isinstance(error, InvalidRequest):
                raise WorkerStalled(f"it took more than {deadline_s:g} s and was ended") from error
            raise
        finally:
            late.cancel()
            late.join()
            with self._lock:
                self._asides.discard(child)
            child.close()

    def let_go(self) -> None:
        """End what somebody waits for, and begin nothing more: the server ends."""
        with self._lock:
            self._closing = True
            self._waiting.clear()
            asides = list(self._asides)
        for child in asides:
            child.kill()

    def close(self) -> None:
        """End all processes; tasks that were not done go on when a server starts again."""
        self.let_go()
        with self._lock:
            children = [one.child for one in self._known.values() if one.child is not None]
            threads = list(self._threads)
        for child in children:
            child.kill()
        for thread in threads:
            thread.join()

    # -- running ---------------------------------------------------------------------------

    def _enter(self, running: _Running) -> None:
        with self._lock:
            self._known[running.id] = running
            if running.aborted:
                self._begin(running, place=False)
            else:
                self._waiting.append(running)
                self._fill()

    def _fill(self) -> None:
        """Begin what waits, while there are places; the lock is held."""
        while self._waiting and self._places > 0 and not self._closing:
            self._places -= 1
            self._begin(self._waiting.pop(0), place=True)

    def _begin(self, running: _Running, *, place: bool) -> None:
        """Follow a task in a thread of its own; the lock is held."""
        if self._closing:
            return
        thread = threading.Thread(
            target=self._follow, args=(running, place), name=f"splitpipe-task-{running.id}"
        )
        self._threads.add(thread)
        thread.start()

    def _follow(self, running: _Running, place: bool) -> None:
        try:
            self._run(running)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                self._known.pop(running.id, None)
                self._places += place
                self._fill()
            running.ended.set()

    def _run(self, running: _Running) -> None:
        kind = KINDS[running.kind]
        try:
            if running.aborted:
                raise _Aborted
            self._note(running.id, only_from=("queued",), status="running")
            result = self._performed(running)
            told = kind.apply(self._around, running.job, result)
            self._end(running, status="done", result=told)
        except BaseException as error:
            if self._closing and not running.aborted:
                return
            kind.discard(self._around, running.job)
            if running.aborted:
                self._end(running, status="aborted")
            else:
                text = str(error) or type(error).__name__
                self._end(running, status="failed", error=text[:_LONGEST_ERROR])

    def _performed(self, running: _Running) -> Any:
        with self._lock:
            if self._closing or running.aborted:
                raise _Aborted
            child = running.child = Child(running.kind, running.job)
        try:
            for message in child.messages():
                if "progress" in message:
                    running.progress = message["progress"]
                elif "error" in message:
                    raise InvalidRequest(_text(message["error"]))
                else:
                    return message["result"]
            raise AssertionError("messages() ends with a result or raises")
        finally:
            with self._lock:
                running.child = None
            child.close()

    # -- the database ----------------------------------------------------------------------

    def _row(self, task: str) -> Json:
        with self._database.read() as connection:
            wanted = sa.select(tasks).where(tasks.c.id == task)
            found = connection.execute(wanted).mappings().first()
        if found is None:
            raise NotFound(f"there is no task {task!r:.100}")
        return dict(found)

    def _end(self, running: _Running, **values: Any) -> None:
        """Note what became of a task; what it needed to run is not needed any more."""
        params = {"said": running.said, "job": None}
        self._note(running.id, progress=running.progress, params=params, **values)

    def _note(self, task: str, *, only_from: Sequence[str] = (), **values: Any) -> None:
        change = sa.update(tasks).where(tasks.c.id == task).values(updated_at=now_s(), **values)
        if only_from:
            change = change.where(tasks.c.status.in_(only_from))
        with self._database.write() as connection:
            connection.execute(change)

    def _told(self, row: Mapping[str, Any]) -> Json:
        known = self._known.get(row["id"])
        progress = row["progress"] if known is None else known.progress
        return {
            "id": row["id"],
            "kind": row["kind"],
            "params": row["params"]["said"],
            "status": row["status"],
            "progress": progress,
            "result": row["result"],
            "error": row["error"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }


def _text(error: Mapping[str, Any]) -> str:
    """An error of a task's process, for people."""
    return "\n".join([str(error["message"]), *map(str, error["notes"])])
