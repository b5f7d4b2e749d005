"""`cache`: the first epoch again, exactly, and never a part of it or a wrong byte."""

from __future__ import annotations

import errno
import math
import os
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import CacheFull, CorruptRecord, FormatError, GraphError, NotPicklable
from splitpipe.pipeline.stages.cache import Cache
from splitpipe.pipeline.stages.cache_file import CacheFile
from splitpipe.pipeline.stages.plain_bytes import decode, encode
from tests.pipeline.stages.driving import Watched, context_of, drive

ITEMS: list[Any] = [{"x": np.arange(3), "t": (1, "a")}, [1.5, None], b"bytes"]


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return (
            one.dtype == other.dtype
            and one.tobytes() == other.tobytes()
            and np.shape(one) == np.shape(other)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


def kinds(tmp_path: Path) -> list[Cache]:
    return [Cache(), Cache(str(tmp_path / "cache"), "abc123")]


@pytest.mark.parametrize("where", [0, 1], ids=["memory", "disk"])
def test_later_epochs_are_the_first_again_without_the_input(tmp_path: Path, where: int) -> None:
    cache, kept = kinds(tmp_path)[where], dict[str, Any]()
    assert not cache.complete(kept)
    context = context_of(cache, kept=kept)
    assert same(drive(cache, ITEMS, context=context), ITEMS)
    assert cache.complete(kept)
    assert context.measured["cached items"] == 3
    assert context.measured["cached bytes"] > 0
    for epoch in (1, 2):
        untouched = Watched(["other"])
        context = context_of(cache, epoch=epoch, kept=kept)
        made = drive(cache, untouched, context=context)
        assert same(made, ITEMS)
        assert (untouched.taken, context.measured["replayed items"]) == (0, 3)
        made[0]["x"][:] = 7  # who gets an item changes no one else's


@pytest.mark.parametrize("where", [0, 1], ids=["memory", "disk"])
def test_an_epoch_that_was_not_read_to_its_end_is_not_kept(tmp_path: Path, where: int) -> None:
    cache, kept = kinds(tmp_path)[where], dict[str, Any]()
    stream: Any = cache.run([iter(ITEMS)], context_of(cache, kept=kept))
    next(stream)
    stream.close()
    assert not cache.complete(kept)
    assert not list(tmp_path.rglob("*.items*"))
    assert same(drive(cache, ITEMS, context=context_of(cache, kept=kept)), ITEMS)
    assert cache.complete(kept)


@pytest.mark.parametrize("where", [0, 1], ids=["memory", "disk"])
def test_a_failing_input_leaves_nothing_behind(tmp_path: Path, where: int) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    cache, kept = kinds(tmp_path)[where], dict[str, Any]()
    with pytest.raises(KeyError):
        drive(cache, failing(), context=context_of(cache, kept=kept))
    assert not cache.complete(kept)
    assert not list(tmp_path.rglob("*.items*"))


@pytest.mark.parametrize("where", [0, 1], ids=["memory", "disk"])
def test_a_bound_is_kept(tmp_path: Path, where: int) -> None:
    directory, name = (None, None) if where == 0 else (str(tmp_path), "abc")
    items = [bytes(1000)] * 5
    with pytest.raises(CacheFull, match="would keep more than 2500 bytes") as caught:
        drive(Cache(directory, name, 2500), items)
    assert caught.value.errno == errno.ENOSPC
    stopping, kept = Cache(directory, name, 2500, "stop"), dict[str, Any]()
    for _ in range(2):
        assert drive(stopping, items, context=context_of(stopping, kept=kept)) == items
        assert not stopping.complete(kept)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotPicklable, match="a generator cannot be kept by 'stage'"):
        drive(Cache(), [(x for x in ())])
    with pytest.raises(FormatError, match=r"a set at \['a'\]\[0\] cannot be kept on disk"):
        drive(Cache(str(tmp_path), "abc"), [{"a": [{1}]}])
    with pytest.raises(GraphError, match="needs the fingerprint"):
        drive(Cache(str(tmp_path)), [1])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"full": "drop"}, "full must be one of raise, stop"),
        ({"max_bytes": -1}, "max_bytes must be"),
        ({"fingerprint": "../a"}, "letters and digits"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(GraphError, match=match):
        Cache(**arguments)


def test_one_writes_while_others_do_without(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), "abc")
    first = cache.run([iter(ITEMS)], context_of(cache))
    next(first)
    assert same(drive(cache, ITEMS), ITEMS)
    assert not cache.complete({})
    assert len(list(first)) == 2
    assert cache.complete({})
    assert [path.name for path in tmp_path.iterdir()] == ["cache-abc.items"]


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "cache-abc.items.unfinished").write_bytes(b"x" * 5000)
    cache = Cache(str(tmp_path), "abc")
    assert same(drive(cache, ITEMS), ITEMS)
    assert same(drive(cache, []), ITEMS)


