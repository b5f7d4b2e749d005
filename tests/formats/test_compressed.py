"""Records inside gzip and zstd: random access by members and frames, or a clear refusal."""

from __future__ import annotations

import gzip
import json
import random
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.formats import recognise
from splitpipe.formats.files import checkpoints, compressed
from tests.formats.reading import contents, everything, opened

zstandard = pytest.importorskip("zstandard")

ROWS = [{"n": n, "text": "é" * (n % 40)} for n in range(3000)]
RAW = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def in_pieces(compress: Any, size: int) -> bytes:
    """Members or frames of some bytes each: records lie across their borders."""
    return b"".join(compress(RAW[at : at + size]) for at in range(0, len(RAW), size))


def zstd(data: bytes, **options: Any) -> bytes:
    return bytes(zstandard.ZstdCompressor(**options).compress(data))


def streamed(data: bytes) -> bytes:
    """A frame that does not say how large it is."""
    packer = zstandard.ZstdCompressor().compressobj()
    return bytes(packer.compress(data) + packer.flush())


SKIPPABLE = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"table"
PACKED = {
    "one.jsonl.gz": gzip.compress(RAW),
    "members.jsonl.gz": in_pieces(gzip.compress, 1000),
    "padded.jsonl.gz": gzip.compress(RAW[:500]) + b"\0" * 700 + gzip.compress(RAW[500:]) + b"\0",
    "stored.jsonl.gz": gzip.compress(RAW, compresslevel=0),
    "one.jsonl.zst": zstd(RAW),
    "frames.jsonl.zst": in_pieces(zstd, 1000),
    "sums.jsonl.zst": in_pieces(lambda data: zstd(data, write_checksum=True), 5000),
    "unsized.jsonl.zst": in_pieces(streamed, 50_000),
    "seekable.jsonl.zst": SKIPPABLE + in_pieces(zstd, 9000) + SKIPPABLE,
    "unmarked.jsonl": gzip.compress(RAW),
}


class TestGood:
    @pytest.mark.parametrize("name", PACKED)
    def test_every_way_of_packing(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / name).write_bytes(PACKED[name])
        before = contents(tmp_path)
        assert opened(tmp_path) == ROWS
        monkeypatch.setattr(compressed, "SPACING_NBYTES", 3000)
        assert opened(tmp_path, index_dir=tmp_path / "index") == ROWS
        assert contents(tmp_path / "index")
        assert {k: v for k, v in contents(tmp_path).items() if "index" not in k} == before

    def test_at_random_places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compressed, "SPACING_NBYTES", 3000)
        monkeypatch.setattr(compressed, "_KEPT_BLOCKS", 3)
        for name in ("members.jsonl.gz", "frames.jsonl.zst"):
            (tmp_path / name).write_bytes(PACKED[name])
        records = recognise(tmp_path)
        rows = random.Random(0).choices(range(2 * len(ROWS)), k=300)
        found = records.read(np.array(rows), ["data"])["data"]
        assert found == [ROWS[row % len(ROWS)] for row in rows]
        records.close()

    @pytest.mark.parametrize("pack", [gzip.compress, zstd])
    def test_other_formats(self, tmp_path: Path, pack: Any) -> None:
        (tmp_path / "a.csv.gz").write_bytes(pack(b'a,b\n1,"x\ny"\n'))
        assert opened(tmp_path / "a.csv.gz") == [{"a": "1", "b": "x\ny"}]
        (tmp_path / "b.txt.zst").write_bytes(pack(b"\xef\xbb\xbfone\n\ntwo"))
        assert opened(tmp_path / "b.txt.zst") == ["one", "", "two"]
        assert opened(tmp_path / "b.txt.zst", by="paragraph") == ["one", "two"]
        assert opened(tmp_path / "b.txt.zst", by="file") == ["one\n\ntwo"]

    @pytest.mark.parametrize("pack", [gzip.compress, zstd])
    def test_nothing_inside(self, tmp_path: Path, pack: Any) -> None:
        (tmp_path / "a.jsonl.gz").write_bytes(pack(b""))
        assert opened(tmp_path) == []


