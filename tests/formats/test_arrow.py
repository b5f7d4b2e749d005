"""Arrow IPC files and streams, written by pyarrow, and Hugging Face's folders around them.

The library `datasets` is too heavy to install for a test; the folders are written as
``Dataset.save_to_disk`` of datasets 5.2.0 does it (``arrow_dataset.py``, ``features.py``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from splitpipe.errors import FormatError
from splitpipe.formats.base import Source
from splitpipe.formats.columnar.arrow import FORMAT
from tests.formats.damage import all_of, mutations, open_as, read_plainly, survives, truncations
from tests.formats.reading import contents
from tests.formats.tables import ROWS, expected, table


def write_stream(path: Path, rows: pa.Table, **options: Any) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, **options)


def save(folder: Path, rows: pa.Table, shards: int = 3, features: Any = None, **state: Any) -> None:
    """What ``Dataset.save_to_disk`` writes."""
    folder.mkdir(parents=True)
    if features is not None:
        told = json.dumps({"info": {"features": features}})
        rows = rows.replace_schema_metadata({"huggingface": told})
    names = [f"data-{n:05d}-of-{shards:05d}.arrow" for n in range(shards)]
    bounds = [n * len(rows) // shards for n in range(shards + 1)]
    for name, first, last in zip(names, bounds, bounds[1:], strict=False):
        write_stream(folder / name, rows.slice(first, last - first), max_chunksize=7)
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    told_state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
        **state,
    }
    (folder / "state.json").write_text(json.dumps(told_state, indent=2, sort_keys=True))


class TestFiles:
    def test_a_stream(self, tmp_path: Path) -> None:
        write_stream(tmp_path / "a.arrow", table(), max_chunksize=7)
        before = contents(tmp_path)
        assert repr(all_of(FORMAT, tmp_path)) == repr(expected())
        assert contents(tmp_path) == before

    @pytest.mark.parametrize("compression", ["uncompressed", "zstd", "lz4"])
    @pytest.mark.parametrize("cache_nbytes", [0, 1 << 20])
    def test_a_file(self, tmp_path: Path, compression: str, cache_nbytes: int) -> None:
        path = tmp_path / "a.feather"
        pyarrow.feather.write_feather(table(), str(path), compression, chunksize=7)
        assert repr(all_of(FORMAT, path, cache_nbytes=cache_nbytes)) == repr(expected())

    @pytest.mark.parametrize("suffix", ["arrow", "feather"])
    def test_dictionaries(self, tmp_path: Path, suffix: str) -> None:
        rows = pa.table({"c": pa.array([f"c{n % 3}" for n in range(20)]).dictionary_encode()})
        path = tmp_path / f"a.{suffix}"
        if suffix == "arrow":
            write_stream(path, rows, max_chunksize=6)
        else:
            pyarrow.feather.write_feather(rows, str(path), "uncompressed", chunksize=6)
        assert [one["c"] for one in all_of(FORMAT, path)] == [f"c{n % 3}" for n in range(20)]

    def test_a_file_is_a_bin(self, tmp_path: Path) -> None:
        for name in ("a.arrow", "b.arrow"):
            write_stream(tmp_path / name, table(), max_chunksize=7)
        assert open_as(FORMAT, tmp_path).layout().bins() == [range(ROWS), range(ROWS, 2 * ROWS)]

    def test_a_batch(self, tmp_path: Path) -> None:
        write_stream(tmp_path / "a.arrow", table(), max_chunksize=7)
        batch: Any = open_as(FORMAT, tmp_path).read(np.array([59, 0, 30]), ["point", "int32"])
        assert batch["point"][:, 0].tolist() == [59, 0, 30]
        assert batch["int32"].tolist() == [59, 0, 30]

    def test_no_rows(self, tmp_path: Path) -> None:
        write_stream(tmp_path / "a.arrow", table().slice(0, 0))
        assert all_of(FORMAT, tmp_path) == []

    def test_a_stream_that_is_still_written(self, tmp_path: Path) -> None:
        path = tmp_path / "a.arrow"
        write_stream(path, table(), max_chunksize=7)
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(FormatError, match="without the mark that ends a stream"):
            open_as(FORMAT, path)

    def test_the_first_version_of_feather(self, tmp_path: Path) -> None:
        path = tmp_path / "a.feather"
        path.write_bytes(b"FEA1" + bytes(100))
        with pytest.raises(FormatError, match="Feather file of version 1"):
            open_as(FORMAT, path)


class TestSavedToDisk:
    def test_a_dataset(self, tmp_path: Path) -> None:
        save(tmp_path / "data", table())
        before = contents(tmp_path)
        assert repr(all_of(FORMAT, tmp_path / "data")) == repr(expected())
        assert contents(tmp_path) == before

    def test_files_in_the_order_of_the_state(self, tmp_path: Path) -> None:
        save(tmp_path / "data", pa.table({"n": range(9)}))
        state = json.loads((tmp_path / "data" / "state.json").read_text())
        state["_data_files"].reverse()
        (tmp_path / "data" / "state.json").write_text(json.dumps(state))
        found = [one["n"] for one in all_of(FORMAT, tmp_path / "data")]
        assert found == [6, 7, 8, 3, 4, 5, 0, 1, 2]

    def test_several_splits(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            save(tmp_path / split, pa.table({"split": [split] * 3}))
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        assert FORMAT.recognises(Source.at(tmp_path))
        with pytest.raises(FormatError, match=r"holds the datasets train, test.*split=NAME"):
            open_as(FORMAT, tmp_path)
        assert all_of(FORMAT, tmp_path, split="test") == [{"split": "test"}] * 3
        with pytest.raises(FormatError, match="train, test"):
            open_as(FORMAT, tmp_path, split="dev")

    def test_splits_side_by_side(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            write_stream(tmp_path / f"x-{split}.arrow", pa.table({"n": [1]}))
        (tmp_path / "dataset_info.json").write_text('{"splits": {"train": {}, "test": {}}}')
        with pytest.raises(FormatError, match="splits train, test side by side"):
            open_as(FORMAT, tmp_path)

    def test_an_order_of_rows(self, tmp_path: Path) -> None:
        order = [8, 0, 0, 4]
        files = [{"filename": "indices.arrow"}]
        save(tmp_path / "data", pa.table({"n": range(9)}), _indices_data_files=files)
        rows = pa.table({"indices": pa.array(order, pa.uint64())})
        write_stream(tmp_path / "data" / "indices.arrow", rows)
        assert [one["n"] for one in all_of(FORMAT, tmp_path / "data")] == order
        rows = pa.table({"indices": pa.array([9], pa.uint64())})
        write_stream(tmp_path / "data" / "indices.arrow", rows)
        with pytest.raises(FormatError, match="names row 9 of 9"):
            open_as(FORMAT, tmp_path / "data")

    def test_features(self, tmp_path: Path) -> None:
        media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pictures = [{"bytes": b"\x89PNG", "path": "a.png"}, None]
        rows = pa.table(
            {
                "picture": pa.array(pictures, media),
                "grid": pa.array([[[1, 2], [3, 4]]] * 2, pa.list_(pa.list_(pa.int32()))),
            }
        )
        features = {
            "picture": {"_type": "Image"},
            "grid": {"_type": "Array2D", "shape": [2, 2], "dtype": "int32"},
        }
        save(tmp_path / "data", rows, shards=1, features=features)
        records = open_as(FORMAT, tmp_path / "data")
        assert records.schema["picture"].kind == "image"
        assert records.schema["grid"].shape == (2, 2)
        batch: Any = records.read(np.array([0, 1]), ["picture", "grid"])
        assert batch["picture"] == [b"\x89PNG", None]
        assert batch["grid"].tolist() == [[[1, 2], [3, 4]]] * 2

    def test_a_picture_that_is_elsewhere(self, tmp_path: Path) -> None:
        media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = pa.table({"picture": pa.array([{"bytes": None, "path": "/a.png"}], media)})
        save(tmp_path / "data", rows, shards=1, features={"picture": {"_type": "Image"}})
        with pytest.raises(FormatError, match=r"only the path '/a\.png'"):
            read_plainly(FORMAT, tmp_path / "data")

    @pytest.mark.parametrize("name", ["../x.arrow", "/etc/passwd", "", 5])
    def test_a_state_that_names_files_elsewhere(self, tmp_path: Path, name: Any) -> None:
        save(tmp_path / "data", table(), _data_files=[{"filename": name}])
        with pytest.raises(FormatError, match="no list of names of files in it"):
            open_as(FORMAT, tmp_path / "data")


class TestDamage:
    @pytest.fixture(params=["stream", "file", "zstd"])
    def small(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        rows = table().select(["int32", "some", "text", "point", "tokens", "info"]).slice(0, 4)
        path = tmp_path / "a.arrow"
        if request.param == "stream":
            write_stream(path, rows, max_chunksize=2)
        else:
            how = "zstd" if request.param == "zstd" else "uncompressed"
            pyarrow.feather.write_feather(rows, str(path), how, chunksize=2)
        return path

    def test_cut(self, small: Path) -> None:
        for _ in truncations(small, step=41):
            assert survives(lambda: read_plainly(FORMAT, small)) is None

    def test_mutated(self, small: Path) -> None:
        assert None in [
            survives(lambda: read_plainly(FORMAT, small)) for _ in mutations(small, 500, seed=9)
        ]

    def test_mutated_state(self, tmp_path: Path) -> None:
        save(tmp_path / "data", table().slice(0, 3), shards=1)
        assert None in [
            survives(lambda: read_plainly(FORMAT, tmp_path / "data"))
            for _ in mutations(tmp_path / "data" / "state.json", 200, seed=10)
        ]
