"""What a table may name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import FormatError
from splitpipe.raw.locations import Location, Rules, placed, rules_of, told

HERE = "/data/set"
WEB = "https://host.example:8443/sets/one/"
BUCKET = "s3://bucket/sets/"


@pytest.mark.parametrize(
    ("base", "text", "root", "key"),
    [
        (HERE, "a.jpg", HERE, "a.jpg"),
        (HERE, "./a/./b.jpg", HERE, "a/b.jpg"),
        (HERE, "/data/set/a/b.jpg", HERE, "a/b.jpg"),
        (HERE, "file:///data/set/a%20b.jpg", HERE, "a b.jpg"),
        (HERE, "file://localhost/data/set/a.jpg", HERE, "a.jpg"),
        (WEB, "a.jpg", "https://host.example:8443/", "sets/one/a.jpg"),
        (WEB, "a.jpg?x=1", "https://host.example:8443/", "sets/one/a.jpg?x=1"),
        (WEB, "https://HOST.example:8443/b.jpg", "https://host.example:8443/", "b.jpg"),
        (BUCKET, "a.jpg", "s3://bucket/", "sets/a.jpg"),
        (BUCKET, "s3://bucket/other/a.jpg", "s3://bucket/", "other/a.jpg"),
        ("s3://bucket", "a#b?c.jpg", "s3://bucket/", "a#b?c.jpg"),
    ],
)
def test_what_lies_below_the_base_is_found(base: str, text: str, root: str, key: str) -> None:
    assert rules_of(base, ()).locate(text) == Location(root, key)


@pytest.mark.parametrize("base", [HERE, WEB, BUCKET])
@pytest.mark.parametrize(
    "text",
    [
        "../a.jpg",
        "a/../../b.jpg",
        "/etc/passwd",
        "/data/set/../other/a.jpg",
        "/data/settled/a.jpg",
        "file:///etc/passwd",
        "file://elsewhere/data/set/a.jpg",
        "https://elsewhere.org/a.jpg",
        "http://host.example:8443/a.jpg",
        "https://host.example/a.jpg",
        "https://me:hunter2@host.example:8443/a.jpg",
        "https://host.example:8443/%2e%2e/a.jpg",
        "s3://other/a.jpg",
        "s3:///a.jpg",
        "https:///a.jpg",
        "https://host.example:port/a.jpg",
        "a\\b.jpg",
        "a//b.jpg",
        "a\nb.jpg",
        "",
        ".",
        7,
        None,
    ],
)
def test_anything_else_is_refused(base: str, text: object) -> None:
    with pytest.raises(FormatError) as caught:
        rules_of(base, ()).locate(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("allow", "text"),
    [
        ("https://cdn.example", "https://cdn.example/a.jpg"),
        ("https://cdn.example/", "https://cdn.example/a.jpg"),
        ("https://*.example", "https://cdn.example/a.jpg"),
        ("https://cdn.example/pictures", "https://cdn.example/pictures/a.jpg"),
        ("s3://bucket/sets", "s3://bucket/sets/a.jpg"),
        ("s3://*", "s3://bucket/a.jpg"),
        ("*", "https://anywhere.org/a.jpg"),
        ("*", "s3://bucket/a.jpg"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/a.jpg"),
        ("/pictures", "/pictures/a.jpg"),
        ("/pictures", "file:///pictures/a.jpg"),
    ],
)
def test_what_is_allowed_is_found(allow: str, text: str) -> None:
    rules_of(HERE, allow).locate(text)
    with pytest.raises(FormatError, match="allow="):
        rules_of(HERE, ()).locate(text)


@pytest.mark.parametrize(
    ("allow", "text"),
    [
        ("https://cdn.example/pictures", "https://cdn.example/picturesque/a.jpg"),
        ("https://cdn.example/pictures", "https://cdn.example/other/a.jpg"),
        ("https://cdn.example", "http://cdn.example/a.jpg"),
        ("https://cdn.example", "https://cdn.example:8443/a.jpg"),
        ("https://cdn.example", "https://cdn.example.evil.org/a.jpg"),
        ("https://*.example", "https://example/a.jpg"),
        ("*", "http://127.0.0.1/a.jpg"),
        ("*", "http://127.0.0.1:80/a.jpg"),
        ("*", "http://localhost:8000/a.jpg"),
        ("*", "http://a.localhost/a.jpg"),
        ("*", "http://169.254.169.254/latest/meta-data"),
        ("*", "http://10.1.2.3/a.jpg"),
        ("*", "http://[::1]/a.jpg"),
        ("*", "http://[::1]:80/a.jpg"),
        ("*", "/etc/passwd"),
        ("*", "file:///etc/passwd"),
        ("/pictures", "/pictures/../etc/passwd"),
    ],
)
def test_what_is_not_allowed_is_refused(allow: str, text: str) -> None:
    with pytest.raises(FormatError):
        rules_of(HERE, allow).locate(text)


def test_what_may_be_secret_is_not_told() -> None:
    assert told("https://me:hunter2@host/a.jpg?signature=1") == "https://host/a.jpg?..."
    assert told("s3://me:word@bucket/a?b") == "s3://bucket/a?b"
    location = Location("https://host/", "a.jpg?signature=1")
    assert location.url == "https://host/a.jpg?..."


@given(st.text(max_size=40))
def test_whatever_a_cell_holds_stays_below_the_base(text: str) -> None:
    try:
        location = Rules(HERE).locate(text)
    except FormatError:
        return
    assert location.root == HERE
    assert ".." not in location.key.split("/")
    assert not location.key.startswith("/")


@given(st.text(max_size=40))
def test_a_url_is_one_or_refused(text: str) -> None:
    try:
        location = placed("https://host/" + text)
    except FormatError:
        return
    assert location.root == "https://host/"
