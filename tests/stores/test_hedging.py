"""A second request beside one that takes too long: when, how often, what is left of the other."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import queue
import random
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import DatasetChanged
from splitpipe.stores import MemoryStore, RetryingStore, RetryPolicy, Store, Timeouts
from splitpipe.stores import hedging as hedging_module
from splitpipe.stores.failures import remote_error
from splitpipe.stores.hedging import KNOWN, Hedges
from splitpipe.stores.http import HttpStore
from splitpipe.stores.s3 import S3Store
from splitpipe.stores.waiting import Abandoned, Watch, watch, watching
from splitpipe.testing.faults import FaultProxy, HttpFault
from tests.server_fixtures import Bucket
from tests.servers import FileServer

DATA = random.Random(1).randbytes(3_000_000)
# Time-outs that nothing here reaches, unless a test says so: only a second request helps.
GENEROUS = Timeouts(stall_s=3600.0, nbytes_per_s=1.0)


class Lines(MemoryStore):
    """Each read waits on a line of its own for what the test says on it."""

    def __init__(self) -> None:
        super().__init__("memory://lines/")
        self.begun: queue.Queue[socket.socket] = queue.Queue()
        self.ended: queue.Queue[BaseException | None] = queue.Queue()

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        here, there = socket.socketpair()
        watch(here)
        try:
            self.begun.put(there)
            data = bytearray(4)
            with here:
                if not here.recv_into(data):
                    raise remote_error(104, "the line was cut", self.url, transient=True)
            self.ended.put(None)
            return bytes(data)
        except OSError as error:
            self.ended.put(error)
            if isinstance(error, Abandoned):
                raise remote_error(104, str(error), self.url, transient=True) from error
            raise


@pytest.fixture
def asked() -> Iterator[tuple[RetryingStore, Lines, ThreadPoolExecutor]]:
    store = Lines()
    again = RetryingStore(store, RetryPolicy(base_s=0.0))
    with ThreadPoolExecutor(1) as pool:
        yield again, store, pool
    again.close()


@pytest.fixture(params=["http", "s3"])
def reached(
    request: pytest.FixtureRequest, file_server: FileServer, bucket: Bucket
) -> Iterator[tuple[RetryingStore, FaultProxy]]:
    """A store with two objects, ``a`` and ``b``, behind a proxy."""
    if request.param == "http":
        for name in "ab":
            (file_server.folder / name).write_bytes(DATA)
        with FaultProxy(file_server.url) as proxy:
            again = RetryingStore(HttpStore(proxy.url, timeouts=GENEROUS), hedged())
            yield again, proxy
            again.close()
    else:
        for name in "ab":
            bucket.server.put(f"{bucket.name}/{name}", DATA)
        with FaultProxy(bucket.server.url) as proxy:
            options = bucket.server.options_at(proxy.url)
            again = RetryingStore(S3Store(bucket.url, options=options), hedged())
            yield again, proxy
            again.close()


def hedged() -> RetryPolicy:
    return RetryPolicy(base_s=0.001, hedges=1.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up for being slower than usual."""
    monkeypatch.setattr("splitpipe.stores.patience.LEAST_S", 3600.0)
    monkeypatch.setattr("splitpipe.stores.patience.FIRST_S", 3600.0)


# -- which of both


def test_the_second_answers_and_the_first_is_called_away(
    asked: tuple[RetryingStore, Lines, ThreadPoolExecutor],
) -> None:
    again, store, pool = asked
    reading = pool.submit(again.read, "a", 0, 4)
    with store.begun.get(), store.begun.get() as second:
        second.sendall(b"late")
        assert reading.result() == b"late"
        assert store.ended.get() is None
        assert isinstance(store.ended.get(), Abandoned)
    told = again.statistics()
    assert (told.requests, told.retries, told.hedges, told.hedges_won) == (2, 0, 1, 1)


