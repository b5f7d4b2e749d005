"""What servers say, and what is made of it."""

from __future__ import annotations

import base64
import errno
import logging
import os
import socket
import threading
from pathlib import Path

import pytest

from splitpipe.errors import DatasetChanged, RemoteError, StorageError
from splitpipe.stores import Timeouts
from splitpipe.stores.http import HttpStore
from splitpipe.testing.faults import FaultProxy, HttpFault, run_in_child
from tests.servers import FileServer
from tests.stores.scripted import ScriptedServer, answer

DATA = bytes(range(250)) * 8


def part(start: int, stop: int, *headers: str, size: int | str = len(DATA)) -> bytes:
    told = f"Content-Range: bytes {start}-{stop - 1}/{size}"
    return answer(206, DATA[start:stop], told, *headers)


def read(
    *answers: bytes, start: int = 10, stop: int | None = 20, tag: str | None = None
) -> tuple[bytes, list[str]]:
    """What a read gives where a server answers so, and what it was asked."""
    with ScriptedServer(*answers) as server:
        store = HttpStore(server.url, timeouts=Timeouts(stall_s=30.0))
        try:
            return store.read("a", start, stop, tag=tag), server.requests
        finally:
            store.close()


# -- ranges


def test_a_range_is_asked_for_by_its_last_byte() -> None:
    data, requests = read(part(10, 20))
    assert data == DATA[10:20]
    assert "Range: bytes=10-19\r\n" in requests[0]
    assert "Accept-Encoding: identity\r\n" in requests[0]


def test_the_size_of_the_whole_need_not_be_known() -> None:
    assert read(part(10, 20, size="*"))[0] == DATA[10:20]


@pytest.mark.parametrize(
    "wrong",
    [
        part(11, 21),
        part(10, 21),
        part(10, 19),
        part(9, 20),
        answer(206, DATA[10:20]),
        answer(206, DATA[10:20], "Content-Range: bytes ten-19/2000"),
        answer(206, DATA[10:20], "Content-Range: bytes 10-19/15"),
        answer(206, DATA[10:21], f"Content-Range: bytes 10-19/{len(DATA)}"),
        answer(206, DATA[10:19], f"Content-Range: bytes 10-19/{len(DATA)}"),
        answer(206, DATA[10:20], "Content-Type: multipart/byteranges; boundary=x"),
        answer(206, DATA[10:19], f"Content-Range: bytes 10-19/{len(DATA)}", length=False),
        answer(206, DATA[10:21], f"Content-Range: bytes 10-19/{len(DATA)}", length=False),
    ],
)
def test_an_answer_that_does_not_fit_is_never_given_out(wrong: bytes) -> None:
    with pytest.raises(RemoteError, match=r"contradicts itself|ended") as caught:
        read(wrong)
    assert caught.value.transient


def test_a_shorter_object_is_no_passing_trouble() -> None:
    with pytest.raises(StorageError, match="has 2000") as caught:
        read(part(1990, 2000), start=1990, stop=2010)
    assert caught.value.errno == errno.ERANGE
    with pytest.raises(StorageError) as caught:
        read(answer(416, b"", "Content-Range: bytes */5"))
    assert caught.value.errno == errno.ERANGE
    assert not isinstance(caught.value, RemoteError)


def test_all_from_a_byte_on_has_to_reach_the_end() -> None:
    assert read(part(10, 2000), stop=None)[0] == DATA[10:]
    with pytest.raises(RemoteError, match="contradicts"):
        read(part(10, 1999), stop=None)


def test_the_whole_in_place_of_a_part_is_cut_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ScriptedServer(answer(200, DATA)) as server:
        store = HttpStore(server.url)
        with caplog.at_level(logging.WARNING, "splitpipe"):
            for _ in range(3):
                assert store.read("a", 10, 20) == DATA[10:20]
        store.close()
    assert len(caplog.records) == 1
    assert "whole objects" in caplog.text


