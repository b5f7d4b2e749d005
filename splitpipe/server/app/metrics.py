"""The numbers of the server for a Prometheus server.

Responsible for: what is counted of requests, and what is read of iterations and tasks when somebody
asks. What a pipeline inside of an engine does is part of its iteration's status.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from splitpipe.server.service import Service

__all__ = ["Metrics"]

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Metrics:
    """What one server counts.

    Args:
        service: whose iterations and tasks are counted.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "splitpipe_server_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "splitpipe_server_request_seconds",
            "How long answers took, to their last byte.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "splitpipe_server_requests_in_flight",
            "Requests that are being answered.",
            registry=self._registry,
        )
        self._registry.register(_OfService(service))
        ProcessCollector(registry=self._registry)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request as long as it is being answered."""
        self._in_flight.inc()
        try:
            yield
        finally:
            self._in_flight.dec()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered; ``route`` is a template, of which there are few."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self._registry)


class _OfService(Collector):
    """Numbers that are read when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        for name, said, label, values in self._service.numbers():
            family = GaugeMetricFamily(f"splitpipe_server_{name}", said, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            yield family