def test_the_first_answers_and_the_second_is_called_away(
    asked: tuple[RetryingStore, Lines, ThreadPoolExecutor],
) -> None:
    again, store, pool = asked
    reading = pool.submit(again.read, "a", 0, 4)
    with store.begun.get() as first, store.begun.get():
        first.sendall(b"good")
        assert reading.result() == b"good"
        assert store.ended.get() is None
        assert isinstance(store.ended.get(), Abandoned)
    again.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "splitpipe-hedge"]
    told = again.statistics()
    assert (told.requests, told.retries, told.hedges, told.hedges_won) == (2, 0, 1, 0)


def test_where_the_first_breaks_the_second_is_waited_for(
    asked: tuple[RetryingStore, Lines, ThreadPoolExecutor],
) -> None:
    again, store, pool = asked
    reading = pool.submit(again.read, "a", 0, 4)
    first = store.begun.get()
    with store.begun.get() as second:
        first.close()
        second.sendall(b"late")
        assert reading.result() == b"late"
    assert again.statistics().retries == 0


def test_a_second_that_breaks_is_no_news_and_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Lines()
    again = RetryingStore(store, RetryPolicy(hedges=1.0))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(again.read, "a", 0, 4)
        with store.begun.get():
            store.begun.get().close()
            with store.begun.get() as third:
                third.sendall(b"last")
                assert reading.result() == b"last"
    again.close()
    told = again.statistics()
    assert (told.requests, told.retries, told.hedges, told.hedges_won) == (3, 0, 2, 1)


def test_where_both_break_the_read_is_made_again(
    asked: tuple[RetryingStore, Lines, ThreadPoolExecutor],
) -> None:
    again, store, pool = asked
    reading = pool.submit(again.read, "a", 0, 4)
    first = store.begun.get()
    store.begun.get().close()
    first.close()
    with store.begun.get() as third:
        third.sendall(b"last")
        assert reading.result() == b"last"
    told = again.statistics()
    assert (told.requests, told.retries, told.hedges, told.hedges_won) == (3, 1, 1, 0)


def test_an_answer_that_is_no_data_is_an_answer() -> None:
    """That the object changed is not waited away by a second request."""
    called: list[Abandoned] = []
    begun = threading.Event()

    def ask() -> bytes:
        here, there = socket.socketpair()
        watch(here)
        with here, there:
            if threading.current_thread().name == "splitpipe-hedge":
                begun.set()
                try:
                    here.recv_into(bytearray(1))
                except Abandoned as error:
                    called.append(error)
                    raise
            here.settimeout(0.001)
            with contextlib.suppress(TimeoutError):
                while not begun.is_set():
                    with contextlib.suppress(TimeoutError):
                        here.recv_into(bytearray(1))
            raise DatasetChanged(116, "another one", "x")

    hedges = Hedges(1.0)
    with pytest.raises(DatasetChanged):
        hedges.read(ask, 100)
    hedges.close()
    assert len(called) == 1


# -- how many


def test_there_are_never_more_than_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hedging_module, "FIRST_S", 0.0)
    monkeypatch.setattr(hedging_module, "KNOWN", 1 << 30)
    lock, first, second = threading.Lock(), 0, 0

    def ask() -> bytes:
        nonlocal first, second
        beside = threading.current_thread().name == "splitpipe-hedge"
        with lock:
            first, second = first + (not beside), second + beside
        here, there = socket.socketpair()
        watch(here)
        with here, there:
            here.settimeout(0.01)
            with contextlib.suppress(TimeoutError, Abandoned):
                here.recv_into(bytearray(1))  # so slow that every one would have a second
        return b"x"

    hedges = Hedges(0.1)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: hedges.read(ask, 1), range(200))) == {b"x"}
    hedges.close()
    assert first == 200
    assert 1 <= second <= 1 + 0.1 * first + 1e-6


def test_of_none_there_is_none() -> None:
    store = Lines()
    again = RetryingStore(store, RetryPolicy(hedges=0.0))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(again.read, "a", 0, 4)
        with store.begun.get() as first:
            with pytest.raises(queue.Empty):
                store.begun.get(timeout=2 * hedging_module.FIRST_S)
            first.sendall(b"only")
            assert reading.result() == b"only"
    again.close()


