"""Iterations: what was asked for, kept, and carried out by engines.

Responsible for: `Iterations`, the rows of the table, and which engine runs for which row.

Rules:
- an iteration is pinned when it is made: to the files of its dataset, and to its modules' code;
- an id that a client chose stands for one description for ever; without one every iteration is new;
- a row is written before anybody is told of it; an engine is started for it whenever one is needed,
  and goes on from the journal, whatever became of the one before.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from splitpipe.errors import Conflict, InvalidRequest, NotFound
from splitpipe.server.feed.engines import EngineChange, EngineJob, Engines
from splitpipe.server.feed.job import division_of
from splitpipe.server.feed.status import status_of_journal
from splitpipe.server.iterations.description import IterationSpec, ModuleRef
from splitpipe.server.iterations.streams import chosen, count
from splitpipe.server.state import Database, new_id, now_s
from splitpipe.server.state.tables import cursors
from splitpipe.server.state.tables import iterations as table

if TYPE_CHECKING:
    from splitpipe.server.catalog import Datasets
    from splitpipe.server.modules.registry import Modules

__all__ = ["Iterations"]

Json = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_OWN_ID = re.compile(r"[0-9a-f]{16}")
_TOLD = ("id", "name", "dataset", "spec", "status", "total", "error", "created_at", "updated_at")


class Iterations:
    """The iterations of a server.

    Args:
        database: where they are kept.
        datasets: what they read.
        modules: what they may use.
        engines: what carries them out; tells `changed` what becomes of them.
    """

    def __init__(self, database: Database, *, datasets: Datasets, modules: Modules) -> None:
        self._database = database
        self._datasets = datasets
        self._modules = modules
        self._engines: Engines | None = None

    @property
    def engines(self) -> Engines:
        """What carries them out."""
        assert self._engines is not None
        return self._engines

    def go_on(self, engines: Engines) -> None:
        """Take over the engines, and start those of iterations that ran when the server ended."""
        self._engines = engines
        with self._database.read() as connection:
            rows = connection.execute(select(table).where(table.c.status == "running")).mappings()
            running = [dict(row) for row in rows]
        for row in running:
            engines.start(self._job(row))

    # -- rows ------------------------------------------------------------------------------

    def create(self, spec: IterationSpec, *, name: str | None = None) -> Json:
        """Make an iteration, or find the one that has this id.

        Args:
            spec: what it is.
            name: an id of the client's own choice, by which others find it.

        Raises:
            Conflict: the id stands for another description.
            NotFound: there is no such dataset, column or module.
            InvalidRequest: the id, or a module's parameter, cannot be.
        """
        if name is not None:
            _check_name(name)
            there = self._named(name, spec)
            if there is not None:
                return there
        row = self._made(spec, name)
        try:
            with self._database.write() as connection:
                connection.execute(insert(table).values(row))
        except IntegrityError:
            there = None if name is None else self._named(name, spec)
            if there is None:
                raise
            return there
        return self._told(row)

    def _made(self, spec: IterationSpec, name: str | None) -> Json:
        """The row of a new iteration, pinned."""
        snapshot, total = self.pinned(spec)
        now = now_s()
        return {
            "id": new_id(),
            "name": name,
            "dataset": spec.dataset,
            "spec": spec.model_dump(mode="json"),
            "fingerprint": spec.fingerprint,
            "snapshot": snapshot,
            "status": "ready",
            "total": total,
            "error": None,
            "created_at": now,
            "updated_at": now,
        }

    def pinned(self, spec: IterationSpec) -> tuple[Json, int | None]:
        """What a new iteration would be pinned to, and how many batches it would have.

        Returns:
            ``dataset``, a snapshot, and ``modules``, a generation; the number where it is known.

        Raises:
            NotFound: there is no such dataset, column or module.
            InvalidRequest: a module's parameter cannot be.
        """
        self._check_modules(spec)
        with self._datasets.opened(spec.dataset) as pinned:
            chosen(spec, pinned.dataset)  # says which column is not there
            total = count(spec, pinned.dataset)
            snapshot = copy.deepcopy(pinned.snapshot)
        return {"dataset": snapshot, "modules": self._modules.generation}, total

    def _check_modules(self, spec: IterationSpec) -> None:
        """See that all modules are there, and take the values that they are given."""
        asked: dict[str, list[ModuleRef | None]] = {
            "filter": [*spec.filters],
            "categorizer": [spec.categorizer],
            "collater": [spec.collater],
            "preprocessor": [*spec.preprocessors],
        }
        for kind, modules in asked.items():
            for module in modules:
                if module is not None:
                    self._modules.check(kind, module.name, module.params)

    def list(self, *, offset: int = 0, limit: int = 1000) -> Sequence[Json]:
        """Return iterations, the newest first."""
        newest = select(table).order_by(table.c.created_at.desc(), table.c.id)
        with self._database.read() as connection:
            rows = connection.execute(newest.offset(offset).limit(limit)).mappings()
            found = [dict(row) for row in rows]
        return self._all_told(found)

    def get(self, iteration: str) -> Json:
        """Return an iteration by its id, or by the id that a client chose.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            row = _row(connection, iteration)
        return self._told(row)

    def delete(self, iteration: str) -> None:
        """End an iteration and forget it.

        Raises:
            NotFound: there is none.
        """
        identity = self.stop(iteration)["id"]
        with self._database.write() as connection:
            connection.execute(delete(table).where(table.c.id == identity))

    def generations(self) -> set[str]:
        """The generations of modules that iterations began with."""
        with self._database.read() as connection:
            pinned = connection.execute(select(table.c.snapshot)).scalars()
            return {one["modules"] for one in pinned if one["modules"] is not None}

    # -- engines ---------------------------------------------------------------------------

    def start(self, iteration: str) -> Json:
        """Go on with an iteration that was stopped or failed.

        Raises:
            NotFound: there is none.
        """
        with self._database.write() as connection:
            row = _row(connection, iteration)
            if row["status"] in ("stopped", "failed"):
                row.update(status="running", error=None, updated_at=now_s())
                values = {name: row[name] for name in ("status", "error", "updated_at")}
                connection.execute(update(table).where(table.c.id == row["id"]).values(values))
        self.engines.start(self._job(row))
        return self._told(row)

    def stop(self, iteration: str) -> Json:
        """End an iteration until it is started again; its clients are told.

        Raises:
            NotFound: there is none.
        """
        with self._database.write() as connection:
            row = _row(connection, iteration)
            if row["status"] in ("ready", "running"):
                row.update(status="stopped", updated_at=now_s())
                values = {name: row[name] for name in ("status", "updated_at")}
                connection.execute(update(table).where(table.c.id == row["id"]).values(values))
        self.engines.stop(row["id"])
        return self._told(row)

    def push_back(self, iteration: str) -> Json:
        """Take back what clients have and did not acknowledge, to deliver it again, in order.

        Raises:
            NotFound: there is none.
            Conflict: it does not run.
        """
        row = self._running(iteration)
        return {"batches": self.engines.push_back(row["id"])}

    def ticket(
        self, iteration: str, *, rank: int, client: str | None, session: str, host: str | None
    ) -> Json:
        """Let a client in: start the engine if it does not run, and say where it is.

        Args:
            iteration: its id, or the one that a client chose.
            rank: whose batches it wants.
            client: by which name it follows; None where clients share.
            session: its own random name.
            host: the name by which the client reached the server.

        Raises:
            NotFound: there is no such iteration.
            InvalidRequest: there is no such rank.
            Conflict: it was stopped, or has failed.
            Unavailable: the engine does not start.
        """
        row = self._running(iteration)
        world_size = row["spec"]["world_size"]
        if not 0 <= rank < world_size:
            raise InvalidRequest(f"rank must be from 0 to {world_size - 1}, not {rank}")
        identity = row["id"]
        return self.engines.ticket(
            identity, rank=rank, client=client or "", session=session, host=host
        )

    def feed(self, iteration: str, *, link: str, body: bytes, wait_s: float) -> bytes:
        """Carry messages between a client and the engine, over HTTP; waits so long for some."""
        with self._database.read() as connection:
            identity = str(_row(connection, iteration)["id"])
        return self.engines.feed(identity, link, body, wait_s)

    def changed(self, iteration: str, change: EngineChange) -> None:
        """Write down what became of an iteration; engines call it."""
        values = {
            "status": change.status,
            "total": change.total,
            "error": change.error,
            "updated_at": now_s(),
        }
        # An engine that is asked to end may say last what it did before.
        still = table.c.status != "stopped"
        with self._database.write() as connection:
            connection.execute(update(table).where(table.c.id == iteration, still).values(values))

    # -- helpers ---------------------------------------------------------------------------

    def _named(self, name: str, spec: IterationSpec) -> Json | None:
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.name == name)).mappings().first()
        if row is None:
            return None
        if row["fingerprint"] != spec.fingerprint:
            raise Conflict(
                f"iteration {name!r} is another one: {_difference(row['spec'], spec)}. Choose "
                "another id, or ask for what it is"
            )
        return self._told(dict(row))

    def _running(self, iteration: str) -> Json:
        """The row of an iteration, whose engine runs then."""
        with self._database.read() as connection:
            row = _row(connection, iteration)
        if row["status"] == "stopped":
            raise Conflict(f"iteration {iteration!r} was stopped: start it first")
        if row["status"] == "failed":
            raise Conflict(f"iteration {iteration!r} has failed: {row['error']}")
        self.engines.start(self._job(row))
        return row

    def _job(self, row: Mapping[str, Any]) -> EngineJob:
        pinned = row["snapshot"]
        modules = self._modules.path_of(pinned["modules"])
        return EngineJob(
            row["id"],
            row["spec"],
            pinned["dataset"],
            None if modules is None else str(modules),
            row["total"],
        )

    def _told(self, row: Mapping[str, Any]) -> Json:
        return self._all_told([row])[0]

    def _all_told(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Json]:
        """What is told of iterations: their rows, and how far they are."""
        progress = {row["id"]: self.engines.status(row["id"]) for row in rows}
        silent = [row for row in rows if progress[row["id"]] is None]
        states = self._journals([row["id"] for row in silent])
        for row in silent:
            division = division_of(IterationSpec.model_validate(row["spec"]))
            progress[row["id"]] = status_of_journal(
                states.get(row["id"], {}), division, total=row["total"], state=row["status"]
            )
        told = []
        for row in rows:
            one = {name: row[name] for name in _TOLD}
            one["progress"] = progress[row["id"]]
            if row["status"] in ("ready", "running") and one["progress"]["state"] == "done":
                one["status"] = "done"  # the row is written a moment later
            told.append(one)
        return told

    def _journals(self, identities: Sequence[str]) -> dict[str, Json]:
        """The states of all cursors of some iterations, by iteration and name."""
        found: dict[str, Json] = {}
        if identities:
            wanted = select(cursors.c.iteration_id, cursors.c.name, cursors.c.state)
            with self._database.read() as connection:
                rows = connection.execute(wanted.where(cursors.c.iteration_id.in_(identities)))
                for identity, name, state in rows:
                    found.setdefault(identity, {})[name] = state
        return found


def _row(connection: Connection, iteration: str) -> Json:
    wanted = or_(table.c.id == iteration, table.c.name == iteration)
    row = connection.execute(select(table).where(wanted)).mappings().first()
    if row is None:
        raise NotFound(f"there is no iteration {iteration!r}")
    return dict(row)


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or _OWN_ID.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot be the id of an iteration: write letters, digits, _, - and ., and "
            "not sixteen hexadecimal digits, which is what the server's own ids look like"
        )


def _difference(stored: Mapping[str, Any], spec: IterationSpec) -> str:
    """Which fields differ, with what each of both says."""
    asked = spec.model_dump(mode="json")
    names = [name for name in asked if stored.get(name) != asked[name]]
    return ", ".join(f"its {name} is {stored.get(name)!r}, not {asked[name]!r}" for name in names)
