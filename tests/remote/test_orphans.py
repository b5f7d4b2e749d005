"""What lies beside a dataset in a store is found, and what is missing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import splitpipe as sp
from splitpipe.cli.app import run
from splitpipe.errors import FormatError
from splitpipe.remote.checking import check_remote
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


class TestCheck:
    @pytest.fixture
    def written(self, tmp_path: Path) -> str:
        url = f"file://{tmp_path}/data"
        with sp.DatasetWriter(url, bins=3, bin_nbytes=2000, spool_dir=tmp_path / "s") as writer:
            for number in range(300):
                writer.write({"n": number, "text": "x" * 40})
                if number % 100 == 99:
                    writer.flush()
        return url

    def test_a_sound_dataset(self, written: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["check", written]) == 0
        assert "300 of 300 records read, everything is right" in capsys.readouterr().out

    def test_what_is_wrong_is_told(
        self, written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        victim, lost = sorted((tmp_path / "data").glob("*c001*.bin"))[:2]
        damaged = bytearray(victim.read_bytes())
        damaged[200] ^= 1
        victim.write_bytes(damaged)
        lost.unlink()
        (tmp_path / "data" / "v0009-c000.index").write_bytes(b"of nobody")
        assert run(["check", "--json", written]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["findings"][0]["row"] is None
        assert lost.name in report["findings"][0]["message"]
        assert any(victim.name in finding["message"] for finding in report["findings"])
        assert report["orphans"] == [["v0009-c000.index", 9]]
        assert 0 < report["checked"] < 300
        assert report["found"] == 300 - report["checked"] + 1

    def test_an_index_that_is_missing(
        self, written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "data" / "v0001-c000.index").unlink()
        assert run(["check", written]) == 1
        told = capsys.readouterr().out
        assert "v0001-c000.index is missing" in told
        assert "0 of 300 records read, 1 thing is wrong" in told

    def test_nothing_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="has no manifest"):
            check_remote(MemoryStore())