def test_a_share_is_a_share() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share"):
            RetryPolicy(hedges=share)


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=200))
@settings(max_examples=50)
def test_slow_is_slower_than_three_of_four(took_s: list[float]) -> None:
    usual = hedging_module._Usual()
    for seconds in took_s:
        usual.took(seconds)
    if len(took_s) < KNOWN:
        assert usual.slow_s == hedging_module.FIRST_S
    else:
        seen = took_s[: len(took_s) // 8 * 8][-hedging_module.KEPT :]
        assert sum(seconds <= usual.slow_s for seconds in seen) >= 3 * len(seen) // 4


# -- over networks


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", ["stall", "stall_midway", "trickle"])
def test_what_hangs_is_answered_beside(
    reached: tuple[RetryingStore, FaultProxy], kind: str
) -> None:
    again, proxy = reached
    for place in range(2 * KNOWN):
        again.read("b", place, place + 150_000)
    # Of one object alone: a request for the other that was called away may come to the proxy late.
    fault = HttpFault(kind=kind, target=r"/a\b", times=1)  # type: ignore[arg-type]
    proxy.inject(fault)
    before = again.statistics()
    assert again.read("a", 100, 150_100) == DATA[100:150_100]
    told = again.statistics()
    assert (told.retries, told.failures) == (before.retries, 0)
    assert told.hedges_won - before.hedges_won == 1


def test_many_threads_get_right_bytes_and_leave_nothing(
    reached: tuple[RetryingStore, FaultProxy],
) -> None:
    again, proxy = reached
    tag = again.stat("a").tag
    rng = random.Random(3)
    places = [rng.randrange(len(DATA) - 60_000) for _ in range(200)]
    for place in places[:KNOWN]:
        again.read("a", place, place + 60_000)
    proxy.inject(
        HttpFault(kind="stall_midway", rate=0.1), HttpFault(kind="reset", rate=0.1), seed=1
    )

    def read(place: int) -> bool:
        return again.read("a", place, place + 60_000, tag=tag) == DATA[place : place + 60_000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, places))
    again.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "splitpipe-hedge"]
    told = again.statistics()
    assert told.hedges_won > 0
    assert told.requests == KNOWN + len(places) + told.retries + told.hedges + 1


def test_an_object_that_was_replaced_is_never_taken_for_the_one_that_is_read(
    tmp_path: Path, file_server: FileServer
) -> None:
    file = file_server.folder / "a"
    file.write_bytes(DATA)
    with FaultProxy(file_server.url) as proxy:
        store = HttpStore(proxy.url, timeouts=Timeouts(stall_s=1.0))
        again = RetryingStore(store, RetryPolicy(base_s=0.0, hedges=1.0))
        tag = again.stat("a").tag
        again.read("a", 0, 100_000, tag=tag)
        new = file.with_name("b")
        new.write_bytes(bytes(len(DATA)))
        os.utime(new, (1, 1))
        new.rename(file)
        proxy.inject(HttpFault(kind="stall", times=1))
        with pytest.raises(DatasetChanged):
            again.read("a", 0, 100_000, tag=tag)
        again.close()
        assert again.statistics().hedges_won == 0


