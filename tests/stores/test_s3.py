"""What S3 has beyond HTTP: buckets, listings, conditions, uploads in parts, credentials."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from splitpipe.errors import DatasetChanged, RemoteError, StorageError
from splitpipe.stores import ABSENT, RetryingStore, RetryPolicy, Timeouts, open_store
from splitpipe.stores.s3 import S3Store
from splitpipe.testing.faults import FaultProxy, HttpFault
from tests.server_fixtures import Bucket

PART = 5 << 20  # S3 takes no smaller ones but the last


@pytest.fixture
def store(bucket: Bucket) -> Iterator[S3Store]:
    store = S3Store(bucket.url, options=bucket.options, part_nbytes=PART)
    yield store
    store.close()


@pytest.fixture
def behind(bucket: Bucket, s3_proxy: FaultProxy) -> Iterator[S3Store]:
    """The same bucket behind a proxy."""
    options = bucket.server.options_at(s3_proxy.url)
    store = S3Store(bucket.url, options=options, part_nbytes=PART, timeouts=Timeouts(stall_s=5))
    yield store
    store.close()


def refusal(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>"


# -- where it is


def test_a_missing_bucket_is_told_from_a_missing_key(bucket: Bucket, store: S3Store) -> None:
    other = S3Store("s3://no-such-bucket-here", options=bucket.options)
    for ask in (
        lambda: other.read("a"),
        lambda: list(other.list()),
        lambda: other.write("a", b"x"),
        lambda: other.write("a", b"x", expected=ABSENT),
    ):
        with pytest.raises(StorageError, match="no such bucket") as caught:
            ask()
        assert caught.value.errno == errno.ENOENT
        assert "s3://no-such-bucket-here" in str(caught.value)
    other.close()
    with pytest.raises(StorageError, match="no such object"):
        store.read("a")


def test_a_bucket_in_another_region_names_it(behind: S3Store, s3_proxy: FaultProxy) -> None:
    s3_proxy.inject(HttpFault(kind="status", status=301, body=refusal("PermanentRedirect")))
    for ask in (lambda: behind.read("a"), lambda: list(behind.list())):
        with pytest.raises(RemoteError) as caught:
            ask()
        assert not caught.value.transient


def test_a_server_that_is_not_there_says_so() -> None:
    store = S3Store("s3://bucket", options={"endpoint_url": "http://127.0.0.1:9", "anon": True})
    for ask in (lambda: store.read("a"), lambda: store.stat("a"), lambda: list(store.list())):
        with pytest.raises(RemoteError, match="no connection") as caught:
            ask()
        assert caught.value.transient
        assert not caught.value.maybe_done
    store.close()


# -- who may


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
        (403, "RequestExpired"),
        (401, "Unauthorized"),
        (403, "RequestTimeTooSkewed"),
    ],
)
def test_what_may_not_be_is_said_with_its_reason(
    behind: S3Store, s3_proxy: FaultProxy, status: int, code: str
) -> None:
    s3_proxy.inject(HttpFault(kind="status", status=status, body=refusal(code)))
    again = RetryingStore(behind, RetryPolicy(base_s=0.0))
    for ask in (
        lambda: again.read("a"),
        lambda: again.stat("a"),
        lambda: list(again.list()),
        lambda: again.write("a", b"x"),
    ):
        with pytest.raises(StorageError, match=code) as caught:
            ask()
        assert caught.value.errno == errno.EACCES
        assert "storage_options" in str(caught.value)
        if "Expired" in code:
            assert "no longer valid" in str(caught.value)
        assert ("clock" in str(caught.value)) == ("Time" in code)
    assert again.statistics().retries == 0


def test_without_credentials_an_error_names_the_ways(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    store = S3Store(bucket.url, options={"endpoint_url": bucket.server.url})
    with pytest.raises(StorageError, match=r"no credentials: give storage_options.*anon") as caught:
        store.read("a")
    assert caught.value.errno == errno.EACCES
    store.close()


def test_credentials_may_come_from_the_environment(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server.url)
    store = open_store(bucket.url)
    store.write("a", b"hello")
    assert store.read("a", 1, 3) == b"el"
    store.close()


def test_public_data_needs_none(bucket: Bucket) -> None:
    bucket.server.put(f"{bucket.name}/a", b"hello")
    options = {"endpoint_url": bucket.server.url, "anon": True}
    with FaultProxy(bucket.server.url) as proxy:
        store = S3Store(bucket.url, options={**options, "endpoint_url": proxy.url})
        # moto refuses who does not say who he is; that nothing is signed is what counts.
        with pytest.raises(StorageError):
            store.read("a")
        store.close()
        assert "Signature" not in proxy.log()[0].target
        assert not proxy.log()[0].authorized


def test_a_signed_url_that_ended_early_is_signed_anew(
    behind: S3Store, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind.write("a", b"hello")
    behind.read("a")
    now = [0.0]
    real = __import__("time").monotonic
    monkeypatch.setattr("splitpipe.stores.s3_session.time.monotonic", lambda: real() + now[0])
    now[0] = 100.0
    s3_proxy.inject(HttpFault(kind="status", status=403, body=refusal("ExpiredToken"), times=1))
    assert behind.read("a") == b"hello"
    s3_proxy.inject(HttpFault(kind="status", status=403, body=refusal("ExpiredToken"), times=2))
    with pytest.raises(StorageError, match="no longer valid"):
        behind.read("a")


def test_urls_are_signed_once_for_many_reads(behind: S3Store, s3_proxy: FaultProxy) -> None:
    behind.write("a", b"hello")
    s3_proxy.forget()
    for i in range(5):
        behind.read("a", i, i + 1)
    assert len({seen.target for seen in s3_proxy.log()}) == 1


@pytest.mark.parametrize("options", [{"tokn": "x"}, {"key": "k", "region": "x"}])
def test_an_option_that_is_not_known_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="are not known for s3") as caught:
        S3Store("s3://bucket", options=options)
    assert caught.value.errno == errno.EINVAL


def test_an_option_that_botocore_does_not_know_is_refused(bucket: Bucket) -> None:
    options = {**bucket.options, "config_kwargs": {"no_such": 1}}
    store = S3Store(bucket.url, options=options)
    with pytest.raises(StorageError, match="cannot be asked for") as caught:
        store.read("a")
    assert caught.value.errno == errno.EINVAL


# -- listings


@pytest.mark.long
def test_a_long_listing_takes_a_request_a_thousand(behind: S3Store, s3_proxy: FaultProxy) -> None:
    keys = [f"part/{number:05}" for number in range(2100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: behind.write(key, b"x"), keys))
    s3_proxy.forget()
    found = [key for key, _ in behind.list()]
    assert found == keys
    assert s3_proxy.statistics().requests["GET"] == 3


def test_what_marks_a_folder_is_no_object(bucket: Bucket, store: S3Store) -> None:
    bucket.server.put(f"{bucket.name}/folder/", b"")
    store.write("folder/a", b"x")
    assert [key for key, _ in store.list()] == ["folder/a"]


def test_a_prefix_is_no_part_of_keys(bucket: Bucket, store: S3Store) -> None:
    store.write("one/two/a", b"x")
    store.write("one/two-b", b"x")
    inner = S3Store(bucket.url + "/one/two", options=bucket.options)
    assert [key for key, _ in inner.list()] == ["a"]
    assert inner.read("a") == b"x"
    inner.close()


# -- writes


@pytest.mark.parametrize("size", [PART + 1, 3 * PART])
def test_what_is_large_is_uploaded_in_parts(
    behind: S3Store, s3_proxy: FaultProxy, size: int
) -> None:
    data = os.urandom(size)
    stat = behind.write("a", data, expected=ABSENT)
    assert re.search(r'-\d+"$', stat.tag or "")
    assert behind.stat("a") == stat
    assert behind.read("a", tag=stat.tag) == data
    assert s3_proxy.statistics().requests["PUT"] == -(-size // PART)
    with pytest.raises(DatasetChanged):
        behind.write("a", data, expected=ABSENT)
    assert behind.write("a", data[::-1], expected=stat.tag).size == size


def test_an_upload_that_fails_is_taken_back(
    bucket: Bucket, behind: S3Store, s3_proxy: FaultProxy
) -> None:
    s3_proxy.inject(HttpFault(kind="status", status=403, method="PUT", after=1))
    with pytest.raises(StorageError):
        behind.write("a", os.urandom(3 * PART))
    with pytest.raises(StorageError):
        behind.stat("a")
    left = bucket.server.call("GET", f"/{bucket.name}?uploads")
    assert b"<UploadId>" not in left


def test_parts_are_asked_again(behind: S3Store, s3_proxy: FaultProxy) -> None:
    data = os.urandom(3 * PART)
    again = RetryingStore(behind, RetryPolicy(base_s=0.001))
    s3_proxy.inject(HttpFault(kind="status", status=503, method="PUT", after=1, times=1))
    again.write("a", data, expected=ABSENT)
    assert behind.read("a") == data


def test_a_lost_answer_of_an_upload_is_found_to_be_ours(
    behind: S3Store, s3_proxy: FaultProxy
) -> None:
    data = os.urandom(PART + 1)
    again = RetryingStore(behind, RetryPolicy(base_s=0.001))
    s3_proxy.inject(HttpFault(kind="truncate", method="POST", after=1, times=1))
    stat = again.write("a", data, expected=ABSENT)
    assert stat == behind.stat("a")


def test_a_store_without_conditions_says_so(behind: S3Store, s3_proxy: FaultProxy) -> None:
    s3_proxy.inject(
        HttpFault(kind="status", status=501, method="PUT", body=refusal("NotImplemented"))
    )
    with pytest.raises(StorageError) as caught:
        behind.write("a", b"x", expected=ABSENT)
    assert caught.value.errno == errno.ENOTSUP


def test_two_writers_at_the_same_moment_are_told(behind: S3Store, s3_proxy: FaultProxy) -> None:
    body = refusal("ConditionalRequestConflict")
    s3_proxy.inject(HttpFault(kind="status", status=409, method="PUT", body=body, times=1))
    again = RetryingStore(behind, RetryPolicy(base_s=0.0))
    assert again.write("a", b"x", expected=ABSENT).size == 1
    assert again.statistics().retries == 1
