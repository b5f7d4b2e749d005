"""MDS shards. mosaicml-streaming is too heavy to install for a test (it brings torch), so that its
writer is retold here byte for byte, from streaming/base/format/mds/{writer,encodings}.py of 0.13.0.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError, StorageError
from splitpipe.formats.base import Source
from splitpipe.formats.shards.mds import FORMAT
from tests.formats.damage import all_of, mutations, open_as, read_plainly, survives, truncations
from tests.formats.reading import contents

CODES = {"uint8": 8, "int16": 17, "float32": 34, "int64": 65, "float64": 66}
PACK = {"zstd": zstandard.compress, "gz": gzip.compress, "bz2": bz2.compress}


def encode(encoding: str, value: Any) -> bytes:
    name, _, rest = encoding.partition(":")
    if name == "ndarray":
        parts = rest.split(":") if rest else []
        data = b"" if parts else bytes([CODES[value.dtype.name]])
        if len(parts) < 2:
            wide = max(value.shape) > 255
            data += bytes([value.ndim << 2 | wide])
            data += np.array(value.shape, np.uint16 if wide else np.uint8).tobytes()
        return data + bytes(value.tobytes())
    if isinstance(value, bytes):
        return value
    if encoding == "int":
        return np.int64(value).tobytes()
    if encoding == "json":
        return json.dumps(value).encode()
    if encoding == "pkl":
        return pickle.dumps(value)
    if encoding in CODES:
        return np.dtype(encoding).type(value).tobytes()
    return str(value).encode()


def size_of(encoding: str) -> int | None:
    name, _, rest = encoding.partition(":")
    if name == "ndarray" and rest.count(":") == 1:
        dtype, shape = rest.split(":")
        return int(np.prod([int(axis) for axis in shape.split(",")])) * np.dtype(dtype).itemsize
    if encoding == "int":
        return 8
    return np.dtype(encoding).itemsize if encoding in CODES else None


def write(
    folder: Path,
    columns: dict[str, str],
    samples: list[dict[str, Any]],
    *,
    shard_samples: int = 7,
    compression: str | None = None,
    hashes: tuple[str, ...] = (),
) -> None:
    """What MDSWriter makes of some samples."""
    folder.mkdir()
    names = sorted(columns)
    config = {
        "version": 2,
        "format": "mds",
        "compression": compression,
        "hashes": list(hashes),
        "size_limit": 1 << 26,
        "column_names": names,
        "column_encodings": [columns[name] for name in names],
        "column_sizes": [size_of(columns[name]) for name in names],
    }
    text = json.dumps(config, sort_keys=True).encode()
    shards = []
    for first in range(0, len(samples), shard_samples):
        stored = []
        for sample in samples[first : first + shard_samples]:
            data = [encode(columns[name], sample[name]) for name in names]
            sizes = [len(d) for d, name in zip(data, names) if size_of(columns[name]) is None]
            stored.append(np.array(sizes, np.uint32).tobytes() + b"".join(data))
        offsets = np.cumsum([0, *map(len, stored)]).astype(np.uint32)
        offsets += 4 + offsets.nbytes + len(text)
        raw = np.uint32(len(stored)).tobytes() + offsets.tobytes() + text + b"".join(stored)
        basename = f"shard.{len(shards):05}.mds"

        def told(data: bytes, name: str) -> dict[str, Any]:
            digests = {algorithm: hashlib.new(algorithm, data).hexdigest() for algorithm in hashes}
            return {"basename": name, "bytes": len(data), "hashes": digests}

        packed = None
        if compression is None:
            (folder / basename).write_bytes(raw)
        else:
            data = PACK[compression.partition(":")[0]](raw)
            name = f"{basename}.{compression.partition(':')[0]}"
            (folder / name).write_bytes(data)
            packed = told(data, name)
        shards.append(
            {**config, "samples": len(stored), "raw_data": told(raw, basename), "zip_data": packed}
        )
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}, sort_keys=True))


COLUMNS = {
    "raw": "bytes",
    "text": "str",
    "number": "int",
    "score": "float32",
    "small": "uint8",
    "fixed": "ndarray:int16:2,3",
    "known": "ndarray:float64",
    "free": "ndarray",
    "info": "json",
    "picture": "jpeg",
    "large": "str_int",
    "exact": "str_decimal",
    "weight": "str_float",
}
SAMPLES = [
    {
        "raw": bytes([n]) * n,
        "text": "é" * n,
        "number": -n,
        "score": n / 2,
        "small": n,
        "fixed": np.full((2, 3), n, np.int16),
        "known": np.arange(2.0 * n + 2).reshape(2, n + 1),
        "free": np.arange(n + 1 if n != 3 else 300, dtype=np.int64),
        "info": {"n": [n, None]},
        "picture": b"\xff\xd8" + bytes([n]),
        "large": 10**30 + n,
        "exact": "1.10",
        "weight": 0.1 * n,
    }
    for n in range(20)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", COLUMNS, SAMPLES)
    return tmp_path / "data"


def expected(sample: dict[str, Any]) -> str:
    return repr({name: sample[name] for name in sorted(sample)})


class TestGood:
    def test_every_encoding(self, folder: Path) -> None:
        before = contents(folder)
        assert [repr(one) for one in all_of(FORMAT, folder)] == list(map(expected, SAMPLES))
        assert contents(folder) == before

    def test_the_columns(self, folder: Path) -> None:
        schema = open_as(FORMAT, folder).schema
        assert schema["fixed"].shape == (2, 3)
        assert schema["fixed"].stackable
        assert (schema["known"].dtype, schema["known"].shape) == ("float64", None)
        assert schema["free"].dtype == "int64"
        assert (schema["picture"].kind, schema["exact"].kind) == ("image", "str")

    def test_a_batch_into_an_array(self, folder: Path) -> None:
        records = open_as(FORMAT, folder)
        out = np.empty((3, 2, 3), np.int16)
        batch = records.read(np.array([19, 0, 19]), ["fixed", "number"], {"fixed": out})
        assert batch["fixed"] is out
        assert out[:, 0, 0].tolist() == [19, 0, 19]
        assert batch["number"].tolist() == [-19, 0, -19]  # type: ignore[union-attr]

    def test_a_shard_is_a_bin(self, folder: Path) -> None:
        assert open_as(FORMAT, folder).layout().bins() == [range(7), range(7, 14), range(14, 20)]

    @pytest.mark.parametrize("compression", ["zstd", "zstd:7", "gz", "bz2"])
    def test_packed(self, tmp_path: Path, compression: str) -> None:
        write(tmp_path / "data", COLUMNS, SAMPLES, compression=compression, hashes=("sha1",))
        found = all_of(FORMAT, tmp_path / "data", check_hashes=True)
        assert [repr(one) for one in found] == list(map(expected, SAMPLES))

    def test_a_raw_shard_beside_the_packed_one(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int"}, [{"n": 1}])
        write(tmp_path / "packed", {"n": "int"}, [{"n": 1}], compression="zstd")
        (tmp_path / "packed" / "shard.00000.mds.zstd").write_bytes(b"broken")
        raw = tmp_path / "packed" / "shard.00000.mds"
        index = json.loads((tmp_path / "packed" / "index.json").read_text())
        data = (tmp_path / "data" / "shard.00000.mds").read_bytes()
        index["shards"][0]["raw_data"]["bytes"] = len(data)
        (tmp_path / "packed" / "index.json").write_text(json.dumps(index))
        raw.write_bytes(data)
        assert all_of(FORMAT, tmp_path / "packed") == [{"n": 1}]

    def test_pickles_only_when_asked(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int", "thing": "pkl"}, [{"n": 5, "thing": {1, 2}}])
        records = open_as(FORMAT, tmp_path / "data")
        assert records.read(np.array([0]), ["n"])["n"].tolist() == [5]  # type: ignore[union-attr]
        with pytest.raises(FormatError, match="allow_pickle=True if you trust it"):
            records.read(np.array([0]), ["thing"])
        trusting = open_as(FORMAT, tmp_path / "data", allow_pickle=True)
        assert trusting.read(np.array([0]), ["thing"])["thing"] == [{1, 2}]


class TestRefused:
    def change(self, folder: Path, **changes: Any) -> None:
        index = json.loads((folder / "index.json").read_text())
        index["shards"][0].update(changes)
        (folder / "index.json").write_text(json.dumps(index))

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"samples": 8}, "not that of 8 samples"),
            ({"samples": 1 << 40}, "which cannot be"),
            ({"samples": -1}, "'samples'"),
            ({"raw_data": {"basename": "../x", "bytes": 100}}, "not in its folder"),
            ({"raw_data": {"basename": "/etc/passwd", "bytes": 100}}, "not in its folder"),
            ({"raw_data": {"basename": "shard.00000.mds", "bytes": 100}}, "the index says 100"),
            ({"column_names": ["x"]}, "do not go together"),
            ({"column_encodings": ["ndarray:int16:0,3"] * 13}, "other columns than"),
            ({"format": "json"}, "not mds"),
        ],
    )
    def test_an_index_that_lies(self, folder: Path, changes: dict[str, Any], match: str) -> None:
        self.change(folder, **changes)
        with pytest.raises(FormatError, match=match):
            read_plainly(FORMAT, folder)

    def test_an_unknown_encoding(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int"}, [{"n": 1}])
        self.change(tmp_path / "data", column_encodings=["ndarray:object"])
        with pytest.raises(FormatError, match=r"column 'n' of .* unknown encoding"):
            open_as(FORMAT, tmp_path / "data")

    def test_a_shard_that_is_missing(self, folder: Path) -> None:
        (folder / "shard.00001.mds").unlink()
        with pytest.raises(StorageError, match=r"shard\.00001\.mds"):
            read_plainly(FORMAT, folder)

    def test_a_hash_that_differs(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int"}, [{"n": 1}], hashes=("sha1", "sha256"))
        file = tmp_path / "data" / "shard.00000.mds"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert read_plainly(FORMAT, tmp_path / "data") != [{"n": 1}]
        with pytest.raises(CorruptRecord, match=r"shard\.00000\.mds does not have the sha1"):
            read_plainly(FORMAT, tmp_path / "data", check_hashes=True)

    def test_a_packed_shard_larger_than_the_cache(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int"}, [{"n": 1}] * 50, compression="zstd")
        with pytest.raises(FormatError, match="more than cache_nbytes=100"):
            read_plainly(FORMAT, tmp_path / "data", cache_nbytes=100)

    def test_a_packed_shard_that_grows_without_end(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int"}, [{"n": 1}], compression="zstd")
        bomb = zstandard.compress(bytes(64 << 20))
        (tmp_path / "data" / "shard.00000.mds.zstd").write_bytes(bomb)
        index = json.loads((tmp_path / "data" / "index.json").read_text())
        index["shards"][0]["zip_data"]["bytes"] = len(bomb)
        (tmp_path / "data" / "index.json").write_text(json.dumps(index))
        assert survives(lambda: read_plainly(FORMAT, tmp_path / "data")) is None

    def test_a_compression_that_is_not_known(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"n": "int"}, [{"n": 1}], compression="zstd")
        self.change(tmp_path / "data", compression="br:11")
        with pytest.raises(FormatError, match="packed by 'br:11'"):
            read_plainly(FORMAT, tmp_path / "data")

    def test_an_array_of_another_dtype(self, tmp_path: Path) -> None:
        samples = [{"a": np.zeros(2, np.int16)}, {"a": np.zeros(2, np.float64)}]
        write(tmp_path / "data", {"a": "ndarray"}, samples)
        with pytest.raises(FormatError, match="dtype float64, the first sample's is int16"):
            read_plainly(FORMAT, tmp_path / "data")

    def test_other_json_files(self, tmp_path: Path) -> None:
        (tmp_path / "index.json").write_text('{"a": 1}')
        assert not FORMAT.recognises(Source.at(tmp_path))


class TestDamage:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        write(tmp_path / "data", COLUMNS, SAMPLES[:2])
        return tmp_path / "data"

    @pytest.mark.parametrize("name", ["index.json", "shard.00000.mds"])
    def test_cut_at_every_byte(self, small: Path, name: str) -> None:
        for _ in truncations(small / name):
            assert survives(lambda: read_plainly(FORMAT, small)) is None

    @pytest.mark.parametrize(("name", "stop"), [("index.json", None), ("shard.00000.mds", 12)])
    def test_mutated(self, small: Path, name: str, stop: int | None) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, small))
            for _ in mutations(small / name, 500, seed=4, stop=stop)
        ]

    def test_mutated_samples(self, small: Path) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, small))
            for _ in mutations(small / "shard.00000.mds", 600, seed=5)
        ]

    def test_mutated_while_packed(self, tmp_path: Path) -> None:
        write(tmp_path / "data", COLUMNS, SAMPLES[:2], compression="zstd")
        assert None in [
            survives(lambda: read_plainly(FORMAT, tmp_path / "data"))
            for _ in mutations(tmp_path / "data" / "shard.00000.mds.zstd", 200, seed=6)
        ]

    def test_the_table_is_checked_before_a_sample_is_read(self, small: Path) -> None:
        file = small / "shard.00000.mds"
        data = bytearray(file.read_bytes())
        data[8:12] = (1 << 31).to_bytes(4, "little")
        file.write_bytes(data)
        with pytest.raises(SplitpipeError, match="table of samples is damaged"):
            read_plainly(FORMAT, small)