def test_writes_and_looks_have_no_second_request(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    options = bucket.server.options_at(s3_proxy.url)
    store = S3Store(bucket.url, options=options, timeouts=Timeouts(stall_s=0.6))
    again = RetryingStore(store, hedged())
    s3_proxy.inject(
        HttpFault(kind="stall", method="PUT", times=1),
        HttpFault(kind="stall", method="HEAD", times=1),
    )
    stat = again.write("a", b"mine", expected="")
    assert again.stat("a") == stat
    again.close()
    told = again.statistics()
    assert (told.retries, told.hedges) == (2, 0)


# -- a child that was forked


def test_a_child_has_second_requests_of_its_own(
    asked: tuple[RetryingStore, Lines, ThreadPoolExecutor],
) -> None:
    again, store, pool = asked
    reading = pool.submit(again.read, "a", 0, 4)
    first, second = store.begun.get(), store.begun.get()
    pid = os.fork()
    if not pid:
        code = 1
        try:  # the second request's thread did not come along
            again._hedges._allowed = 4.0
            store.begun, store.ended = queue.Queue(), queue.Queue()
            with ThreadPoolExecutor(1) as own:
                mine = own.submit(again.read, "a", 0, 4)
                store.begun.get(timeout=120.0)
                store.begun.get(timeout=120.0).sendall(b"mine")
                code = int(mine.result(20.0) != b"mine")
            again.close()
        finally:
            os._exit(code)
    with first, second:
        second.sendall(b"ours")
        assert reading.result() == b"ours"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- waiting


def test_a_time_out_holds_beside_a_watch() -> None:
    here, there = socket.socketpair()
    watch(here)
    alarms = []

    def alarm() -> float:
        alarms.append(time.monotonic())
        return alarms[-1] + 0.01

    beside = Watch(time.monotonic(), alarm)

    def receive() -> int:
        return watching(beside, lambda: here.recv_into(bytearray(1)))

    with here, there:
        here.settimeout(0.1)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            receive()
        assert time.monotonic() - begun >= 0.1
        assert here.gettimeout() == 0.1
        there.sendall(b"x")
        assert receive() == 1
    assert len(alarms) >= 2


def test_who_is_called_away_before_it_waits_does_not_wait() -> None:
    here, there = socket.socketpair()
    watch(here)
    beside = Watch()
    with here, there, contextlib.closing(beside):
        beside.open()
        beside.call_away()
        with pytest.raises(Abandoned):
            watching(beside, lambda: here.recv_into(bytearray(1)))


def test_without_a_watch_a_socket_is_read_as_ever() -> None:
    here, there = socket.socketpair()
    watch(here)
    with here, there:
        here.settimeout(0.01)
        with pytest.raises(TimeoutError):
            here.recv_into(bytearray(1))
        there.sendall(b"abc")
        there.shutdown(socket.SHUT_WR)
        with here.makefile("rb") as file:
            assert file.read() == b"abc"


# -- over TLS


class SecureServer:
    """Serves ranges of `DATA` over TLS; a request for bytes 7 and on is never answered, once."""

    def __init__(self, folder: Path) -> None:
        self.certificate = _certificate(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._socket.getsockname()[1]}"
        self.over = threading.Event()
        self.stalled = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
                self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(peer, server_side=True) as one:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = one.recv(65536)
                    if not data:
                        return
                    head += data
                found = re.search(rb"bytes=(\d+)-(\d+)", head)
                assert found is not None
                start, stop = int(found[1]), int(found[2]) + 1
                told = f"bytes {start}-{stop - 1}/{len(DATA)}"
                length = f"Content-Length: {stop - start}"
                lines = ["HTTP/1.1 206 Part", f"Content-Range: {told}", length, "", ""]
                body = DATA[start:stop]
                if start == 7 and not self.stalled:
                    self.stalled = 1
                    one.sendall("\r\n".join(lines).encode() + body[: len(body) // 2])
                    self.stalled += not select.select([one], [], [], 50.0)[0]
                    return
                one.sendall("\r\n".join(lines).encode() + body)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()


def _certificate(folder: Path) -> Path:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.usefixtures("patient")
def test_what_hangs_behind_tls_is_answered_beside(tmp_path: Path) -> None:
    with contextlib.closing(SecureServer(tmp_path)) as server:
        options = {"ca_certs": str(server.certificate)}
        store: Store = HttpStore(server.url, options=options, timeouts=GENEROUS)
        again = RetryingStore(store, hedged())
        for place in range(8, 8 + KNOWN):
            assert again.read("a", place, place + 60_000) == DATA[place : place + 60_000]
        assert again.read("a", 7, 60_007) == DATA[7:60_007]
        again.close()
        assert again.statistics().hedges_won == 1
    assert server.stalled == 1  # and its connection was closed
