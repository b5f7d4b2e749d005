"""The proxy does what its rules say, and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from splitpipe.testing.faults.proxy import FaultProxy, HttpFault, chaos
from tests.servers import FileServer

DATA = bytes(range(256)) * 400


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    data: bytes


@pytest.fixture
def proxy(file_server: FileServer) -> Iterator[FaultProxy]:
    (file_server.folder / "a").write_bytes(DATA)
    with FaultProxy(file_server.url) as proxy:
        yield proxy


def get(
    url: str,
    path: str = "/a",
    *,
    method: str = "GET",
    asked: str | None = None,
    wait_s: float = 20.0,
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=wait_s)
    try:
        connection.request(method, path, headers={"Range": f"bytes={asked}"} if asked else {})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def test_without_rules_everything_passes(proxy: FaultProxy) -> None:
    assert get(proxy.url).data == DATA
    part = get(proxy.url, asked="10-19")
    assert (part.status, part.data) == (206, DATA[10:20])
    assert get(proxy.url, method="HEAD").headers["Content-Length"] == str(len(DATA))
    assert get(proxy.url, "/none").status == 404


def test_a_connection_is_kept(proxy: FaultProxy) -> None:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=120)
    for i in range(20):
        connection.request("GET", "/a", headers={"Range": f"bytes={i}-{i}"})
        assert connection.getresponse().read() == DATA[i : i + 1]
    connection.close()
    assert proxy.statistics().connections == 1


def test_it_counts_what_passes(proxy: FaultProxy) -> None:
    get(proxy.url), get(proxy.url, asked="0-9"), get(proxy.url, method="HEAD")
    told = proxy.statistics()
    assert told.requests == {"GET": 2, "GET ranged": 1, "HEAD": 1}
    assert told.nbytes_down == len(DATA) + 10
    assert [seen.range for seen in proxy.log()] == [None, "bytes=0-9", None]
    proxy.forget()
    assert proxy.log() == []


def test_a_status_is_answered_so_many_times(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="status", status=429, retry_after="3", times=2))
    first = get(proxy.url)
    assert (first.status, first.headers["Retry-After"]) == (429, "3")
    assert [get(proxy.url).status for _ in range(2)] == [429, 200]
    assert proxy.statistics().faults == {"status": 2}


def test_a_redirect_leads_elsewhere(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="redirect", status=302, location="http://127.0.0.1:1/x"))
    answer = get(proxy.url)
    assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.1:1/x")


def test_a_reset_ends_the_connection(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="reset", times=1))
    with pytest.raises(ConnectionError):
        get(proxy.url)
    assert get(proxy.url).data == DATA


@pytest.mark.parametrize("kind", ["truncate", "reset_midway"])
def test_a_body_ends_in_the_middle(proxy: FaultProxy, kind: str) -> None:
    proxy.inject(HttpFault(kind=kind))  # type: ignore[arg-type]
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        get(proxy.url)


@pytest.mark.parametrize("kind", ["truncate", "trickle", "stall_midway", "wrong_length"])
def test_what_has_no_body_is_reset(proxy: FaultProxy, kind: str) -> None:
    proxy.inject(HttpFault(kind=kind))  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        get(proxy.url, method="HEAD")


@pytest.mark.parametrize("nbytes", [-7, 7])
def test_a_length_is_wrong(proxy: FaultProxy, nbytes: int) -> None:
    proxy.inject(HttpFault(kind="wrong_length", nbytes=nbytes))
    if nbytes > 0:
        with pytest.raises(http.client.IncompleteRead):
            get(proxy.url)
    else:
        assert get(proxy.url).data == DATA[:nbytes]


def test_a_range_is_wrong(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="wrong_range", nbytes=5))
    answer = get(proxy.url, asked="10-19")
    assert answer.headers["Content-Range"] == f"bytes 15-24/{len(DATA)}"
    assert answer.data == DATA[10:20]


def test_a_range_is_ignored(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="ignore_range"))
    answer = get(proxy.url, asked="10-19")
    assert (answer.status, answer.data) == (200, DATA)


def test_a_bit_is_flipped(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="corrupt"))
    data = get(proxy.url).data
    assert len(data) == len(DATA)
    assert sum(one != other for one, other in zip(data, DATA)) == 1


@pytest.mark.parametrize("kind", ["stall", "stall_midway"])
def test_a_response_stalls(proxy: FaultProxy, kind: str) -> None:
    proxy.inject(HttpFault(kind=kind))  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        get(proxy.url, wait_s=0.2)


def test_a_response_trickles(proxy: FaultProxy) -> None:
    proxy.inject(HttpFault(kind="trickle", nbytes_per_s=2000))
    begun = time.monotonic()
    assert get(proxy.url, asked="0-499").data == DATA[:500]
    assert time.monotonic() - begun > 0.1


def test_latency_is_added(proxy: FaultProxy) -> None:
    proxy.set_latency(0.1)
    begun = time.monotonic()
    get(proxy.url)
    assert time.monotonic() - begun >= 0.1


def test_a_rule_strikes_only_what_it_names(proxy: FaultProxy) -> None:
    proxy.inject(
        HttpFault(kind="status", method="HEAD"),
        HttpFault(kind="status", status=500, ranged=True, after=1),
        HttpFault(kind="status", status=403, target="none$"),
    )
    assert get(proxy.url, method="HEAD").status == 503
    assert [get(proxy.url, asked="0-1").status for _ in range(2)] == [206, 500]
    assert get(proxy.url, "/none").status == 403
    assert get(proxy.url).status == 200


def test_rates_are_those_that_were_asked_for(proxy: FaultProxy) -> None:
    proxy.inject(*chaos(0.3, stall_s=0.0, nbytes_per_s=1e9), seed=1)
    for _ in range(200):
        with contextlib.suppress(http.client.HTTPException, OSError):
            get(proxy.url, asked="0-1")
    told = proxy.statistics().faults
    assert 36 < sum(told.values()) < 84
    assert len(told) == 8  # of its kinds, three are a status and two a wrong length


def test_the_same_seed_strikes_the_same(proxy: FaultProxy) -> None:
    def struck() -> list[int]:
        proxy.inject(HttpFault(kind="status", rate=0.5), seed=11)
        return [get(proxy.url).status for _ in range(30)]

    assert struck() == struck()


def test_a_server_that_is_not_there_resets(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # does not listen
        with (
            FaultProxy(f"http://127.0.0.1:{taken.getsockname()[1]}") as proxy,
            pytest.raises((ConnectionError, http.client.HTTPException)),
        ):
            get(proxy.url)


def test_many_connections_at_once(proxy: FaultProxy) -> None:
    proxy.set_latency(0.05)
    wrong: list[object] = []

    def work() -> None:
        for i in range(5):
            data = get(proxy.url, asked=f"{i}-{i + 99}").data
            if data != DATA[i : i + 100]:
                wrong.append(data)

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert proxy.statistics().requests["GET"] == 320


def test_it_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="is no fault"):
        HttpFault(kind="gremlin")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not the url"):
        FaultProxy("ftp://x")
