"""Opening a dataset in a store: what it costs, and what is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.cache import BlockCache
from splitpipe.remote import open_remote
from splitpipe.storage.committed import Column, Manifest
from splitpipe.storage.format import FILE_HEADER_NBYTES, file_name
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.manifest import decode, encode
from splitpipe.storage.snapshot import other_names
from splitpipe.stores import LocalStore, MemoryStore
from splitpipe.stores.base import checked_key
from splitpipe.testing.faults import FaultProxy
from tests.remote.making import Place

Opened = Callable[..., sp.Dataset]


@pytest.fixture
def local(tmp_path: Path) -> str:
    path = str(tmp_path / "local")
    sp.write_split_data(path, [b"record %d" % n for n in range(300)], splits=3)
    return path


@pytest.mark.usefixtures("patient")
def test_three_requests_at_most(
    in_s3: Place, opened: Opened, local: str, s3_proxy: FaultProxy
) -> None:
    in_s3.put(local, "data")
    options = in_s3.server.options_at(s3_proxy.url)
    through = Place(in_s3.root, options)
    dataset = opened(through, "data")
    assert len(dataset) == 300
    assert len(s3_proxy.log()) <= 3
    assert dataset[7] == b"record 7"
    assert len(s3_proxy.log()) <= 5
    s3_proxy.forget()
    assert opened(through, "data")[7] == b"record 7"
    assert len(s3_proxy.log()) <= 3


class Counting:
    """A folder that counts what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self._store = LocalStore(str(folder))
        self.url = self._store.url
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        self.asked += name != "close"
        return getattr(self._store, name)


