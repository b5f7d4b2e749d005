"""What networks do to requests: never a wrong byte, and what may pass is said to be passing."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest

from splitpipe.errors import RemoteError, StorageError
from splitpipe.stores import RetryingStore, RetryPolicy, Store, Timeouts
from splitpipe.stores.http import HttpStore
from splitpipe.stores.s3 import S3Store
from splitpipe.testing.faults import FaultProxy, HttpFault, chaos
from tests.server_fixtures import Bucket
from tests.servers import FileServer

DATA = random.Random(1).randbytes(3_000_000)
LONG = Timeouts(connect_s=60.0, stall_s=60.0, nbytes_per_s=1.0)
"""As long as a busy machine may take: what is given up is what a fault made of it."""
SHORT = Timeouts(connect_s=60.0, stall_s=0.5, nbytes_per_s=1e6)
"""For servers that say nothing, each of which takes so long. A busy one may be given up too."""
EAGER = RetryPolicy(base_s=0.001, deadline_s=50.0, hedges=0.0)
STUBBORN = RetryPolicy(attempts=200, base_s=0.001, deadline_s=100.0)

Reach = Callable[..., AbstractContextManager[tuple[Store, FaultProxy]]]


@pytest.fixture(params=["http", "s3"])
def reach(request: pytest.FixtureRequest, file_server: FileServer, bucket: Bucket) -> Reach:
    """Gives a store with one object of these bytes, ``a``, behind a proxy."""
    kind = request.param

    @contextmanager
    def reach(data: bytes = DATA, timeouts: Timeouts = LONG) -> Iterator[tuple[Store, FaultProxy]]:
        if kind == "http":
            (file_server.folder / "a").write_bytes(data)
        else:
            bucket.server.put(f"{bucket.name}/a", data)
        with FaultProxy(file_server.url if kind == "http" else bucket.server.url) as proxy:
            store: Store
            if kind == "http":
                store = HttpStore(proxy.url, timeouts=timeouts)
            else:
                options = bucket.server.options_at(proxy.url)
                store = S3Store(bucket.url, options=options, timeouts=timeouts)
            yield store, proxy
            store.close()

    return reach


@pytest.fixture
def reached(reach: Reach, patient: None) -> Iterator[tuple[Store, FaultProxy]]:
    """A patient store with one object, ``a``, behind a proxy."""
    with reach() as both:
        yield both


@pytest.fixture
def hasty(reach: Reach) -> Iterator[tuple[Store, FaultProxy]]:
    """The same, which gives up whoever says nothing."""
    with reach(timeouts=SHORT) as both:
        yield both


FAULTS = {
    "500": HttpFault(kind="status", status=500, times=1),
    "502": HttpFault(kind="status", status=502, times=1),
    "503": HttpFault(kind="status", status=503, times=1),
    "504": HttpFault(kind="status", status=504, times=1),
    "429": HttpFault(kind="status", status=429, retry_after="0", times=1),
    "408": HttpFault(kind="status", status=408, times=1),
    "reset": HttpFault(kind="reset", times=1),
    "reset_midway": HttpFault(kind="reset_midway", times=1),
    "truncate": HttpFault(kind="truncate", times=1),
    "longer": HttpFault(kind="wrong_length", nbytes=7, times=1),
    "shorter": HttpFault(kind="wrong_length", nbytes=-7, times=1),
    "wrong_range": HttpFault(kind="wrong_range", nbytes=3, times=1),
    "ignore_range": HttpFault(kind="ignore_range", times=1),
}
SILENCES = {
    "stall": HttpFault(kind="stall", times=1),
    "stall_midway": HttpFault(kind="stall_midway", times=1),
    "trickle": HttpFault(kind="trickle", nbytes_per_s=100, times=1),
}


def assert_may_pass(store: Store) -> None:
    with pytest.raises(RemoteError) as caught:
        store.read("a", 2_000_000, 2_200_000)
    assert caught.value.transient
    assert caught.value.filename == store.url + "a"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_an_error_that_may_pass(reached: tuple[Store, FaultProxy], name: str) -> None:
    store, proxy = reached
    store.read("a", 0, 1)
    proxy.inject(FAULTS[name])
    assert_may_pass(store)
    assert store.read("a", 2_000_000, 2_200_000) == DATA[2_000_000:2_200_000]


@pytest.mark.parametrize("name", SILENCES)
def test_silence_is_an_error_that_may_pass(hasty: tuple[Store, FaultProxy], name: str) -> None:
    store, proxy = hasty
    proxy.inject(SILENCES[name])
    assert_may_pass(store)
    again = RetryingStore(store, STUBBORN)  # of which the first answer may be late, too
    assert again.read("a", 2_000_000, 2_200_000) == DATA[2_000_000:2_200_000]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_asked_again(reached: tuple[Store, FaultProxy], name: str) -> None:
    store, proxy = reached
    again = RetryingStore(store, EAGER)
    proxy.inject(FAULTS[name])
    assert again.read("a", 2_000_000, 2_200_000) == DATA[2_000_000:2_200_000]
    told = again.statistics()
    assert (told.requests, told.retries, told.failures) == (2, 1, 0)
    assert told.nbytes_read == 200_000


@pytest.mark.parametrize("name", SILENCES)
def test_after_silence_it_is_asked_again(hasty: tuple[Store, FaultProxy], name: str) -> None:
    store, proxy = hasty
    again = RetryingStore(store, STUBBORN)
    proxy.inject(SILENCES[name])
    assert again.read("a", 2_000_000, 2_200_000) == DATA[2_000_000:2_200_000]
    assert again.read("a") == DATA
    told = again.statistics()
    assert told.requests == 2 + told.retries + told.hedges
    assert told.retries + told.hedges >= 1
    assert told.failures == 0
    assert told.nbytes_read == 200_000 + len(DATA)
    assert proxy.statistics().faults == {SILENCES[name].kind: 1}


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"ignore_range"}))
def test_a_whole_object_survives_faults_too(reached: tuple[Store, FaultProxy], name: str) -> None:
    store, proxy = reached
    again = RetryingStore(store, EAGER)
    proxy.inject(FAULTS[name])
    assert again.read("a") == DATA
    assert again.statistics().retries == 1


@pytest.mark.parametrize("name", SILENCES)
def test_a_whole_object_survives_silence(hasty: tuple[Store, FaultProxy], name: str) -> None:
    store, proxy = hasty
    again = RetryingStore(store, STUBBORN)
    proxy.inject(SILENCES[name])
    assert again.read("a") == DATA
    assert again.statistics().retries >= 1


def test_a_look_is_asked_again(reached: tuple[Store, FaultProxy]) -> None:
    store, proxy = reached
    again = RetryingStore(store, EAGER)
    for kind in ("status", "reset"):
        proxy.inject(HttpFault(kind=kind, times=1))  # type: ignore[arg-type]
        assert again.stat("a").size == len(DATA)
    assert again.statistics().retries == 2


def test_a_look_that_nobody_answers_is_asked_again(hasty: tuple[Store, FaultProxy]) -> None:
    store, proxy = hasty
    again = RetryingStore(store, STUBBORN)
    proxy.inject(HttpFault(kind="stall", times=1))
    assert again.stat("a").size == len(DATA)
    assert again.statistics().retries >= 1


def test_the_whole_object_in_place_of_its_beginning_is_made_use_of(reach: Reach) -> None:
    data = DATA + bytes(50_000_000)  # more than the kernel keeps of what nobody has read
    with reach(data) as (store, proxy):
        proxy.inject(HttpFault(kind="ignore_range"))
        assert store.read("a", 100, 300_000) == data[100:300_000]
        told = proxy.statistics()
    assert told.requests["GET ranged"] == 1
    assert told.nbytes_down < len(data)


def test_without_an_end_an_error_says_so(reached: tuple[Store, FaultProxy]) -> None:
    store, proxy = reached
    again = RetryingStore(store, RetryPolicy(attempts=3, base_s=0.0))
    proxy.inject(HttpFault(kind="status", status=503, body="busy"))
    with pytest.raises(RemoteError, match=r"503.*given up after 3 attempts in \d") as caught:
        again.read("a", 0, 10)
    assert proxy.statistics().faults == {"status": 3}
    assert caught.value.transient
    assert store.url in str(caught.value)


def test_what_is_an_answer_is_not_asked_again(reached: tuple[Store, FaultProxy]) -> None:
    store, proxy = reached
    again = RetryingStore(store, EAGER)
    for status, code in ((404, errno.ENOENT), (410, errno.ENOENT), (403, errno.EACCES)):
        proxy.forget()
        proxy.inject(HttpFault(kind="status", status=status))
        with pytest.raises(StorageError) as caught:
            again.read("a", 0, 10)
        assert caught.value.errno == code
    proxy.inject()
    with pytest.raises(StorageError):
        again.read("a", 0, len(DATA) + 1)
    with pytest.raises(StorageError):
        again.stat("none")
    assert again.statistics().retries == 0


def test_retry_after_is_obeyed_within_bounds(reached: tuple[Store, FaultProxy]) -> None:
    store, proxy = reached
    slept: list[float] = []
    again = RetryingStore(store, EAGER, sleep=slept.append)
    proxy.inject(HttpFault(kind="status", status=429, retry_after="3", times=1))
    again.read("a", 0, 10)
    assert 3.0 <= slept[0] < 3.1
    proxy.inject(HttpFault(kind="status", status=503, retry_after="3600", times=1))
    with pytest.raises(RemoteError) as caught:
        again.read("a", 0, 10)
    assert caught.value.retry_after_s == 3600
    assert len(slept) == 1


def test_what_is_usual_is_learned(reach: Reach) -> None:
    """Once many responses came in milliseconds, one that hangs is not waited for long."""
    with reach(timeouts=Timeouts(stall_s=1000.0)) as (store, proxy):
        again = RetryingStore(store, EAGER)
        for i in range(40):
            again.read("a", i, i + 10)
        proxy.inject(HttpFault(kind="stall", times=1), HttpFault(kind="stall_midway", times=1))
        assert again.read("a", 0, 100_000) == DATA[:100_000]  # else the test's deadline ends it


@pytest.mark.deadline(150)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_with_a_third_of_all_requests_faulty_every_byte_is_right(
    hasty: tuple[Store, FaultProxy], seed: int
) -> None:
    store, proxy = hasty
    again = RetryingStore(store, STUBBORN)
    tag = again.stat("a").tag
    proxy.inject(*chaos(0.3), HttpFault(kind="wrong_range", rate=0.03), seed=seed)
    rng = random.Random(seed)
    places = [(start, start + rng.randrange(1, 60_000)) for start in
              (rng.randrange(len(DATA) - 60_000) for _ in range(150))]  # fmt: skip

    def read(place: tuple[int, int]) -> bool:
        return again.read("a", *place, tag=tag) == DATA[place[0] : place[1]]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, places))
    told, seen = again.statistics(), proxy.statistics()
    assert told.failures == 0
    assert told.requests == 1 + len(places) + told.retries + told.hedges
    assert sum(seen.faults.values()) >= 30


def test_bits_that_flip_on_the_way_are_not_seen_here(reached: tuple[Store, FaultProxy]) -> None:
    """TCP and TLS see them; what lies above has checksums of its own. This is where it ends."""
    store, proxy = reached
    proxy.inject(HttpFault(kind="corrupt", times=1))
    assert store.read("a", 0, 1000) != DATA[:1000]


def test_writes_survive_faults_and_happen_once(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    options = bucket.server.options_at(s3_proxy.url)
    store = S3Store(bucket.url, options=options, timeouts=SHORT)
    again = RetryingStore(store, STUBBORN)
    s3_proxy.inject(*chaos(0.3), seed=3)
    try:
        for i in range(15):
            data = os.urandom(1000)
            stat = again.write(f"k{i}", data, expected="")
            s3_proxy.inject()
            assert again.stat(f"k{i}") == stat
            assert again.read(f"k{i}", tag=stat.tag) == data
            s3_proxy.inject(*chaos(0.3), seed=i)
        assert again.statistics().retries > 0
    finally:
        store.close()


@pytest.mark.usefixtures("patient")
def test_a_write_whose_answer_was_lost_is_found_to_be_ours(
    bucket: Bucket, s3_proxy: FaultProxy
) -> None:
    options = bucket.server.options_at(s3_proxy.url)
    store = S3Store(bucket.url, options=options, timeouts=LONG)
    again = RetryingStore(store, EAGER)
    try:
        # The server does it; what it says of it never arrives: a PUT's answer has no body.
        s3_proxy.inject(HttpFault(kind="truncate", method="PUT", times=1))
        stat = again.write("a", b"mine", expected="")
        assert stat == store.stat("a")
        assert again.statistics().retries == 1
        s3_proxy.inject(HttpFault(kind="truncate", method="PUT", times=1))
        second = again.write("a", b"newer", expected=stat.tag)
        assert store.read("a", tag=second.tag) == b"newer"
    finally:
        store.close()


@pytest.mark.usefixtures("patient")
def test_a_write_without_a_condition_whose_answer_was_lost_is_not_repeated(
    bucket: Bucket, s3_proxy: FaultProxy
) -> None:
    options = bucket.server.options_at(s3_proxy.url)
    store = S3Store(bucket.url, options=options, timeouts=LONG)
    again = RetryingStore(store, EAGER)
    try:
        s3_proxy.inject(HttpFault(kind="truncate", method="PUT", times=1))
        with pytest.raises(RemoteError, match="whether it was written is not known") as caught:
            again.write("a", b"mine")
        assert caught.value.maybe_done
        s3_proxy.inject(HttpFault(kind="status", status=503, times=1))
        again.write("a", b"mine")  # 503 says that nothing was done
        assert again.statistics().retries == 1
    finally:
        store.close()
