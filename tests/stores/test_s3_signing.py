"""Urls that are signed without a client are those that botocore's client signs."""

from __future__ import annotations

import datetime
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from splitpipe.errors import RemoteError
from splitpipe.stores import ObjectStat, open_store, travelling
from splitpipe.stores.s3 import S3Store
from splitpipe.stores.s3_listing import parsed_listing
from splitpipe.stores.s3_signing import Signing, plain_signing, probed_signing
from tests.server_fixtures import Bucket

KEYS = {"key": "an-access-key", "secret": "a-secret-key"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this machine's configuration."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still for who signs."""
    now = datetime.datetime(2026, 11, 21, 12, 0, 0, tzinfo=datetime.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: now)


def client(options: dict[str, Any]) -> Any:
    """What `Session` would connect with these options."""
    session = botocore.session.Session()
    more = {
        "region_name": "us-east-1",
        "endpoint_url": options.get("endpoint_url"),
        **options.get("client_kwargs", {}),
    }
    return session.create_client(
        "s3",
        aws_access_key_id=options.get("key"),
        aws_secret_access_key=options.get("secret"),
        aws_session_token=options.get("token"),
        config=Config(
            signature_version=UNSIGNED if options.get("anon") else "s3v4",
            **options.get("config_kwargs", {}),
        ),
        **more,
    )


def same(one: str, other: str) -> bool:
    """Whether two urls lead to the same and prove the same."""
    first, second = urlsplit(one), urlsplit(other)
    return first[:3] == second[:3] and parse_qs(first.query) == parse_qs(second.query)


PLAIN = [
    {**KEYS, "endpoint_url": "http://127.0.0.1:5000"},
    {**KEYS, "endpoint_url": "https://127.0.0.1/"},
    {**KEYS, "token": "a/session+token=="},
    {**KEYS, "client_kwargs": {"region_name": "eu-west-3"}},
    {**KEYS, "client_kwargs": {"region_name": "ap-southeast-2"}, "token": "t"},
    {**KEYS, "client_kwargs": {"endpoint_url": "http://[::1]:9000", "region_name": "us-west-2"}},
]


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("options", PLAIN)
@pytest.mark.parametrize("key", ["a", "a b/ü+c~d", "x=y&z", "deep/er/a'b(c)!*"])
def test_a_plain_url_is_the_one_that_botocore_signs(options: dict[str, Any], key: str) -> None:
    signing = plain_signing(options, "a-bucket")
    assert signing is not None
    if "endpoint_url" not in str(options):  # else it signs for the host of the oldest region
        options = {**options, "config_kwargs": {"s3": {"addressing_style": "virtual"}}}
    theirs = client(options)
    values = {"Bucket": "a-bucket", "Key": key}
    assert same(signing.url("GET", key), theirs.generate_presigned_url("get_object", values))
    head = theirs.generate_presigned_url("head_object", values, HttpMethod="HEAD")
    assert same(signing.url("HEAD", key), head)
    theirs.close()


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(
    "options",
    [
        *PLAIN,
        {**KEYS, "endpoint_url": "http://localhost:5000"},
        {**KEYS, "endpoint_url": "https://s3.example.org"},
        {**KEYS, "config_kwargs": {"s3": {"addressing_style": "path"}}},
        {**KEYS, "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
        {**KEYS, "config_kwargs": {"s3": {"use_dualstack_endpoint": True}}},
        {**KEYS, "client_kwargs": {"region_name": "cn-north-1"}},
    ],
)
@pytest.mark.parametrize("bucket", ["a-bucket", "a.dotted.bucket"])
def test_what_is_learnt_of_a_client_signs_as_it_does(options: dict[str, Any], bucket: str) -> None:
    theirs = client(options)
    signing = probed_signing(theirs, bucket)
    assert signing is not None
    for key in ("a", "a b/ü+c"):
        url = theirs.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
        if ".s3.amazonaws.com" in url and signing.region != "us-east-1":
            assert f".s3.{signing.region}.amazonaws.com/" in signing.base
        else:
            assert same(signing.url("GET", key), url)
    theirs.close()


@pytest.mark.usefixtures("still")
def test_who_pays_is_signed_too() -> None:
    options = {**KEYS, "endpoint_url": "http://127.0.0.1:5000"}
    theirs = client(options)
    for signing in (
        plain_signing({**options, "requester_pays": True}, "a-bucket"),
        probed_signing(theirs, "a-bucket", payer=True),
    ):
        assert signing is not None
        # As S3's guide to buckets whose readers pay has it; botocore would sign a header.
        query = parse_qs(urlsplit(signing.url("GET", "a")).query)
        assert query["x-amz-request-payer"] == ["requester"]
        assert query["X-Amz-SignedHeaders"] == ["host"]
    theirs.close()


def test_who_does_not_say_who_he_is_signs_nothing() -> None:
    theirs = client({"anon": True, "client_kwargs": {"region_name": "eu-west-1"}})
    signing = probed_signing(theirs, "a-bucket")
    assert signing is not None
    assert signing.url("GET", "a b") == "https://a-bucket.s3.eu-west-1.amazonaws.com/a%20b"
    assert signing.url("GET", "", {"prefix": "a b"}).endswith("/?prefix=a%20b")
    theirs.close()


@pytest.mark.parametrize(
    ("options", "bucket"),
    [
        ({"profile": "work"}, "a-bucket"),
        ({**KEYS, "anon": True}, "a-bucket"),
        ({**KEYS, "config_kwargs": {"s3": {}}}, "a-bucket"),
        ({**KEYS, "client_kwargs": {"api_version": "x"}}, "a-bucket"),
        ({**KEYS, "endpoint_url": "http://localhost:5000"}, "a-bucket"),
        ({**KEYS, "endpoint_url": "http://127.0.0.1/path"}, "a-bucket"),
        ({**KEYS, "client_kwargs": {"region_name": "us-gov-west-1"}}, "a-bucket"),
        (KEYS, "a.dotted.bucket"),
        (KEYS, "bucket--use1-az4--x-s3"),
        (KEYS, "arn:aws:s3:us-west-2:1:accesspoint:x"),
        ({}, "a-bucket"),
        ({"key": "k"}, "a-bucket"),
    ],
)
def test_what_is_not_plain_is_left_to_botocore(options: dict[str, Any], bucket: str) -> None:
    assert plain_signing(options, bucket) is None


@pytest.mark.parametrize(
    "name",
    [
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
        "AWS_REGION",
    ],
)
def test_an_environment_that_says_more_is_left_to_botocore(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain_signing(KEYS, "a-bucket") is not None
    monkeypatch.setenv(name, "something")
    assert plain_signing(KEYS, "a-bucket") is None


def test_the_environment_brings_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    signing = plain_signing({}, "a-bucket")
    assert signing == Signing("https://a-bucket.s3.eu-north-1.amazonaws.com/", "eu-north-1",
                              "k", "s", "t")  # fmt: skip


def test_credentials_that_near_their_end_are_not_signed_with(bucket: Bucket) -> None:
    bucket.server.put(f"{bucket.name}/a", b"hello")
    old = Signing(f"{bucket.server.url}/elsewhere/", "us-east-1", "k", "s", None, until=1.0)
    assert not old.good()
    store = S3Store(bucket.url, options=bucket.options)
    store._begun()._signing = old
    assert store.read("a") == b"hello"
    store.close()


def test_nothing_shows_what_is_signed_with() -> None:
    text = repr(Signing("http://x/", "r", "hunter2", "hunter3", "hunter4"))
    assert "hunter" not in text


_READER = """
import pickle, sys
store = pickle.loads(bytes.fromhex(sys.stdin.read()))
print(store.read("a"), store.stat("a").size)
client = {"botocore.session", "botocore.client", "fsspec", "s3fs"} & set(sys.modules)
print(sorted(client))
"""


@pytest.mark.parametrize("options", [{}, {"config_kwargs": {"s3": {"addressing_style": "path"}}}])
def test_a_process_that_reads_makes_no_client(bucket: Bucket, options: dict[str, Any]) -> None:
    bucket.server.put(f"{bucket.name}/a", b"hello")
    store = open_store(bucket.url, storage_options={**bucket.options, **options})
    store.read("a")
    with travelling():
        data = pickle.dumps(store)
    store.close()
    found = subprocess.run(
        [sys.executable, "-c", _READER], input=data.hex(), capture_output=True, text=True
    )
    # What was learnt of a client by who opened it came along, or was plain from the beginning.
    assert found.stdout.split("\n")[:2] == ["b'hello' 5", "[]"], found.stderr


# -- listings


def test_a_listing_in_any_dress_is_understood() -> None:
    space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    page = parsed_listing(
        f"""<?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult{space}><IsTruncated>true</IsTruncated>
        <EncodingType>url</EncodingType><NextContinuationToken>t==</NextContinuationToken>
        <Contents><Key>a%2Bb+c/%C3%BC</Key><Size>5</Size><ETag>&quot;x&quot;</ETag></Contents>
        <CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes></ListBucketResult>""".encode(),
        "s3://bucket/",
    )
    assert page.objects == [("a+b c/ü", ObjectStat(5, '"x"'))]
    assert page.following == "t=="


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>log in</html>",
        b"<ListBucketResult>",
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    ],
)
def test_what_is_no_listing_is_an_error(data: bytes) -> None:
    with pytest.raises(RemoteError, match="not understood") as caught:
        parsed_listing(data, "s3://bucket/")
    assert caught.value.transient