def test_ten_million_records_open_at_once(tmp_path: Path) -> None:
    rows, bins = 10_000_000, 64
    layout = BinLayout([Segment(0, rows, 0, bins, None, b"\0" * 4 * (1 + bins))])
    sizes = (FILE_HEADER_NBYTES + 200 * rows // bins,) * bins
    column = Column("data", sp.Field("bytes"), 0, sizes, layout)
    manifest = Manifest(bytes(16), 1, 1, rows, (column,))
    folder = tmp_path / "data"
    folder.mkdir()
    for identity, size in manifest.files(column):
        with open(folder / file_name(identity), "wb") as file:
            file.truncate(size)
    (folder / "splitpipe.json").write_bytes(encode(manifest))
    times = []
    for number in range(3):
        store: Any = Counting(folder)
        cache = BlockCache(tmp_path / f"cache {number}", None)
        began = time.process_time()
        records = open_remote(store, cache)
        times.append(time.process_time() - began)
        found = len(records), store.asked <= 3
        records.close()
        assert found == (rows, True)
    assert min(times) < 1.0  # 3 ms; where each record costs something it is seconds


# --- what is refused --------------------------------------------------------------------------


def test_nothing_is_there(place: Place, opened: Opened, local: str) -> None:
    place.put(local, "other")
    with pytest.raises(sp.StorageError, match=r"no splitpipe dataset here.*look at the url"):
        opened(place, "data")


def test_a_bucket_that_is_not_there(in_s3: Place, opened: Opened) -> None:
    nowhere = Place("s3://no-such-bucket-anywhere", in_s3.options)
    with pytest.raises(sp.StorageError, match="bucket"):
        opened(nowhere, "data")


def test_a_web_page(place: Place, opened: Opened) -> None:
    place.put_file("data/splitpipe.json", b"<!DOCTYPE html><h1>Please log in</h1>")
    with pytest.raises(sp.FormatError, match="is a web page"):
        opened(place, "data")


def test_other_data(place: Place, opened: Opened) -> None:
    place.put_file("data/splitpipe.json", json.dumps({"a": 1}).encode())
    with pytest.raises(sp.FormatError, match="not the manifest"):
        opened(place, "data")


def test_a_newer_version(place: Place, opened: Opened, local: str) -> None:
    text = Path(local, "splitpipe.json").read_bytes()
    place.put_file("data/splitpipe.json", text.replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(sp.UnsupportedVersion, match="update splitpipe"):
        opened(place, "data")


def test_objects_that_are_missing_or_cut(place: Place, opened: Opened, local: str) -> None:
    place.put(local, "data")
    place.put_file("alone/splitpipe.json", Path(local, "splitpipe.json").read_bytes())
    with pytest.raises(sp.StorageError, match=r"v0001-c000.*index"):
        opened(place, "alone")[0]
    name = "v0001-c000-b00001.bin"
    place.put_file(f"data/{name}", Path(local, name).read_bytes()[:-10])
    dataset = opened(place, "data")
    assert dataset[0] == b"record 0"
    with pytest.raises(sp.DatasetChanged, match="committed"):
        dataset[1]


def test_an_object_of_another_dataset(place: Place, opened: Opened, local: str) -> None:
    place.put(local, "data")
    names = [f"v0001-c000-b0000{n}.bin" for n in range(2)]
    place.put_file(f"data/{names[0]}", Path(local, names[1]).read_bytes())
    with pytest.raises(sp.FormatError, match="belongs to another dataset, or to another place"):
        opened(place, "data", verify=False)[0]


def test_folders_that_are_no_cache(
    in_s3: Place, opened: Opened, local: str, tmp_path: Path
) -> None:
    in_s3.put(local, "data")
    foreign = tmp_path / "papers"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(sp.StorageError, match="thesis"):
        opened(in_s3, "data", cache_dir=foreign)
    assert os.listdir(foreign) == ["thesis.tex"]
    with pytest.raises(sp.StorageError):
        opened(in_s3, "data", cache_dir=foreign / "thesis.tex")
    with pytest.raises(sp.FormatError, match="give it"):
        opened(in_s3, "data", cache_limit=1000)
    with pytest.raises(sp.FormatError, match="no size"):
        opened(in_s3, "data", cache_limit="plenty")


def test_what_is_not_for_stores(in_s3: Place, opened: Opened, local: str) -> None:
    in_s3.put(local, "data")
    with pytest.raises(sp.FormatError, match="mds"):
        opened(in_s3, "data", format="mds")
    with pytest.raises(TypeError, match="nonsense"):
        opened(in_s3, "data", nonsense=1)
    with pytest.raises(TypeError, match="is no url"):
        sp.open_dataset(local, cache_limit="1GB")


def test_credentials_are_told_to_nobody(in_s3: Place, opened: Opened, local: str) -> None:
    import pickle

    in_s3.put(local, "data")
    dataset = opened(in_s3, "data")
    list(dataset)
    secret = in_s3.options["secret"].encode() if in_s3.options else b""
    assert len(secret) > 4
    blob = pickle.dumps(dataset)
    assert secret not in blob
    assert secret.decode() not in repr(dataset) + repr(dataset.records)
    for folder, _, names in os.walk(dataset.records._cache.directory):
        for name in names:
            assert secret not in Path(folder, name).read_bytes()
    with pickle.loads(blob) as again:
        assert again[3] == b"record 3"


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON value something simple stands."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*at, name))
    else:
        yield at


@pytest.mark.parametrize("hostile", ["/etc/passwd", "../../up", "s3://other/x", "//other/x"])
def test_a_manifest_that_leads_elsewhere(tmp_path: Path, hostile: str) -> None:
    store = MemoryStore()
    with sp.DatasetWriter(
        store, {"n": "int64"}, compression=sp.Zstd(), keys="auto", bins=2, spool_dir=tmp_path
    ) as writer:
        writer.write_many([{"n": n} for n in range(100)])
    raw = store.read("splitpipe.json")
    decided = 0
    for at in leaves(json.loads(raw)):
        told = json.loads(raw)
        inner = told
        for name in at[:-1]:
            inner = inner[name]
        inner[at[-1]] = hostile
        try:
            manifest = decode(json.dumps(told).encode(), "")
        except sp.FormatError:
            decided += 1
            continue
        named = [
            file_name(identity)
            for column in manifest.columns
            for identity, _ in manifest.files(column)
        ]
        for name in [*named, *other_names(manifest)]:
            assert checked_key(name) == name
            assert hostile not in name
    assert decided > 5
