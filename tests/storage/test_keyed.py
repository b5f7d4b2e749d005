"""Plain records with keys and metadata, many at a time: the same as one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from splitpipe.dataset import open_dataset
from splitpipe.errors import FormatError
from splitpipe.storage import DatasetWriter, check_dataset
from splitpipe.storage.buffer import _BLOCK_ROWS

COUNT = 2 * _BLOCK_ROWS + 700

Shape = Callable[[Sequence[Any]], Any]
SHAPES: list[Shape] = [list, tuple, iter]


def records(count: int = COUNT) -> list[bytes]:
    return [b"%d" % n * (n % 3) for n in range(count)]


def keys(count: int = COUNT) -> list[str | None]:
    return [None if n % 11 == 0 else f"key {n}" for n in range(count)]


def metas(count: int = COUNT) -> list[dict[str, Any] | None]:
    return [None if n % 7 == 0 else {"size": n, "odd": n % 2 == 1} for n in range(count)]


def assert_keyed(path: Path, count: int = COUNT) -> None:
    with open_dataset(path) as ds:
        assert list(ds) == records(count)
        assert ds.keys() == keys(count)
        for row in (*range(0, count, 997), count - 1):
            assert ds.meta(row) == (metas(count)[row] or {})
            key = keys(count)[row]
            assert key is None or ds[key] == records(count)[row]
        some = ds.where("size >= 10 AND size < 20 AND odd")
        assert list(some) == [records()[n] for n in (11, 13, 15, 17, 19)]
    assert check_dataset(path).ok


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bins", [2, 64])
def test_many_at_once(tmp_path: Path, shape: Shape, bins: int) -> None:
    declared = {"size": "int64", "odd": "bool"}
    with DatasetWriter(tmp_path / "ds", bins=bins, metadata=declared) as writer:
        writer.write_many(shape(records()), shape(keys()), shape(metas()))
    assert_keyed(tmp_path / "ds")


def test_in_pieces_and_one_by_one(tmp_path: Path) -> None:
    declared = {"size": "int64", "odd": "bool"}
    r, k, m = records(), keys(), metas()
    with DatasetWriter(tmp_path / "ds", metadata=declared) as writer:
        writer.write_many(r[:5], k[:5], m[:5])
        for row in range(5, 20):
            writer.write(r[row], k[row], m[row])
        writer.write_many(iter(r[20:9000]), k[20:9000], iter(m[20:9000]))
        writer.commit()
        writer.write_many(r[9000:], k[9000:], m[9000:])
    assert_keyed(tmp_path / "ds")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at", [0, 3, _BLOCK_ROWS - 1, _BLOCK_ROWS, _BLOCK_ROWS + 600])
def test_what_came_before_a_key_that_is_there_is_added(
    tmp_path: Path, shape: Shape, at: int
) -> None:
    given: list[str | None] = [f"key {n}" for n in range(COUNT)]
    given[at] = "first"
    with DatasetWriter(tmp_path / "ds") as writer:
        writer.write(b"first", key="first")
        with pytest.raises(FormatError, match="'first' is there already"):
            writer.write_many(shape(records()), shape(given))
        assert writer.rows == 1 + at
    with open_dataset(tmp_path / "ds") as ds:
        assert ds.keys() == ["first", *given[:at]]
        assert list(ds) == [b"first", *records()[:at]]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_came_before_a_value_of_another_type_is_added(tmp_path: Path, shape: Shape) -> None:
    given: list[Any] = records(_BLOCK_ROWS + 40)
    given[_BLOCK_ROWS + 20] = "text"
    with DatasetWriter(tmp_path / "ds") as writer:
        with pytest.raises(FormatError, match=f"record {_BLOCK_ROWS + 20}: .* encode it first"):
            writer.write_many(shape(given), shape(keys(len(given))))
        assert writer.rows == _BLOCK_ROWS + 20
    with open_dataset(tmp_path / "ds") as ds:
        assert list(ds) == given[: _BLOCK_ROWS + 20]
        assert ds.keys() == keys(_BLOCK_ROWS + 20)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fewer", ["records", "keys", "metas"])
def test_nothing_is_left_out_without_a_word(tmp_path: Path, shape: Shape, fewer: str) -> None:
    count = {name: 2 if name == fewer else 3 for name in ("records", "keys", "metas")}
    parts = [records()[1 : 1 + count["records"]], ["a", "b", "c"][: count["keys"]]]
    with DatasetWriter(tmp_path / "ds") as writer:
        with pytest.raises(FormatError, match="as many as records"):
            writer.write_many(*map(shape, parts), shape([{}] * count["metas"]))
        # Lists are looked at before anything is added; of iterators, what came before is.
        assert writer.rows == (2 if shape is iter else 0)
        with pytest.raises(FormatError, match="as many as records"):
            writer.write_many(shape([b"x"]), None, shape([None, None]))


def test_keys_that_are_demanded_or_made(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "auto", keys="auto") as writer:
        writer.write_many(records(), [None] * COUNT)
        writer.write_many(records(10))
    with open_dataset(tmp_path / "auto") as ds:
        assert len(set(ds.keys())) == COUNT + 10
        assert None not in ds.keys()  # noqa: SIM118 - a method, and no mapping
    with DatasetWriter(tmp_path / "demanded", keys=True) as writer:
        with pytest.raises(FormatError, match="record 0 has no key"):
            writer.write_many(records(), keys())
        with pytest.raises(FormatError, match="record 10 has no key"):
            writer.write_many(records(12)[1:], keys(12)[1:])
        assert writer.rows == 10
