"""`connect`, and the `Client` that it returns.

Responsible for: one service as a program sees it: its parts, writers, and loaders.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from splitpipe.client.asynchronous import AsyncRemoteLoader
from splitpipe.client.http import Http
from splitpipe.client.loader import Options, RemoteLoader
from splitpipe.client.modules import Module, reference, references
from splitpipe.client.parts import Datasets, Iterations, Modules, Tasks, Tokens
from splitpipe.client.writer import ColumnSetWriter
from splitpipe.errors import InvalidRequest, NotFound, ResumeError

__all__ = ["Client", "connect"]

_OPTIONS = frozenset(Options.__dataclass_fields__)


def connect(url: str, token: str | None = None, *, retry_s: float = 30) -> Client:
    """Return a client of the data service at `url`.

    Nothing is asked of the server yet.

    Args:
        url: where it is: ``"http://host:8000"``.
        token: what it knows its user by, where it asks for one.
        retry_s: how long, in seconds, a question is asked again while the server is not there.

    Example:
        >>> connect("http://127.0.0.1:8000", token="secret")
        Client('http://127.0.0.1:8000')
    """
    return Client(Http(url, token, retry_s=retry_s))


class Client:
    """A data service, from somewhere else. Made by `connect`.

    Attributes:
        datasets: its datasets, and under ``datasets.column_sets`` their columns.
        iterations: what is being read.
        tasks: what it does in the background.
        modules: filters, categorizers, collaters and preprocessors.
        tokens: who may use it.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        self.datasets = Datasets(http)
        self.iterations = Iterations(http)
        self.tasks = Tasks(http)
        self.modules = Modules(http)
        self.tokens = Tokens(http)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._http.url

    def version(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        found: dict[str, Any] = self._http.get("/api/v1/version")
        return found

    def writer(
        self,
        dataset: str,
        column_set: str,
        *,
        format: str = "bins",
        columns: Mapping[str, Any] | None = None,
        reopen: bool = False,
    ) -> ColumnSetWriter:
        """Return what writes a new column set on the server, or goes on with an unfinished one.

        Args:
            dataset: name or id.
            column_set: what the set is called.
            format: ``"bins"``, ``"csv"``, ``"jsonl"`` or ``"parquet"``.
            columns: names and types (words, or a `Field`); None: the first rows say them.
            reopen: add rows also to a set that was finished. Until it is finished again, nobody
                begins to read it; iterations that run go on with what it was.
        """
        return ColumnSetWriter(
            self._http, dataset, column_set, format=format, columns=columns, reopen=reopen
        )

    def iterate(
        self,
        dataset: str,
        *,
        filters: Sequence[Module] = (),
        categorizer: Module | None = None,
        collater: Module | None = None,
        preprocessors: Sequence[Module] = (),
        id: str | None = None,
        state: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> RemoteLoader:
        """Return the batches of a dataset, made by the server.

        Args:
            dataset: name or id.
            filters: each says of a sample whether it stays: ``"name"``, or ``("name", {...})``.
            categorizer: says of a sample with which others it is batched.
            collater: makes a batch of a list of samples.
            preprocessors: each makes another batch of a batch.
            id: the iteration that is shared, followed or gone on with; None for one of its own.
            state: where another loader was, as its ``state_dict`` said.
            more: what the server is asked for: ``columns``, ``where``, ``decode``, ``shuffle``,
                ``window``, ``seed``, ``epochs``, ``batch_size``, ``drop_last``, ``world_size``,
                ``replication_groups``, ``ends``, ``mode``, ``waiting_nbytes``,
                ``max_retry_count``, ``on_error``, ``skip_budget``, ``workers``, ``lease_s``; and
                how it is read: ``rank``, ``client``, ``ack``, ``prefetch``, ``prefetch_nbytes``,
                ``transport``, ``reconnect_s``, ``limits``.

        Raises:
            InvalidRequest: the server makes no sense of it.
            NotFound: there is no such dataset, column or module.
            Conflict: there is an iteration of this id, of another kind.
            ResumeError: the state is of something else.
        """
        spec = {name: value for name, value in more.items() if name not in _OPTIONS}
        spec |= {
            "dataset": dataset,
            "filters": references(filters),
            "categorizer": None if categorizer is None else reference(categorizer),
            "collater": None if collater is None else reference(collater),
            "preprocessors": references(preprocessors),
        }
        return self._open(
            spec, id=id, state=state, options=_options(spec.get("mode", "share"), state, more)
        )

    def iterate_async(self, dataset: str, **more: Any) -> AsyncRemoteLoader:
        """As `iterate`, for ``async for``. The server is asked when it is entered, or iterated."""
        return AsyncRemoteLoader(lambda: self.iterate(dataset, **more))

    def follow(
        self, iteration: str, *, state: Mapping[str, Any] | None = None, **more: Any
    ) -> RemoteLoader:
        """Return the batches of an iteration that there is already, by its id.

        Args:
            iteration: its id.
            state: where another loader was.
            more: how it is read, as for `iterate`.
        """
        unknown = sorted(set(more) - _OPTIONS)
        if unknown:
            raise InvalidRequest(f"{', '.join(unknown)}: the iteration says that, not its readers")
        told = self.iterations.get(iteration)
        mode = told.get("spec", {}).get("mode", "share")
        return RemoteLoader(self._http, told["id"], _options(mode, state, more), state=state)

    def _open(
        self,
        spec: dict[str, Any],
        *,
        id: str | None,
        state: Mapping[str, Any] | None,
        options: Options,
    ) -> RemoteLoader:
        if state is None:
            made = self.iterations.create(spec, id=id)
        else:
            made = self._same(spec, id, state)
        return RemoteLoader(self._http, made["id"], options, state=state)

    def _same(
        self, spec: Mapping[str, Any], id: str | None, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the iteration of a state, which has to be as it is described now."""
        name = str(state.get("iteration"))
        try:
            told = self.iterations.get(name)
        except NotFound as error:
            raise ResumeError(f"the server has no iteration {name} any more") from error
        if id is not None and id not in (told["id"], told.get("name")):
            raise ResumeError(f"the state is of iteration {told.get('name') or name}, not of {id}")
        for option, value in spec.items():
            if told["spec"].get(option) != json.loads(json.dumps(value)):
                raise ResumeError(
                    f"the state is of another iteration: {option} was "
                    f"{told['spec'].get(option)!r}, and is {value!r} now"
                )
        return told

    def close(self) -> None:
        """End what connections there are. Loaders have their own, and go on."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"


def _options(mode: str, state: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Options:
    """Return how it is read; who follows has a name, which a state remembers."""
    told = {name: value for name, value in more.items() if name in _OPTIONS}
    client = told.get("client") or ""
    if not client and mode == "follow":
        client = str((state or {}).get("client") or "") or uuid.uuid4().hex
    return Options(**{**told, "client": client})
