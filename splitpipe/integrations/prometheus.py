"""The numbers of running pipelines for a Prometheus server.

Responsible for: `serve`, an endpoint that a server scrapes, and `Collector`, for programs that have
an endpoint already. Needs the extra ``prometheus`` (prometheus-client).

Rules:
- numbers are read when somebody asks for them: between two scrapes the endpoint costs nothing;
- names follow the conventions of Prometheus: base units, ``_total`` for what only grows;
- it listens on the loopback address alone unless another one is given: the names of stages are
  nobody else's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from splitpipe.integrations.extras import imported
from splitpipe.runtime.statistics import StageStatistics, TaskStatistics

__all__ = ["Collector", "Endpoint", "serve"]


class HasStatistics(Protocol):
    """A loader."""

    def stats(self) -> tuple[TaskStatistics, ...]: ...


Loaders: TypeAlias = "HasStatistics | Mapping[str, HasStatistics]"

_TaskNumber: TypeAlias = "Callable[[TaskStatistics], float | None]"
_COUNTERS: dict[str, tuple[str, _TaskNumber]] = {
    "items_in": ("Items that the task took.", lambda task: task.items_in),
    "items_out": ("Items that the task gave on.", lambda task: task.items_out),
    "items_dropped": ("Items left out on purpose.", lambda task: task.dropped),
    "messages": ("Messages that the task sent.", lambda task: task.messages),
    "sent_bytes": ("Bytes that the task sent.", lambda task: task.nbytes),
    "busy_seconds": ("Time at work, of all workers.", lambda task: task.busy_s),
    "input_wait_seconds": ("Time with nothing to do.", lambda task: task.wait_input_s),
    "output_wait_seconds": ("Time with nowhere to send to.", lambda task: task.wait_output_s),
    "memory_wait_seconds": (
        "Time without a free slot of shared memory, a part of the waits for output.",
        lambda task: task.wait_memory_s,
    ),
    "cpu_seconds": ("CPU time of the workers.", lambda task: task.cpu_s),
    "arena_refused": ("Payloads sent without shared memory.", lambda task: task.arena_refused),
    "copies": ("Payloads copied because too many were kept.", lambda task: task.copies),
}
_GAUGES: dict[str, tuple[str, _TaskNumber]] = {
    "workers": ("Processes of the task; 0 is the consumer's own.", lambda task: task.workers),
    "queued_messages": ("Sent and not yet taken.", lambda task: task.queued),
    "resident_memory_bytes": ("Memory of the workers.", lambda task: task.rss_nbytes),
    "arena_bytes": ("Shared memory of the workers.", lambda task: task.arena_nbytes),
    "arena_limit_bytes": ("What it may become.", lambda task: task.arena_limit),
    "first_item_seconds": ("From the start to the first unit.", lambda task: task.first_s),
}
_STAGE_COUNTERS: dict[str, tuple[str, Callable[[StageStatistics], float]]] = {
    "stage_busy_seconds": ("Time in the stage's own code, sampled.", lambda stage: stage.busy_s),
    "stage_items_dropped": ("Items the stage left out.", lambda stage: stage.dropped),
    "stage_items_skipped": ("Items that failed and were left out.", lambda stage: stage.skipped),
    "stage_items_retried": ("Further tries of items.", lambda stage: stage.retried),
    "stage_items_quarantined": ("Items written down.", lambda stage: stage.quarantined),
}


def serve(loaders: Loaders, *, port: int, address: str = "127.0.0.1") -> Endpoint:
    """Answer a Prometheus server's questions about `loaders` until the endpoint is closed.

    Args:
        loaders: one, or several by name; the name becomes the label ``pipeline``.
        port: to listen on; 0 takes a free one, see `Endpoint.port`.
        address: to listen on.

    Raises:
        ModuleNotFoundError: the extra ``prometheus`` is not installed.
        OSError: the port is taken, or the address is not this machine's.

    Example:
        >>> from urllib.request import urlopen
        >>> import splitpipe as sp
        >>> with sp.Pipeline(range(6)).batch(2).loader(executor="inline") as loader:
        ...     with serve(loader, port=0) as endpoint:
        ...         text = urlopen(endpoint.url).read().decode()
        >>> "splitpipe_items_in_total" in text
        True
    """
    return Endpoint(loaders, port, address)


class Endpoint:
    """A server of numbers, in a thread of its own; see `serve`."""

    def __init__(self, loaders: Loaders, port: int, address: str) -> None:
        client = _client()
        registry = client.CollectorRegistry()  # our own: a program's other numbers stay its own
        registry.register(Collector(loaders))
        self._server, self._thread = client.start_http_server(port, address, registry)
        self.address, self.port = self._server.server_address[:2]

    @property
    def url(self) -> str:
        """Where it answers."""
        host = f"[{self.address}]" if ":" in str(self.address) else self.address
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop answering. Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.url})"


class Collector:
    """The numbers of `loaders`, for a registry of prometheus-client.

    Example:
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> import splitpipe as sp
        >>> registry = CollectorRegistry()
        >>> with sp.Pipeline(range(6)).loader(executor="inline") as loader:
        ...     registry.register(Collector(loader))
        ...     b"splitpipe_busy_seconds_total" in generate_latest(registry)
        True
    """

    def __init__(self, loaders: Loaders) -> None:
        self._loaders = loaders if isinstance(loaders, Mapping) else {"": loaders}
        self._core = import_module("prometheus_client.core") if _client() else None

    def describe(self) -> Iterable[Any]:
        """Return nothing: what there is follows from what runs."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield every family of numbers, read now."""
        core: Any = self._core
        tasks = [
            ((pipeline, f"{number}: {task.name}"), task)
            for pipeline, loader in self._loaders.items()
            for number, task in enumerate(loader.stats())
        ]
        labels = ("pipeline", "task")
        kinds = ((core.CounterMetricFamily, _COUNTERS), (core.GaugeMetricFamily, _GAUGES))
        for make, families in kinds:
            for name, (text, number_of) in families.items():
                family = make(f"splitpipe_{name}", text, labels=labels)
                for where, task in tasks:
                    value = number_of(task)
                    if value is not None:
                        family.add_metric(where, value)
                yield family
        yield from self._stages(tasks)

    def _stages(self, tasks: list[tuple[tuple[str, str], TaskStatistics]]) -> Iterator[Any]:
        core: Any = self._core
        labels = ("pipeline", "task", "stage")
        for name, (text, number_of) in _STAGE_COUNTERS.items():
            family = core.CounterMetricFamily(f"splitpipe_{name}", text, labels=labels)
            for where, task in tasks:
                for stage in task.stages:
                    family.add_metric((*where, stage.name), number_of(stage))
            yield family
        family = core.CounterMetricFamily(
            "splitpipe_stage_measured", "What the stage counts.", labels=(*labels, "measure")
        )
        for where, task in tasks:
            for stage in task.stages:
                for measure, value in stage.measured.items():
                    family.add_metric((*where, stage.name, measure), value)
        yield family


def _client() -> Any:
    return imported("prometheus_client", extra="prometheus", by="an endpoint for Prometheus")
