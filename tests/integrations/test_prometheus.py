"""The endpoint for Prometheus: names, numbers, and who may ask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import splitpipe as sp
from splitpipe.integrations.prometheus import Collector, serve


@pytest.fixture
def loader() -> Iterator[sp.Loader]:
    pipe = sp.Pipeline(range(40)).filter(odd, workers=2).batch(4, workers=1)
    with pipe.loader() as made:
        for _ in range(3):
            next(made)
        yield made


def odd(item: int) -> bool:
    return item % 2 == 1


def scraped(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=120) as answer:
        text = answer.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


class TestEndpoint:
    def test_tells_what_stats_tell(self, loader: sp.Loader) -> None:
        list(loader)
        with serve({"train": loader}, port=0) as endpoint:
            found = scraped(endpoint.url)
        values = {
            sample.labels["task"]: sample.value for sample in found["splitpipe_items_out"].samples
        }
        odd_task, four, consumer = loader.stats()
        assert values == {
            "0: odd": odd_task.items_out,
            "1: batch(4)": four.items_out,
            "2: consumer": consumer.items_out,
        }
        (dropped, *_) = found["splitpipe_items_dropped"].samples
        assert (dropped.name, dropped.value) == ("splitpipe_items_dropped_total", 20)
        assert dropped.labels == {"pipeline": "train", "task": "0: odd"}
        stages = {s.labels["stage"] for s in found["splitpipe_stage_items_dropped"].samples}
        assert stages == {"source", "odd", "batch(4)"}

    def test_names_follow_the_conventions(self, loader: sp.Loader) -> None:
        with serve(loader, port=0) as endpoint:
            found = scraped(endpoint.url)
        assert set(found) >= {"splitpipe_workers", "splitpipe_cpu_seconds", "splitpipe_arena_bytes"}
        for name, family in found.items():
            assert name.startswith("splitpipe_")
            assert family.documentation
            assert family.type in ("counter", "gauge")
            if family.type == "counter":
                assert all(sample.name.endswith("_total") for sample in family.samples)

    def test_counts_while_it_runs(self, loader: sp.Loader) -> None:
        with serve(loader, port=0) as endpoint:
            assert 3 <= items_of_loop(scraped(endpoint.url)) <= 5
            list(loader)
            assert items_of_loop(scraped(endpoint.url)) == 5

    def test_listens_on_loopback(self, loader: sp.Loader) -> None:
        with serve(loader, port=0) as endpoint:
            assert endpoint.address == "127.0.0.1"
            assert endpoint.url == f"http://127.0.0.1:{endpoint.port}/metrics"
            assert repr(endpoint) == f"Endpoint({endpoint.url})"

    def test_is_gone_when_it_is_closed(self, loader: sp.Loader) -> None:
        endpoint = serve(loader, port=0)
        endpoint.close()
        endpoint.close()
        with pytest.raises(OSError, match="refused"):
            urlopen(endpoint.url, timeout=5)

    def test_a_port_that_is_taken(self, loader: sp.Loader) -> None:
        with serve(loader, port=0) as endpoint, pytest.raises(OSError, match="in use"):
            serve(loader, port=endpoint.port)

    def test_leaves_the_registry_of_the_program_alone(self, loader: sp.Loader) -> None:
        before = prometheus_client.generate_latest()
        with serve(loader, port=0):
            assert b"splitpipe" not in prometheus_client.generate_latest()
        assert len(prometheus_client.generate_latest()) == pytest.approx(len(before), rel=0.1)


def test_collector_in_a_registry_of_the_users(loader: sp.Loader) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector({"a": loader, "b": loader}))
    text = prometheus_client.generate_latest(registry).decode()
    assert 'pipeline="a"' in text
    assert 'pipeline="b"' in text


def test_without_the_extra(loader: sp.Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError, match=r"splitpipe\[prometheus\]"):
        serve(loader, port=0)


def items_of_loop(found: dict[str, Any]) -> float:
    (value,) = (
        sample.value
        for sample in found["splitpipe_items_in"].samples
        if sample.labels["task"].endswith("consumer")
    )
    return float(value)
