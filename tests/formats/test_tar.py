"""Tar shards, written by the webdataset library and by Python's tarfile in all its formats."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_iterator

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.formats.base import Source
from splitpipe.formats.shards.members import members
from splitpipe.formats.shards.tar import FORMAT, split_name
from tests.formats.damage import (
    FACTOR,
    all_of,
    mutations,
    open_as,
    read_plainly,
    survives,
    truncations,
)
from tests.formats.reading import contents


def pack(path: Path, files: Mapping[str, bytes], **options: Any) -> None:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of samples that differ in what they have."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        with webdataset.TarWriter(str(folder / f"s-{shard:03d}.tar")) as writer:
            for number in range(shard * 40, shard * 40 + 40):
                sample: dict[str, Any] = {
                    "__key__": f"part/{number:06d}",
                    "txt": f"text é {number}",
                    "cls": number % 10,
                    "meta.json": {"n": number},
                }
                if number % 3 == 0:
                    sample["left.png"] = bytes([number]) * number
                if number == 50:
                    sample["video.mp4"] = np.random.default_rng(0).bytes(300_000)
                writer.write(sample)
    return folder


def by_webdataset(folder: Path) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as file:
            found = ({**one, "__url__": str(path)} for one in tar_file_iterator(file))
            samples += group_by_keys(found)
    return samples


class TestGood:
    def test_what_webdataset_reads(self, shards: Path) -> None:
        before = contents(shards)
        found = all_of(FORMAT, shards)
        assert contents(shards) == before
        columns = {"txt": "txt", "cls": "cls", "meta_json": "meta.json", "left_png": "left.png"}
        columns |= {"video_mp4": "video.mp4", "__key__": "__key__"}
        assert found == [
            {column: sample.get(name) for column, name in sorted(columns.items())}
            for sample in by_webdataset(shards)
        ]

    def test_a_shard_is_a_bin(self, shards: Path) -> None:
        layout = open_as(FORMAT, shards).layout()
        assert layout.bins() == [range(40), range(40, 80), range(80, 120)]

    def test_typed(self, shards: Path) -> None:
        records = open_as(FORMAT, shards, typed=True)
        kinds = {name: field.kind for name, field in records.schema.items()}
        assert kinds == {
            "__key__": "str",
            "cls": "scalar",
            "left_png": "image",
            "meta_json": "json",
            "txt": "str",
            "video_mp4": "video",
        }
        batch = records.read(np.array([50, 7]), ["cls", "txt", "meta_json", "__key__"])
        assert batch["cls"].tolist() == [0, 7]  # type: ignore[union-attr]
        assert batch["txt"] == ["text é 50", "text é 7"]
        assert batch["meta_json"] == [{"n": 50}, {"n": 7}]
        assert batch["__key__"] == ["part/000050", "part/000007"]

    def test_out(self, shards: Path) -> None:
        given_array = np.empty(2, np.int64)
        records = open_as(FORMAT, shards, typed=True)
        assert records.read(np.array([3, 4]), ["cls"], {"cls": given_array})["cls"] is given_array
        assert given_array.tolist() == [3, 4]

    def test_one_column_of_a_large_sample_reads_little(
        self, shards: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = open_as(FORMAT, shards)
        records.read(np.array([50]), ["txt"])
        told: list[int] = []
        pread = os.pread
        monkeypatch.setattr("os.pread", lambda fd, n, at: told.append(n) or pread(fd, n, at))
        assert records.read(np.array([50]), ["txt"])["txt"] == ["text é 50".encode()]
        assert sum(told) < 20_000

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_of_every_format(self, tmp_path: Path, form: int) -> None:
        long = "d" * 60 + "/" + "e" * (30 if form == tarfile.USTAR_FORMAT else 200)
        files = {f"{long}/{n}.txt": b"%d" % n for n in range(5)}
        if form == tarfile.PAX_FORMAT:
            files["ü/ñ.txt"] = b"text"
        pack(tmp_path / "a.tar", files, format=form)
        found = all_of(FORMAT, tmp_path)
        assert [(f"{one['__key__']}.txt", one["txt"]) for one in found] == list(files.items())

    def test_a_single_file_under_another_name(self, tmp_path: Path) -> None:
        pack(tmp_path / "samples.bin", {"1.txt": b"a"})
        assert all_of(FORMAT, tmp_path / "samples.bin") == [{"__key__": "1", "txt": b"a"}]

    def test_what_is_no_sample(self, tmp_path: Path) -> None:
        files = {".hidden.txt": b"", "__meta__/x.txt": b"", "README": b"", "1.txt": b"one"}
        pack(tmp_path / "a.tar", files)
        assert all_of(FORMAT, tmp_path) == [{"__key__": "1", "txt": b"one"}]

    def test_no_sample_at_all(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {})
        assert read_plainly(FORMAT, tmp_path) == []

    def test_extensions_that_are_no_names(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.seg-a.PNG": b"1", "1.seg_a.png": b"2", "1.7z": b"3"})
        (one,) = all_of(FORMAT, tmp_path)
        assert one == {"__key__": "1", "_7z": b"3", "seg_a_png": b"1", "seg_a_png_2": b"2"}

    @given(st.text("ab./_", min_size=1, max_size=12))
    def test_names_are_split_as_webdataset_does(self, name: str) -> None:
        key, extension = base_plus_ext(name)
        expected = None if key is None else (key, extension.lower())
        assert split_name(name) == expected or name.startswith("__")


class TestRefused:
    def test_a_compressed_shard(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.txt": b"a"})
        packed = tmp_path / "packed"
        packed.mkdir()
        (packed / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
        assert FORMAT.recognises(Source.at(packed))
        with pytest.raises(FormatError, match=r"a\.tar\.gz is compressed.*gunzip"):
            open_as(FORMAT, packed)

    @pytest.mark.parametrize(
        ("kind", "what"), [(tarfile.SYMTYPE, "symbolic link"), (tarfile.LNKTYPE, "hard link")]
    )
    def test_links(self, tmp_path: Path, kind: bytes, what: str) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            info = tarfile.TarInfo("1.txt")
            info.type, info.linkname = kind, "2.txt"
            archive.addfile(info)
        with pytest.raises(FormatError, match=f"'1.txt' is a {what}.*--dereference"):
            open_as(FORMAT, tmp_path)

    def test_sparse_files(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            info = tarfile.TarInfo("1.txt")
            info.type = tarfile.GNUTYPE_SPARSE
            archive.addfile(info)
        with pytest.raises(FormatError, match="sparse"):
            open_as(FORMAT, tmp_path)
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("1.txt")
            info.pax_headers = {"GNU.sparse.major": "1"}
            archive.addfile(info)
        with pytest.raises(FormatError, match="--sparse"):
            open_as(FORMAT, tmp_path)

    def test_a_sample_in_pieces(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.txt": b"", "2.txt": b"", "1.cls": b""})
        with pytest.raises(FormatError, match=r"sample '1' do not lie together.*--sort=name"):
            open_as(FORMAT, tmp_path)

    def test_an_extension_twice(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.txt": b"", "1.TXT": b""})
        with pytest.raises(FormatError, match="two members with the extension 'txt'"):
            open_as(FORMAT, tmp_path)

    def test_two_archives_in_one_file(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.txt": b""})
        pack(tmp_path / "b.tar", {"2.txt": b""})
        both = tmp_path / "c.tar"
        both.write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
        with pytest.raises(FormatError, match=r"two archives in one file.*--concatenate"):
            open_as(FORMAT, both)

    def test_what_is_not_what_its_extension_says(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.json": b"{", "1.cls": b"9" * 30})
        records = open_as(FORMAT, tmp_path, typed=True)
        for column in ("json", "cls"):
            with pytest.raises(CorruptRecord, match=rf"1\.{column} in .*typed=False"):
                records.read(np.array([0]), [column])

    def test_a_shard_that_changed_since(self, tmp_path: Path) -> None:
        pack(tmp_path / "a.tar", {"1.txt": b"a"})
        records = open_as(FORMAT, tmp_path)
        pack(tmp_path / "a.tar", {"1.txt": b"b" * 600})
        with pytest.raises(FormatError, match="not what was indexed"):
            records.read(np.array([0]), ["txt"])
        assert all_of(FORMAT, tmp_path) == [{"__key__": "1", "txt": b"b" * 600}]


class TestDamage:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        files = {
            f"{n}.{ext}": json.dumps([n]).encode() for n in range(2) for ext in ("txt", "json")
        }
        files["é" * 60 + ".txt"] = b"long"
        pack(tmp_path / "a.tar", files, format=tarfile.PAX_FORMAT)
        return tmp_path / "a.tar"

    def test_cut_at_every_byte(self, small: Path) -> None:
        data = small.read_bytes()
        whole = list(members(data, "a.tar"))
        end = whole[-1].end
        for size in range(len(data)):
            try:
                found = list(members(data[:size], "a.tar"))
            except SplitpipeError:
                found = None
            # What pads an archive may be missing, its mark may not.
            assert found is None if size < end + 512 else found == whole

    def test_a_shard_cut_at_any_place(self, small: Path, tmp_path: Path) -> None:
        whole = read_plainly(FORMAT, small)
        for _ in truncations(small, step=151):
            assert survives(lambda: read_plainly(FORMAT, small)) in (None, whole)

    def test_mutated_headers(self, small: Path) -> None:
        assert None in [
            survives(lambda: list(members(small.read_bytes(), "a.tar")))
            for _ in mutations(small, 1500, seed=2, stop=3 * 1024)
        ]

    def test_mutated(self, small: Path) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, small)) for _ in mutations(small, 200, seed=3)
        ]

    def test_every_bit_of_a_header(self, small: Path) -> None:
        data = bytearray(small.read_bytes()[: 4 * 1024])
        for bit in range(8 * 512):
            data[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FormatError):
                list(members(bytes(data), "a.tar"))
            data[bit // 8] ^= 1 << bit % 8

    @settings(max_examples=300 * FACTOR)
    @given(
        st.binary(max_size=1200), st.integers(0, 2000), st.sampled_from([b"x", b"L", b"0", b"g"])
    )
    def test_made_up_headers(self, body: bytes, size: int, kind: bytes) -> None:
        info = tarfile.TarInfo("name")
        info.size, info.type = size, kind
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        data = bytes(header) + body.ljust(-(-len(body) // 512) * 512, b"\0") + bytes(1024)
        found = survives(lambda: list(members(data, "made up")))
        assert found is None or all(one.offset + one.size <= len(data) for one in found)