class TestCheckpoints:
    """Large gzip members, with the library that can begin inside one."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("indexed_gzip")
        monkeypatch.setattr(compressed, "LARGEST_BLOCK_NBYTES", 10_000)
        monkeypatch.setattr(checkpoints, "SPACING_NBYTES", 40_000)

    @pytest.mark.parametrize("name", ["one.jsonl.gz", "padded.jsonl.gz", "stored.jsonl.gz"])
    def test_reads(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(PACKED[name])
        records = recognise(tmp_path)
        notes = records.index.files[0].notes  # type: ignore[attr-defined]
        assert notes == {"compression": compressed.CHECKPOINTS}
        rows = random.Random(0).choices(range(len(ROWS)), k=100)
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda _: records.read(np.array(rows), ["data"])["data"], range(4))
            assert all(batch == [ROWS[row] for row in rows] for batch in found)
        records.close()
        assert opened(tmp_path) == ROWS

    def test_is_named_where_it_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.jsonl.gz").write_bytes(PACKED["one.jsonl.gz"])
        records = recognise(tmp_path)
        monkeypatch.setitem(sys.modules, "indexed_gzip", None)
        with pytest.raises(FormatError, match=r"splitpipe\[gzip\]"):
            records.read(np.array([0]), ["data"])
        records.close()

    def test_damage(self, tmp_path: Path) -> None:
        packed = PACKED["one.jsonl.gz"]
        file = tmp_path / "a.jsonl.gz"
        for at in random.Random(2).sample(range(4000, len(packed)), 30):
            file.write_bytes(packed[:at] + bytes([packed[at] ^ 16]) + packed[at + 1 :])
            with pytest.raises(FormatError, match=r"a\.jsonl\.gz"):
                recognise(file)


class TestBad:
    @pytest.mark.parametrize(
        ("pack", "advice"), [(gzip.compress, "bgzip"), (zstd, "pzstd"), (streamed, "pzstd")]
    )
    def test_a_stream_that_is_too_large(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Any, advice: str
    ) -> None:
        monkeypatch.setattr(compressed, "LARGEST_BLOCK_NBYTES", 10_000)
        monkeypatch.setitem(sys.modules, "indexed_gzip", None)
        (tmp_path / "a.jsonl.x").write_bytes(pack(RAW[:5000]) + pack(RAW))
        with pytest.raises(FormatError, match=rf"only be read from its beginning: .*{advice}"):
            recognise(tmp_path / "a.jsonl.x", format="jsonl")

    def test_large_files_of_small_streams(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compressed, "LARGEST_BLOCK_NBYTES", 3000)
        monkeypatch.setattr(compressed, "SPACING_NBYTES", 2500)
        (tmp_path / "a.jsonl.gz").write_bytes(PACKED["members.jsonl.gz"])
        assert opened(tmp_path) == ROWS

    @pytest.mark.parametrize("name", ["members.jsonl.gz", "sums.jsonl.zst"])
    def test_cut_or_flipped(self, tmp_path: Path, name: str) -> None:
        packed = PACKED[name]
        file = tmp_path / name
        rng = random.Random(1)
        for at in rng.sample(range(4, len(packed) - 8), 60):
            flipped = bytearray(packed)
            flipped[at] ^= 1 << rng.randrange(8)
            for raw in (packed[:at], bytes(flipped)):
                file.write_bytes(raw)
                try:
                    records = recognise(file, workers=1)
                    found = everything(records)
                except FormatError:
                    continue
                records.close()
                # Cut where a member ends, or a bit that means nothing, such as a time.
                assert found == ROWS[: len(found)]
                assert raw is not bytes(flipped) or found == ROWS

    def test_what_follows_that_is_none(self, tmp_path: Path) -> None:
        for name in ("one.jsonl.gz", "one.jsonl.zst"):
            (tmp_path / name).write_bytes(PACKED[name] + b"more")
            with pytest.raises(CorruptRecord, match=name):
                recognise(tmp_path / name)

    def test_changed_after_it_was_opened(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl.gz"
        file.write_bytes(PACKED["members.jsonl.gz"])
        records = recognise(file)
        file.write_bytes(PACKED["one.jsonl.gz"])
        with pytest.raises(FormatError, match="open the dataset again"):
            records.read(np.array([5]), ["data"])
        records.close()

    def test_broken_records_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"1\n{\n2\n"))
        with pytest.raises(CorruptRecord, match=r"line 2 \(byte 2 of the decompressed data\)"):
            recognise(tmp_path, validate=True)
        assert opened(tmp_path, broken="skip") == [1, 2]

    def test_without_the_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.jsonl.zst").write_bytes(PACKED["one.jsonl.zst"])
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(FormatError, match=r"splitpipe\[zstd\]"):
            recognise(tmp_path)

    def test_a_bomb_takes_no_memory(self, tmp_path: Path) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        zeros = bytes(1 << 20)
        bomb = b"".join(packer.compress(zeros) for _ in range(100)) + packer.flush()
        (tmp_path / "a.jsonl.gz").write_bytes(bomb)
        with pytest.raises(FormatError):
            recognise(tmp_path, max_record=1000)
        (tmp_path / "a.jsonl.gz").write_bytes(zstd(bytes(100 << 20)))
        with pytest.raises(FormatError):
            recognise(tmp_path, max_record=1000)


HEADS = st.sampled_from([b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", gzip.compress(b"1\n"), zstd(b"2\n")])


@settings(max_examples=300)
@given(head=HEADS, rest=st.one_of(st.binary(max_size=100), HEADS))
def test_random_bytes(head: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.jsonl").write_bytes(head + rest)
        try:
            records = recognise(folder, format="jsonl", broken="skip", workers=1)
        except SplitpipeError:
            return
        assert set(map(repr, everything(records))) <= {"1", "2"}
        records.close()
