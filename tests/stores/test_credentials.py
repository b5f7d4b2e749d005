"""Credentials are used, and nothing that is shown or stored holds them."""

from __future__ import annotations

import copy
import errno
import logging
import multiprocessing
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from splitpipe.errors import StorageError
from splitpipe.stores import RetryPolicy, Store, open_store, split_url, told_url, travelling
from splitpipe.stores.sealed import Sealed, hidden
from splitpipe.testing.faults import FaultProxy, HttpFault, run_in_child
from tests.server_fixtures import Bucket
from tests.servers import FileServer

SECRETS = ("hunter2", "hunter3", "hunter4")


@pytest.fixture(params=["http", "s3", "memory"])
def store(
    request: pytest.FixtureRequest, file_server: FileServer, bucket: Bucket
) -> Iterator[Store]:
    """A store that was given secrets in every way it knows; with an object ``a``."""
    if request.param == "http":
        (file_server.folder / "a").write_bytes(b"hello")
        url = file_server.url.replace("://", "://me:hunter2@") + "?sig=hunter3"
        store = open_store(url, storage_options={"headers": {"X-Token": "hunter4"}})
    elif request.param == "s3":
        bucket.server.put(f"{bucket.name}/a", b"hello")
        options = {**bucket.options, "key": "hunter2", "secret": "hunter3", "token": "hunter4"}
        store = open_store(bucket.url, storage_options=options)
    else:
        store = open_store("memory://sealed", storage_options={"unused": "hunter2"})
        store.write("a", b"hello")
    yield store
    store.close()


def hold(text: str | bytes) -> bool:
    data = text.encode() if isinstance(text, str) else text
    return any(secret.encode() in data for secret in SECRETS)


def told(error: BaseException | None) -> str:
    """What a traceback tells of an error and of what lies behind it."""
    if error is None:
        return ""
    behind = error.__cause__ if error.__suppress_context__ else error.__context__
    return "".join(traceback.format_exception_only(error)) + told(behind)


def test_no_repr_or_url_holds_them(store: Store) -> None:
    store.read("a")
    inner = store.store
    for text in (repr(store), str(store), store.url, repr(inner), repr(vars(inner).get("_sealed"))):
        assert not hold(text)


def test_no_pickle_holds_them(store: Store) -> None:
    store.read("a")
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert not hold(dumps(store))
        assert not hold(dumps({"deep": [store]}))


def test_no_error_or_log_holds_them(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "splitpipe")
    asked: list[Callable[[], object]] = [
        lambda: store.read("none"),
        lambda: store.stat("none"),
        lambda: store.read("a", 0, 99),
        lambda: store.read("a", tag="another"),
    ]
    if store.url.startswith("http"):
        asked.append(lambda: store.read("a?sig=hunter2", 0, 99))
    for ask in asked:
        with pytest.raises(StorageError) as caught:
            ask()
        assert not hold(told(caught.value))
        assert not hold(pickle.dumps(caught.value))
    assert not hold(caplog.text)


def test_lost_connections_hold_none(file_server: FileServer, bucket: Bucket) -> None:
    (file_server.folder / "a").write_bytes(b"hello")
    never = RetryPolicy(attempts=2, base_s=0.0)
    for server in (file_server.url, bucket.server.url):
        with FaultProxy(server) as proxy:
            if server == file_server.url:
                url = proxy.url.replace("://", "://me:hunter2@") + "?sig=hunter3"
                store = open_store(url, retry=never)
            else:
                options = {"endpoint_url": proxy.url, "key": "hunter2", "secret": "hunter3"}
                store = open_store(bucket.url, storage_options=options, retry=never)
            for fault in (
                HttpFault(kind="reset"),
                HttpFault(kind="truncate"),
                HttpFault(kind="status", status=503, body="hunter2?"),
                HttpFault(kind="redirect", status=302, location="http://x/?sig=hunter4"),
            ):
                proxy.inject(fault)
                with pytest.raises(StorageError) as caught:
                    store.read("a")
                assert not hold(told(caught.value))
            store.close()


def test_a_copy_in_the_same_process_has_them(store: Store) -> None:
    for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
        assert other.read("a") == b"hello"
        other.close()


def test_a_forked_child_has_them(store: Store) -> None:
    data = pickle.dumps(store)

    def child() -> None:
        for other in (store, pickle.loads(data)):
            assert other.read("a") == b"hello"

    assert run_in_child(child) == 0


def _read(data: bytes, answers: Any) -> None:
    try:
        answers.send(pickle.loads(data).read("a"))
    except StorageError as error:
        answers.send(error)


@pytest.mark.parametrize("travels", [True, False])
def test_another_process_has_them_if_they_travelled(bucket: Bucket, travels: bool) -> None:
    bucket.server.put(f"{bucket.name}/a", b"hello")
    store = open_store(bucket.url, storage_options=bucket.options)
    if travels:
        with travelling():
            data = pickle.dumps(store)
    else:
        data = pickle.dumps(store)
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_read, args=(data, send))
    child.start()
    send.close()
    answer = receive.recv()
    child.join()
    child.close()
    receive.close()
    if travels:
        assert answer == b"hello"
    else:
        assert isinstance(answer, StorageError)
        assert answer.errno == errno.EACCES
        assert "storage_options" in str(answer)


def test_without_options_nothing_has_to_travel() -> None:
    sealed = pickle.loads(pickle.dumps(Sealed({})))
    assert sealed.open() == {}


def test_travelling_ends(store: Store) -> None:
    with travelling():
        pass
    with pytest.raises(ZeroDivisionError), travelling():
        raise ZeroDivisionError
    assert not hold(pickle.dumps(store))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:pw@host:8/a?sig=1#x", "https://host:8/a"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("https://host/a b/ü?X-Amz-Signature=1", "https://host/a b/ü"),
        ("https://host/a", "https://host/a"),
        ("a/b?sig=1", "a/b"),
        ("what?/a", "what?/a"),
        ("/plain/path", "/plain/path"),
    ],
)
def test_a_url_is_told_without_what_is_secret(url: str, told: str) -> None:
    assert told_url(url) == told


def test_texts_of_others_are_told_without_what_is_secret() -> None:
    text = "HTTPSConnectionPool(host='h', port=443): Max retries with url: /a?X-Amz-Signature=x (c)"
    assert "Signature" not in hidden(text)
    assert hidden("see https://docs.example.org/errors for more") == (
        "see https://docs.example.org/errors for more"
    )


def test_a_url_is_split_where_the_store_begins() -> None:
    assert split_url("s3://bucket") == ("s3://bucket/", "")
    assert split_url("file:///data/a%20b") == ("file:///", "data/a b")