def test_the_whole_in_place_of_a_part_far_behind_is_an_error() -> None:
    big = answer(200, bytes(3_000_000))
    with pytest.raises(RemoteError, match="whole object where a range"):
        read(big, start=2_500_000, stop=2_500_010)


def test_the_whole_needs_a_length_or_chunks() -> None:
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    head = answer(200, b"", "Transfer-Encoding: chunked", length=False)
    assert read(head + chunks, start=0, stop=None)[0] == b"hello"
    with pytest.raises(RemoteError, match=r"lost|ended"):
        read(head + b"5\r\nhel", start=0, stop=None)
    with pytest.raises(RemoteError, match="how large"):
        read(answer(200, b"hello", length=False), start=0, stop=None)


def test_the_whole_is_asked_for_as_a_range_too() -> None:
    """Else nothing would tell of a Content-Length that is too small."""
    data, requests = read(part(0, 2000), start=0, stop=None)
    assert data == DATA
    assert "Range: bytes=0-\r\n" in requests[0]
    with pytest.raises(RemoteError, match="contradicts"):
        read(answer(206, DATA[:1993], "Content-Range: bytes 0-1999/2000"), start=0, stop=None)
    with pytest.raises(RemoteError, match="contradicts"):
        read(part(0, 1993), start=0, stop=None)
    assert read(answer(200, DATA), start=0, stop=None)[0] == DATA  # knows no ranges
    assert read(answer(416, b"", "Content-Range: bytes */0"), start=0, stop=None)[0] == b""
    with pytest.raises(RemoteError, match="contradicts"):
        read(answer(416, b"", "Content-Range: bytes */5"), start=0, stop=None)


def test_what_is_compressed_on_the_way_is_refused() -> None:
    with pytest.raises(RemoteError, match="compresses"):
        read(part(10, 20, "Content-Encoding: gzip"))


def test_what_is_no_http_is_an_error() -> None:
    for noise in (b"SSH-2.0-x\r\n\r\n", b"\0" * 50, b"HTTP/1.1 abc\r\n\r\n"):
        with pytest.raises(RemoteError):
            read(noise)


# -- versions


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"'])
def test_a_version_is_compared_on_every_answer(tag: str) -> None:
    data, requests = read(part(10, 20, f"ETag: {tag}"), tag=tag)
    assert data == DATA[10:20]
    assert ("If-Match" in requests[0]) == (tag == '"v1"')  # a weak one never matches there
    with pytest.raises(DatasetChanged):
        read(part(10, 20, 'ETag: "v2"'), tag=tag)
    with pytest.raises(DatasetChanged):
        read(answer(412), tag=tag)
    with pytest.raises(DatasetChanged):
        read(answer(416, b"", "Content-Range: bytes */5", 'ETag: "v2"'), tag=tag)


def test_without_a_tag_the_time_of_change_is_the_version() -> None:
    time = "Last-Modified: Mon, 01 Jan 2001 00:00:00 GMT"
    with ScriptedServer(answer(200, b"", time, "Content-Length: 2000", length=False)) as server:
        store = HttpStore(server.url)
        stat = store.stat("a")
        store.close()
    assert stat.size == 2000
    assert stat.tag
    assert read(part(10, 20, time), tag=stat.tag)[0] == DATA[10:20]
    with pytest.raises(DatasetChanged):
        read(part(10, 20, time.replace("2001", "2002")), tag=stat.tag)
    with pytest.raises(DatasetChanged):
        read(part(10, 20, time, size=2001), tag=stat.tag)


def test_a_server_that_tells_no_versions_has_none() -> None:
    with ScriptedServer(answer(200, b"", "Content-Length: 2000", length=False)) as server:
        store = HttpStore(server.url)
        assert store.stat("a").tag is None
        store.close()