def test_a_writer_that_comes_late_finds_the_file(tmp_path: Path) -> None:
    file = CacheFile(str(tmp_path), "abc")
    writer = file.writer()
    assert writer is not None
    writer.add(1)
    writer.finish()
    writer.abandon()  # nothing, by now
    assert file.writer() is None
    assert [item for item, _ in file.read()] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["cache-abc.items"]


def test_no_byte_may_be_wrong(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), "abc")
    drive(cache, ITEMS)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in (1, 128):
            path.write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
            with pytest.raises(FormatError, match="remove it, and it is made anew"):
                drive(cache, [])
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(FormatError, match=r"remove it|is no cache"):
            drive(cache, [])
    path.write_bytes(good + b"x")
    with pytest.raises(CorruptRecord, match="not where the file ends"):
        drive(cache, [])


class Evil:
    def __reduce__(self) -> Any:
        return os.abort, ()


def test_nothing_on_disk_is_ever_unpickled(tmp_path: Path) -> None:
    data = pickle.dumps(Evil())
    frame = struct.pack("<QI", len(data), google_crc32c.value(data)) + data
    (tmp_path / "cache-abc.items").write_bytes(b"splitpipe cache 1 abc\n" + frame)
    with pytest.raises(CorruptRecord, match="are no item"):
        drive(Cache(str(tmp_path), "abc"), [])


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters()),
    st.binary(),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int16, st.integers(-9, 9)),
    st.builds(np.datetime64, st.integers(0, 99), st.just("s")),
    st.builds(
        lambda shape, dtype: np.arange(math.prod(shape)).astype(dtype).reshape(shape),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from(("u1", "<f8", ">i4", "?", "S3", "U2", "c8")),
    ),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(
            st.one_of(st.integers(), st.tuples(st.text(max_size=2))), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


@given(values)
def test_bytes_are_the_value_again(value: Any) -> None:
    back = decode(bytearray(encode(value)))
    assert same(back, value)


def test_arrays_come_back_writable_and_aligned() -> None:
    back = decode(bytearray(encode({"a": np.arange(3, dtype="u1"), "b": np.arange(4.0)})))
    back["b"][0] = 5
    assert back["b"].ctypes.data % 8 == 0


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_are_an_item_or_an_error(data: bytes) -> None:
    for one in (data, struct.pack("<I", max(0, len(data) - 4)) + data):
        try:
            item = decode(one)
        except CorruptRecord:
            continue
        assert same(decode(encode(item)), item)


@pytest.mark.parametrize(
    "structure",
    [
        '["a","O",1]',
        '["a","<i4",-1]',
        '["a","<i4",1e3]',
        '["a","<i4",9999999999]',
        '["a","xyz",1]',
        '["b",-1]',
        '["b","x"]',
        '["b"]',
        '["q"]',
        "[]",
        '["d",1]',
        '["d",["l"],1]',
        '["c","x",1]',
        "{",
        "1 2",
        '"' + "[" * 9 + '" 3',
        "[" * 100000,
    ],
)
def test_structures_that_lie_are_told(structure: str) -> None:
    data = struct.pack("<I", len(structure)) + structure.encode()
    with pytest.raises(CorruptRecord):
        decode(data)


@dataclass
class Row:
    x: int


@pytest.mark.parametrize(
    "value", [Row(1), {1}, np.array([None]), np.zeros(1, "i4,f8"), [{"a": (Row(1),)}], len]
)
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="cannot be kept on disk without pickle"):
        encode(value)
