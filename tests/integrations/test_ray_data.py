"""Ray Data by hand: read tasks and write tasks called as Ray calls them, without a cluster."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import Dataset, dataset_of
from splitpipe.errors import FormatError, PipelineError, StorageError
from splitpipe.order import make_order
from splitpipe.schema import Field, Schema, ndarray
from splitpipe.storage.base import MemoryRecords

pa = pytest.importorskip("pyarrow", reason="blocks of Ray are Arrow tables")
pytest.importorskip("ray.data", reason="it is Ray's blocks that are made and taken here")

from ray.data._internal.execution.interfaces import TaskContext  # noqa: E402
from ray.data.datasource import WriteResult  # noqa: E402
from ray.data.extensions import ArrowPythonObjectArray  # noqa: E402

from splitpipe.integrations.ray_data import Datasink, Datasource  # noqa: E402
from splitpipe.integrations.ray_data.blocks import columns_of, schema_of  # noqa: E402

# Ray's own context sets what Ray has given up.
pytestmark = pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning")

SCHEMA = Schema(
    {
        "n": "int64",
        "half": "float16",
        "flag": "bool",
        "text": "str",
        "raw": "bytes",
        "data": "json",
        "picture": ndarray("uint8", (2, 3)),
        "sound": ndarray("float32", (None,)),
        "grid": ndarray("int16", (None, 2)),
        "day": Field("scalar", "datetime64[D]"),
        "took": Field("scalar", "timedelta64[ms]"),
    }
)


def record(n: int) -> dict[str, Any]:
    return {
        "n": n,
        "half": n / 2,
        "flag": n % 2 == 0,
        "text": None if n % 5 == 0 else f"é{n}",
        "raw": b"\0" * (n % 4),
        "data": {"a": [n, None]} if n % 3 else "text",
        "picture": np.full((2, 3), n, np.uint8),
        "sound": np.arange(n % 4, dtype=np.float32),
        "grid": np.full((2, 2), n, np.int16),
        "day": np.datetime64("2020-01-01") + n,
        "took": None if n == 3 else np.timedelta64(n, "ms"),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "source"
    with sp.DatasetWriter(path, SCHEMA, bins=4) as writer:
        writer.write_many(record(n) for n in range(37))
    return Path(path)


@pytest.fixture
def dataset(written: Path) -> Iterator[Dataset]:
    with sp.open_dataset(written) as opened:
        yield opened


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(
        np.array_equal(one[name], two[name])
        and (not isinstance(one[name], np.ndarray) or one[name].dtype == two[name].dtype)
        for name in one
    )


def read(source: Datasource, parallelism: int) -> list[Any]:
    return [block for task in source.get_read_tasks(parallelism) for block in task()]


def write(sink: Datasink, tasks: list[list[Any]], numbers: list[int] | None = None) -> None:
    """Write as Ray does where nothing fails; ``numbers`` in the order in which tasks end."""
    sink.on_write_start(tasks[0][0].schema if tasks and tasks[0] else None)
    made = [
        sink.write(iter(blocks), TaskContext(number, "Write"))
        for number, blocks in zip(numbers or range(len(tasks)), tasks, strict=True)
    ]
    rows = sum(block.num_rows for blocks in tasks for block in blocks)
    sink.on_write_complete(WriteResult(rows, 0, made))


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 4, 37, 100])
def test_tasks_read_everything_once(dataset: Dataset, parallelism: int) -> None:
    tasks = Datasource(dataset, ["n"]).get_read_tasks(parallelism)
    assert len(tasks) == min(parallelism, 37)
    found = [[n for block in task() for n in block["n"].to_pylist()] for task in tasks]
    assert [len(ns) for ns in found] == [task.metadata.num_rows for task in tasks]
    assert [n for ns in found for n in ns] == list(range(37))
    assert all(block.schema == task.schema for task in tasks for block in task())


@pytest.mark.parametrize("shuffle", ["global", "binwise"])
def test_an_order_is_the_one_of_pipelines(dataset: Dataset, shuffle: str) -> None:
    source = Datasource(dataset, ["n"], shuffle=shuffle, seed=3, epoch=2, window=2)
    wanted = list(make_order(dataset, shuffle, seed=3, epoch=2, window=2))
    assert [n for block in read(source, 5) for n in block["n"].to_pylist()] == wanted
    assert sorted(wanted) == list(range(37))


def test_columns_that_nobody_asks_for_are_not_read(dataset: Dataset) -> None:
    source = Datasource(dataset, ["text", "n"])
    assert source.supports_projection_pushdown()
    (block,) = read(source.apply_projection({"n": "n"}), 1)
    assert block.column_names == ["n"]
    # A table without columns has no rows: one column is kept to count by.
    (block,) = read(source.apply_projection({}), 1)
    assert block.num_rows == 37
    assert read(source, 1)[0].column_names == ["text", "n"]


def test_blocks_are_cut_by_rows_where_ray_says_so(dataset: Dataset) -> None:
    (task,) = Datasource(dataset, ["n"]).get_read_tasks(1, per_task_row_limit=5)
    assert sum(block.num_rows for block in task()) == 5


def test_nothing_is_one_empty_block(dataset: Dataset) -> None:
    (task,) = Datasource(dataset.subset([])).get_read_tasks(8)
    (block,) = task()
    assert (block.num_rows, task.metadata.num_rows) == (0, 0)
    assert block.column_names == list(SCHEMA)


def test_the_size_is_about_that_of_the_blocks(dataset: Dataset) -> None:
    source = Datasource(dataset, ["n", "picture"])
    # Eight bytes of a number, six of a picture, and where that one begins.
    assert source.estimate_inmemory_data_size() == pytest.approx(37 * 22, rel=0.3)


def test_a_missing_array_is_no_tensor() -> None:
    schema = Schema({"x": ndarray("uint8", (2,))})
    missing = dataset_of(MemoryRecords(schema, {"x": [np.zeros(2, np.uint8), None]}))
    with pytest.raises(FormatError, match="tensors=False"):
        read(Datasource(missing.subset([0]).concat(missing), tensors=True), 1)
    (block,) = read(Datasource(missing, tensors=False), 1)
    assert block["x"].to_pylist() == [[0, 0], None]


def test_what_cannot_be_read_is_refused_at_once(dataset: Dataset) -> None:
    with pytest.raises(FormatError, match="no column"):
        Datasource(dataset, ["lost"])
    with pytest.raises(FormatError, match="at least one"):
        Datasource(dataset, [])
    with pytest.raises(sp.GraphError):
        Datasource(dataset, shuffle="unknown")


# -- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tensors", [True, False])
def test_there_and_back(dataset: Dataset, tmp_path: Path, tensors: bool) -> None:
    blocks = [[block] for block in read(Datasource(dataset, tensors=tensors), 5)]
    path = tmp_path / "out"
    write(Datasink(path, SCHEMA), blocks, [3, 0, 4, 1, 2])
    found = sp.open_dataset(path)
    assert found.schema == SCHEMA
    # In the order of tasks, whichever ended first.
    bounds = [number * 37 // 5 for number in range(6)]
    wanted = [n for task in (1, 3, 4, 0, 2) for n in range(bounds[task], bounds[task + 1])]
    assert all(same(record(n), one) for n, one in zip(wanted, found, strict=True))
    assert sp.check_dataset(path).ok
    assert os.listdir(tmp_path) == ["out"]


def test_plain_values_there_and_back(tmp_path: Path) -> None:
    source = dataset_of(MemoryRecords(Schema("str"), {"data": ["a", None, "c"]}))
    write(Datasink(tmp_path / "out", source.schema), [read(Datasource(source), 1)])
    assert list(sp.open_dataset(tmp_path / "out")) == ["a", None, "c"]


def test_the_first_block_says_what_records_are(dataset: Dataset, tmp_path: Path) -> None:
    names = ["n", "text", "raw", "picture", "sound", "grid", "day", "took", "half", "flag"]
    write(Datasink(tmp_path / "out"), [[block] for block in read(Datasource(dataset, names), 3)])
    found = sp.open_dataset(tmp_path / "out")
    assert found.schema == Schema(
        {
            **{name: SCHEMA[name] for name in names},
            "grid": ndarray("int16", (None, None)),
        }
    )
    assert all(
        same({n: one[n] for n in names}, two) for one, two in zip(dataset, found, strict=True)
    )


@pytest.mark.parametrize("known", [True, False])
def test_keys_and_metadata_there_and_back(tmp_path: Path, known: bool) -> None:
    schema = Schema({"n": "int64", "text": "str"})
    with sp.DatasetWriter(tmp_path / "in", schema) as writer:
        for n in range(23):
            one = {"n": n, "text": None if n == 4 else f"t{n}"}
            writer.write(one, None if n == 3 else f"key {n}", {"a": [n]} if n % 2 else None)
    source = sp.open_dataset(tmp_path / "in")
    reading = Datasource(source, ["n", "text"], keys="key", metas="about")
    blocks = [[block] for block in read(reading, 4)]
    assert blocks[0][0].column_names == ["n", "text", "key", "about"]
    # Without a schema texts of JSON are texts: as metadata they are read.
    given = schema if known else None
    write(Datasink(tmp_path / "out", given, keys="key", metas="about"), blocks)
    found = sp.open_dataset(tmp_path / "out")
    assert (found.schema, list(found)) == (schema, list(source))
    assert (found.keys(), found.metas()) == (source.keys(), source.metas())
    assert found["key 7"] == {"n": 7, "text": "t7"}
    assert sp.check_dataset(tmp_path / "out").ok
    # What is added has neither, or keys that are new.
    plain = [read(Datasource(source), 1)]
    write(Datasink(tmp_path / "out", append=True), plain)
    assert sp.open_dataset(tmp_path / "out").keys()[23:] == [None] * 23
    with pytest.raises(FormatError, match="key 0"):
        write(Datasink(tmp_path / "out", append=True, keys="key", metas="about"), blocks)
    assert len(sp.open_dataset(tmp_path / "out")) == 46


def test_keys_of_plain_values_and_metadata_of_objects(tmp_path: Path) -> None:
    table = pa.table({"data": ["a", "b"], "key": ["x", "y"], "about": [{"a": 1}, {"a": None}]})
    write(Datasink(tmp_path / "out", "str", keys="key", metas="about"), [[table]])
    found = sp.open_dataset(tmp_path / "out")
    assert list(found) == ["a", "b"]
    assert (found["y"], found.metas()) == ("b", [{"a": 1}, {"a": None}])
    for options in ({"keys": "lost"}, {"keys": "key", "metas": "key"}):
        with pytest.raises(FormatError, match=r"lost|both"):
            write(Datasink(tmp_path / "two", **options), [[table]])
    with pytest.raises(FormatError, match="too"):
        Datasink(tmp_path / "two", {"key": "str"}, keys="key")


def test_an_attempt_that_nobody_tells_of_doubles_nothing(dataset: Dataset, tmp_path: Path) -> None:
    sink = Datasink(tmp_path / "out", Schema({"n": "int64"}))
    blocks = read(Datasource(dataset, ["n"]), 2)
    sink.on_write_start(blocks[0].schema)
    sink.write([blocks[0]], TaskContext(0, "Write"))  # its worker died before it could tell

    def half() -> Any:
        yield blocks[1].slice(0, 3)
        raise RuntimeError("the worker dies")

    with pytest.raises(RuntimeError):
        sink.write(half(), TaskContext(1, "Write"))
    made = [sink.write([block], TaskContext(at, "Write")) for at, block in enumerate(blocks)]
    sink.on_write_complete(WriteResult(37, 0, made))
    assert [one["n"] for one in sp.open_dataset(tmp_path / "out")] == list(range(37))
    assert os.listdir(tmp_path) == ["out"]


def test_parts_that_do_not_add_up_are_not_committed(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = Datasink(path, Schema({"n": "int64"}))
    (block,) = read(Datasource(dataset, ["n"]), 1)
    sink.on_write_start(block.schema)
    part = sink.write([block], TaskContext(0, "Write"))
    for rows, parts in [(38, [part]), (74, [part, part])]:
        with pytest.raises(PipelineError, match="nothing was committed"):
            sink.on_write_complete(WriteResult(rows, 0, parts))
    other = dataclasses.replace(part, rows=36)
    with pytest.raises(PipelineError, match="has 37 records"):
        sink.on_write_complete(WriteResult(36, 0, [other]))
    assert not path.exists()
    sink.on_write_failed(RuntimeError())
    assert os.listdir(tmp_path) == []


def test_nothing_is_a_dataset_too(tmp_path: Path) -> None:
    sink = Datasink(tmp_path / "out", Schema({"n": "int64"}))
    sink.on_write_complete(WriteResult(0, 0, []))
    assert len(sp.open_dataset(tmp_path / "out")) == 0


def test_adding_and_replacing(dataset: Dataset, tmp_path: Path) -> None:
    path, schema = tmp_path / "out", Schema({"n": "int64"})
    blocks = [read(Datasource(dataset, ["n"]), 1)]
    write(Datasink(path, schema), blocks)
    with pytest.raises(StorageError, match="append=True"):
        write(Datasink(path, schema), blocks)
    write(Datasink(path, append=True), blocks)
    assert len(sp.open_dataset(path)) == 74
    write(Datasink(path, schema, overwrite=True, bins=2), blocks)
    assert len(sp.open_dataset(path)) == 37
    with pytest.raises(FormatError, match="say schema="):
        write(Datasink(path, Schema({"n": "int32"}), append=True), blocks)
    assert len(sp.open_dataset(path)) == 37


def test_into_a_store(dataset: Dataset, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store/out"
    with pytest.raises(FormatError, match="parts_dir"):
        Datasink(url)
    blocks = [[block] for block in read(Datasource(dataset, ["n"]), 2)]
    write(Datasink(url, parts_dir=tmp_path / "parts"), blocks)
    found = sp.open_dataset(url, cache_dir=tmp_path / "cache")
    assert [one["n"] for one in found] == list(range(37))
    found.close()
    assert os.listdir(tmp_path / "parts") == []


def test_tasks_are_given_no_credentials(dataset: Dataset, tmp_path: Path) -> None:
    sink = Datasink(
        "s3://me:hunter2@bucket/out",
        Schema({"n": "int64"}),
        parts_dir=tmp_path,
        storage_options={"secret": "hunter3"},
    )
    travelling = pickle.dumps(sink)
    assert b"hunter" not in travelling
    # A node that does not see the folder of the parts says so, and makes none of its own.
    blocks = read(Datasource(dataset, ["n"]), 1)
    with pytest.raises(StorageError, match="parts_dir"):
        pickle.loads(travelling).write(blocks, TaskContext(0, "Write"))
    assert os.listdir(tmp_path) == []


def test_values_that_do_not_fit_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    (block,) = read(Datasource(dataset, ["n", "text"]), 1)
    with pytest.raises(FormatError, match="columns"):
        write(Datasink(tmp_path / "out", Schema({"n": "int64"})), [[block]])
    with pytest.raises(FormatError):
        write(Datasink(tmp_path / "two", Schema({"n": "int64", "text": "int64"})), [[block]])
    with pytest.raises(FormatError, match="pickled"):
        Datasink(tmp_path / "three", Schema({"n": "pickle"}))
    with pytest.raises(FormatError, match="not both"):
        Datasink(tmp_path / "four", append=True, overwrite=True)


def test_python_objects_are_never_unpickled() -> None:
    table = pa.table({"x": ArrowPythonObjectArray.from_objects([object(), 3])})
    with pytest.raises(FormatError, match="pickled Python objects"):
        schema_of(table.schema)
    with pytest.raises(FormatError, match="pickled Python objects"):
        columns_of(table, Schema({"x": "json"}))
    with pytest.raises(FormatError, match="only missing values"):
        schema_of(pa.schema({"x": pa.null()}))