@pytest.mark.parametrize("status", [403, 405, 501])
def test_where_head_is_refused_the_first_byte_tells_the_size(status: int) -> None:
    refusal = answer(status, b"", "Connection: close")
    with ScriptedServer(refusal, part(0, 1, 'ETag: "v1"')) as server:
        store = HttpStore(server.url)
        stat = store.stat("a")
        store.close()
        assert (stat.size, stat.tag) == (2000, '"v1"')
        assert server.requests[1].startswith("GET /a ")


# -- redirects


def test_a_redirect_within_an_origin_is_followed(file_server: FileServer) -> None:
    (file_server.folder / "b").write_bytes(DATA)
    with FaultProxy(file_server.url) as proxy:
        proxy.inject(HttpFault(kind="redirect", status=302, location="/b?x=1", target="/a"))
        store = HttpStore(proxy.url)
        assert store.read("a", 10, 20) == DATA[10:20]
        assert store.stat("a").size == len(DATA)
        store.close()


def test_a_redirect_to_another_origin_is_refused(file_server: FileServer) -> None:
    (file_server.folder / "a").write_bytes(DATA)
    elsewhere = file_server.url + "/a?X-Amz-Signature=hunter2"
    with FaultProxy(file_server.url) as proxy:
        proxy.inject(HttpFault(kind="redirect", status=307, location=elsewhere))
        store = HttpStore(proxy.url)
        for ask in (lambda: store.read("a", 10, 20), lambda: store.stat("a")):
            with pytest.raises(RemoteError, match="another origin is not followed") as caught:
                ask()
            assert file_server.url in str(caught.value)
            assert "allow_redirects_to" in str(caught.value)
            assert "hunter2" not in str(caught.value)
            assert not caught.value.transient
        store.close()


@pytest.mark.parametrize("anywhere", [True, False])
def test_an_allowed_origin_gets_no_credentials(anywhere: bool) -> None:
    with (
        ScriptedServer(part(10, 20)) as other,
        ScriptedServer(answer(302, b"", f"Location: {other.url}/x")) as first,
    ):
        options = {
            "headers": {"Authorization": "Bearer hunter2", "Cookie": "hunter3"},
            "allow_redirects_to": "*" if anywhere else [other.url + "/"],
        }
        store = HttpStore(first.url.replace("://", "://me:pw@"), options=options)
        assert store.read("a", 10, 20) == DATA[10:20]
        store.close()
        assert "hunter2" in first.requests[0]
        assert "hunter" not in other.requests[0]
        assert "Authorization" not in other.requests[0]
        assert "Range: bytes=10-19" in other.requests[0]


def test_redirects_without_end_are_an_error() -> None:
    with pytest.raises(RemoteError, match="redirects"):
        read(answer(302, b"", "Location: /a"))


def test_a_redirect_to_nowhere_is_an_error() -> None:
    for location in ("file:///etc/passwd", "ftp://x/a", "//", ""):
        with pytest.raises(RemoteError, match="redirect"):
            read(answer(302, b"", f"Location: {location}"))


# -- urls and credentials


def test_a_key_is_sent_as_it_stands() -> None:
    asked = {
        "a%20b.jpg": "/base/a%20b.jpg",
        "a b": "/base/a%20b",
        "ü": "/base/%C3%BC",
        "a?x=%2F&y=http://z/": "/base/a?x=%2F&y=http://z/",
        "a+b&c=d": "/base/a+b&c=d",
    }
    with ScriptedServer(part(10, 20)) as server:
        store = HttpStore(server.url + "/base")
        for key in asked:
            store.read(key, 10, 20)
        store.close()
        assert [line.split(" ")[1] for line in server.requests] == list(asked.values())


