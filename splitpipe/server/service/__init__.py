"""The service: all rooms of the server, put together once.

Responsible for: opening them in order and closing them in the other one. Routes and pages call what
stands here, and hold no logic of their own.

Rules:
- opening goes on where the server before ended, however it ended;
- closing takes less than a second, and leaves no process.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from splitpipe.server.catalog import Datasets, Locations, adding
from splitpipe.server.catalog.examine import takes_long
from splitpipe.server.catalog.uploads import Uploads
from splitpipe.server.feed.engines import Engines
from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.iterations.snippet import snippet
from splitpipe.server.iterations.trying import try_out
from splitpipe.server.modules.apart import end_children
from splitpipe.server.modules.registry import Modules
from splitpipe.server.security import FeedKeys, Tokens, load_keys, refuse_exposure
from splitpipe.server.service.iterations import Iterations
from splitpipe.server.settings import Settings
from splitpipe.server.state import Database, open_database
from splitpipe.server.tasks import Tasks
from splitpipe.wire.packing import unpack

__all__ = ["Number", "Service", "open_service"]

Number: TypeAlias = tuple[str, str, str, Mapping[str, float]]
"""What is told to Prometheus: name, what it is, the name of its label, values by label."""


class Service:
    """What a server can do: made by `open_service`.

    Attributes:
        settings: what the operator decided.
        database: what the server remembers.
        tokens: who may do what.
        keys: of the feed's sockets, or None on loopback without them.
        datasets: what there is to read.
        uploads: what clients write.
        modules: the operator's own code.
        tasks: work in the background.
        iterations: what clients read.
        ending: set when the server ends; whoever answers for long looks at it.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.tokens = Tokens(database)
        self.keys: FeedKeys | None = load_keys(settings.root.keys)
        self.ending = threading.Event()
        self.datasets = Datasets(
            database, _locations(settings), indices=str(settings.root.path / "indices")
        )
        self.uploads = Uploads(self.datasets)
        self.modules = Modules(settings.modules, settings.root.run / "modules")
        self.tasks = Tasks(database, self.datasets, modules=self.modules)
        self.iterations = Iterations(database, datasets=self.datasets, modules=self.modules)

    def add_rows(self, dataset: str, name: str, sequence: int, body: bytes) -> dict[str, Any]:
        """Add rows to a column set that is being written.

        Args:
            dataset: name or id.
            name: of the column set.
            sequence: number of this call, from 0.
            body: a list of rows, or columns by name, packed as the wire has values.

        Raises:
            WireError: the body is none.
            SplitpipeError: as `Uploads.append`.
        """
        return self.uploads.append(dataset, name, sequence, unpack(body))

    def add_column_set(
        self, dataset: str, name: str, *, location: str, format: str, columns: Any = None
    ) -> tuple[dict[str, Any], bool]:
        """Add columns that lie somewhere: at once, or by a task where there is much to look at.

        Returns:
            The column set, or the task; and whether it is the task.

        Raises:
            SplitpipeError: as `Datasets.add_column_set`.
        """
        datasets = self.datasets
        wanted = adding.wanted(
            datasets, dataset, name, location=location, format=format, columns=columns
        )
        if adding.same_set(datasets, dataset, wanted) is None and takes_long(wanted):
            said = {"location": location, "format": format, "columns": columns}
            return self.start("add", dataset=dataset, column_set=name, **said), True
        made = datasets.add_column_set(
            dataset, name, location=location, format=format, columns=columns
        )
        return made, False

    def start(self, kind: str, **params: Any) -> dict[str, Any]:
        """Begin a task.

        Args:
            kind: ``add``, ``sync``, ``statistics``, ``check`` or ``preprocess``.
            params: of the task; what is None is not said.

        Raises:
            SplitpipeError: as `Tasks.start`.
        """
        return self.tasks.start(kind, params)

    def try_out(self, spec: IterationSpec, *, count: int) -> dict[str, Any]:
        """Make the first batches of an iteration that is only thought of: see `trying.try_out`.

        Raises:
            SplitpipeError: as `Iterations.create`.
        """
        snapshot, _ = self.iterations.pinned(spec)
        modules = self.modules.path_of(snapshot["modules"])
        return try_out(spec, snapshot["dataset"], modules, count=count)

    def snippet(self, spec: IterationSpec, *, url: str, name: str | None = None) -> str:
        """Write the program that iterates so: see `splitpipe.server.iterations.snippet`."""
        return snippet(spec, url=url, name=name)

    def let_go(self) -> None:
        """Answer whoever waits for something: the server ends. Nothing is closed yet."""
        self.ending.set()
        self.iterations.engines.let_go()
        self.tasks.let_go()
        end_children()

    def numbers(self) -> Iterable[Number]:
        """What is told to Prometheus."""
        tasks = Counter(task["status"] for task in self.tasks.list())
        yield "tasks", "Tasks by what became of them.", "status", dict(tasks)
        yield from _of_iterations(self.iterations.engines.metrics())

    def health(self) -> dict[str, Any]:
        """Whether the server can do its work; raises what keeps it from that."""
        with self.database.read() as connection:
            connection.exec_driver_sql("select 1")
        return {"status": "ok"}


@contextmanager
def open_service(settings: Settings) -> Iterator[Service]:
    """Open all rooms of a server, and close them at the end of the block.

    Raises:
        LockedError: another process serves the folder.
        UnsupportedVersion: a newer splitpipe made the database.
        SplitpipeError: whatever keeps it from being opened.
    """
    with ExitStack() as stack:
        stack.enter_context(settings.root.locked())
        database = open_database(settings.database_url, durable=settings.durable)
        stack.callback(database.close)
        stack.enter_context(database.claimed())
        service = Service(settings, database)
        refuse_exposure(
            settings.host,
            root=settings.root.path,
            tokens=len(service.tokens.list()),
            keys=service.keys is not None,
        )
        stack.callback(service.datasets.close)
        stack.callback(service.uploads.close)
        service.modules.load()
        engines = Engines(
            settings.database_url,
            run=settings.root.run,
            host=settings.host,
            ports=settings.feed_ports,
            keys=service.keys,
            durable=settings.durable,
            changed=service.iterations.changed,
        )
        stack.callback(engines.close)
        service.iterations.go_on(engines)
        stack.callback(service.tasks.close)
        service.tasks.resume()
        service.modules.prune(service.iterations.generations() | service.tasks.generations())
        stack.callback(service.ending.set)
        yield service


def _locations(settings: Settings) -> Locations:
    """Where column sets may lie, as the operator decided."""
    options = settings.storage_options
    return Locations(
        data=str(settings.root.data),
        allow_roots=tuple(str(path) for path in settings.allow_roots),
        allow_remote=settings.allow_remote,
        storage_options=None if options is None else str(options),
        cache=str(settings.root.path / "cache"),
    )


def _of_iterations(told: Mapping[str, Mapping[str, Any]]) -> Iterable[Number]:
    """The numbers of all engines."""
    for name, said in (
        ("rate", "Samples a second that are delivered."),
        ("completed", "Samples that were acknowledged."),
        ("filtered", "Samples that were left out by a filter."),
        ("failed", "Samples that were left out because they failed."),
        ("crashes", "How often the engine was started again."),
    ):
        values = {key: float(one.get(name) or 0) for key, one in told.items()}
        yield f"iteration_{name}", said, "iteration", values
    clients = {key: float(one.get("clients_total") or 0) for key, one in told.items()}
    yield "iteration_clients", "Clients of the iteration.", "iteration", clients
