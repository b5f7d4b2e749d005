"""What lies beside a dataset in a store is found, and what is missing is."""

from __future__ import annotations

from pathlib import Path

import splitpipe as sp
from splitpipe.remote.orphans import look
from splitpipe.stores import MemoryStore


def test_an_empty_store_has_nothing() -> None:
    found = look(MemoryStore())
    assert (found.manifest, found.missing, found.orphans) == (None, (), ())


def test_everything_that_a_commit_names_is_named(tmp_path: Path) -> None:
    store = MemoryStore()
    with sp.DatasetWriter(
        store,
        {"text": "str"},
        compression=sp.Zstd(dictionary=True),
        keys="auto",
        spool_dir=tmp_path,
    ) as writer:
        writer.write_many([{"text": f"line {n} " * 9} for n in range(300)])
    found = look(store)
    assert found.missing == ()
    assert found.orphans == ()
    assert found.manifest is not None
    assert found.manifest.rows == 300


def test_what_a_writer_left_is_found(tmp_path: Path) -> None:
    store = MemoryStore()
    store.write("README.md", b"not ours")
    writer = sp.DatasetWriter(store, bins=2, bin_nbytes=10, spool_dir=tmp_path)
    writer.write_many([b"x" * 100] * 4)
    writer.flush()
    writer._session._uploads.settle()  # type: ignore[attr-defined]
    writer.abort()
    assert {key for key, _ in look(store).orphans} == {
        "v0001.writer",
        "v0001-c000-b00000.bin",
        "v0001-c000-b00001.bin",
    }
    with sp.DatasetWriter(store, bins=1, spool_dir=tmp_path) as writer:
        writer.write(b"one")
        writer.commit()
        writer.write(b"two")
    found = look(store)
    assert found.manifest is not None
    left = {key for key, _ in found.orphans}
    assert {"v0002-c000.index", "v0002-c000.sums", "v0001.writer"} <= left
    assert "v0002.writer" not in left
    assert found.orphans_nbytes > 400


def test_what_is_missing_is_found(tmp_path: Path) -> None:
    store, other = MemoryStore(), MemoryStore()
    with sp.DatasetWriter(store, bins=1, spool_dir=tmp_path) as writer:
        writer.write(b"one")
    for key, _ in store.list():
        if not key.endswith(".sums"):
            other.write(key, store.read(key)[: 70 if key.endswith(".bin") else None])
    assert look(other).missing == ("v0001-c000.sums", "v0001-c000-b00000.bin")