def test_user_password_and_query_are_sent_and_not_shown() -> None:
    with ScriptedServer(part(10, 20), answer(500)) as server:
        url = server.url.replace("://", "://me:p%40w@") + "/base?sig=hunter2"
        store = HttpStore(url, options={"headers": {"X-Key": "hunter3"}})
        assert store.read("a?own=1", 10, 20) == DATA[10:20]
        login = base64.b64encode(b"me:p@w").decode()
        first = server.requests[0]
        assert first.startswith("GET /base/a?sig=hunter2&own=1 HTTP")
        assert f"Authorization: Basic {login}" in first
        assert "X-Key: hunter3" in first
        with pytest.raises(RemoteError) as caught:
            store.read("a?own=hunter4", 10, 20)
        store.close()
        for text in (repr(store), store.url, str(caught.value), repr(caught.value.__cause__)):
            assert "hunter" not in text
            assert "p%40w" not in text


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(StorageError, match=r"'tokn'.*headers") as caught:
        HttpStore("http://x", options={"tokn": "hunter2"})
    assert caught.value.errno == errno.EINVAL
    assert "hunter2" not in str(caught.value)


def test_a_proxy_of_the_environment_is_used(
    file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(part(10, 20)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        store = HttpStore("http://no.such.host.invalid/base")
        assert store.read("a", 10, 20) == DATA[10:20]
        store.close()
        assert proxy.requests[0].startswith("GET http://no.such.host.invalid/base/a ")


# -- servers that are not there


def test_a_refused_connection_says_where() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # does not listen
        port = taken.getsockname()[1]
        store = HttpStore(f"http://127.0.0.1:{port}")
        with pytest.raises(RemoteError, match=rf"no connection to 127.0.0.1:{port}") as caught:
            store.read("a")
        store.close()
    assert caught.value.transient
    assert not caught.value.maybe_done
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_host_that_does_not_exist_says_so() -> None:
    store = HttpStore("http://no.such.host.invalid")
    with pytest.raises(RemoteError, match=r"no host no\.such\.host\.invalid") as caught:
        store.read("a")
    store.close()
    assert caught.value.errno == errno.EHOSTUNREACH


def test_a_server_without_tls_is_no_secure_server(file_server: FileServer) -> None:
    store = HttpStore(file_server.url.replace("http:", "https:"))
    with pytest.raises(RemoteError, match="secure"):
        store.read("a")
    store.close()


# -- connections


def test_connections_are_kept_and_closed(file_server: FileServer) -> None:
    (file_server.folder / "a").write_bytes(DATA)
    with FaultProxy(file_server.url) as proxy:
        store = HttpStore(proxy.url)
        for _ in range(10):
            store.read("a", 10, 20)
            store.stat("a")
            store.read("a")
            with pytest.raises(StorageError):
                store.read("none", 0, 5)
        assert proxy.statistics().connections == 1
        store.close()
        store.read("a")  # connects anew
        assert proxy.statistics().connections == 2
        store.close()


def test_a_child_never_speaks_over_its_parents_connection(file_server: FileServer) -> None:
    (file_server.folder / "a").write_bytes(DATA)
    with FaultProxy(file_server.url) as proxy:
        store = HttpStore(proxy.url)
        store.read("a")
        for _ in range(2):
            assert run_in_child(lambda: store.read("a", 10, 20)) == 0
        assert store.read("a", 10, 20) == DATA[10:20]
        assert proxy.statistics().connections == 3
        store.close()


def test_a_fork_while_threads_read_holds_up_nobody(file_server: FileServer) -> None:
    (file_server.folder / "a").write_bytes(os.urandom(200_000))
    store = HttpStore(file_server.url)
    over = threading.Event()

    def reading() -> None:
        while not over.is_set():
            store.read("a", 0, 100_000)

    threads = [threading.Thread(target=reading) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert run_in_child(lambda: store.read("a", 10, 20)) == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
        store.close()


def test_certificates_may_be_ones_own(tmp_path: Path) -> None:
    store = HttpStore("https://127.0.0.1:9", options={"ca_certs": str(tmp_path / "none.pem")})
    with pytest.raises(RemoteError):
        store.read("a")
    store.close()
