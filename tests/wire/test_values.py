"""Values come back as what they were; what cannot is refused with its place."""

from __future__ import annotations

import collections
import datetime
import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from splitpipe.errors import WireError
from splitpipe.wire.limits import Limits
from splitpipe.wire.packing import pack, unpack
from splitpipe.wire.values import decode, encode
from tests.wire.strategies import VALUES, same


class Colour(enum.IntEnum):
    RED = 1


class Named(str):
    __slots__ = ()


Pair = collections.namedtuple("Pair", "a b")
PADDED = np.dtype([("a", "i1"), ("b", "f8", (2, 3))], align=True)
APART = np.dtype({"names": ["x"], "formats": ["<f4"], "offsets": [8], "itemsize": 32})
ODD = [
    2**64,
    -(2**63) - 1,
    2**5000,
    [1, 2**80, {"a": [-(2**70)]}],
    {2**90: 1, "a": (1, (2, [3, (4,)]))},
    {(1, (2, 3)): np.arange(4)},
    {np.float32(1): 2, (): []},
    [(), [], {}, ((),)],
    [(), ()],
    np.zeros((3, 0, 2), ">f4"),
    np.array(5),
    np.arange(20_000)[::2],
    np.arange(10_000).reshape(100, 100).T,
    np.zeros(1_000, PADDED),
    np.zeros(3, APART),
    np.zeros(3, [("a", "U0")])["a"],
    np.zeros(3, "V7"),
    np.zeros((), PADDED)[()],
    np.datetime64("NaT"),
    np.array(["2020-01-01"], "M8[25s]"),
    np.longdouble(1) / 3,
    np.str_("a\0"),
    np.bytes_(b"a\0"),
    b"x" * 70_000,
    [b"x" * 70_000, b""],
    [{"a": 1, "b": "x"}, {"a": (1, 2)}],
    float("nan"),
    -0.0,
]


@given(VALUES)
def test_a_value_comes_back(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(VALUES)
def test_a_packed_value_comes_back(value: Any) -> None:
    assert same(unpack(pack(value)), value)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:30])
def test_odd_values_come_back(value: Any) -> None:
    assert same(decode(encode(value)), value)


def test_a_memory_map_is_an_array(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "data", "u1", "w+", shape=(9_000,))
    mapped[:] = 7
    found = decode(encode({"image": mapped}))["image"]
    assert type(found) is np.ndarray
    assert (found == 7).all()


class TestArrays:
    def test_a_large_one_is_not_copied_on_either_side(self) -> None:
        array = np.arange(1 << 20, dtype="u1")
        frames = encode({"image": array})
        assert len(frames) == 2
        assert np.shares_memory(np.frombuffer(frames[1], "u1"), array)
        assert np.shares_memory(decode(frames)["image"], array)

    def test_it_cannot_be_written_to(self) -> None:
        array = np.zeros(8192, "u1")
        for found in (decode(encode(array)), decode(encode(array[:3]))):
            with pytest.raises(ValueError, match="read-only"):
                found[0] = 1

    def test_a_small_one_keeps_no_frame(self) -> None:
        head = encode([np.arange(4), "x" * 3000])[0]
        found = decode([head])[0]
        assert not np.shares_memory(found, np.frombuffer(head, "u1"))

    def test_frames_of_four_kib(self) -> None:
        assert len(encode(np.zeros(4095, "u1"))) == 1
        assert len(encode(np.zeros(4096, "u1"))) == 2


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "place"),
        [
            ({"image": [1, 2, 3, {4}]}, "value['image'][3] is a set"),
            ({"image": [Colour.RED]}, "value['image'][0] is a Colour"),
            (Named("x"), "value is a Named"),
            ([Pair(1, 2)], "value[0] is a Pair"),
            ({"t": datetime.datetime(2020, 1, 1)}, "value['t'] is a datetime"),
            ({"t": collections.OrderedDict()}, "value['t'] is a OrderedDict"),
            ([bytearray(b"x")], "value[0] is a bytearray"),
            ({frozenset(): 1}, "a key of value is a frozenset"),
            ((1, [np.array([None])]), "value[1][0]: arrays of object hold references"),
            ([np.ma.zeros(3)], "value[0] is a MaskedArray"),
            ({"s": np.zeros(2, np.dtypes.StringDType())}, "value['s']: arrays of StringDType"),
            ({"a": ["\ud800"]}, "value['a'][0] is no valid text"),
            ([2**70, {1}], "value[1] is a set"),
            (object(), "value is a object"),
        ],
        ids=lambda value: None,
    )
    def test_it_names_the_place(self, value: Any, place: str) -> None:
        with pytest.raises(WireError) as caught:
            encode(value)
        assert str(caught.value).startswith(place)

    def test_depth(self) -> None:
        value: Any = []
        for _ in range(63):
            value = [value]
        assert same(decode(encode(value)), value)
        with pytest.raises(WireError, match="deeper than 64"):
            encode([[value]])
        with pytest.raises(WireError, match="deeper"):
            decode(encode(value), limits=Limits(depth=62))

    def test_a_value_inside_of_itself(self) -> None:
        value: list[Any] = []
        value.append(value)
        with pytest.raises(WireError, match="deep"):
            encode(value)

    def test_bytes_and_frames(self) -> None:
        with pytest.raises(WireError, match="limits are 1000 bytes"):
            encode(np.zeros(5000), limits=Limits(nbytes=1000))
        with pytest.raises(WireError, match="in 3 frames"):
            encode([np.zeros(5000)] * 2, limits=Limits(frames=2))
        with pytest.raises(WireError, match="limits are 1000 bytes"):
            encode("x" * 2000, limits=Limits(nbytes=1000))
        with pytest.raises(WireError, match="1000 is the limit"):
            decode(encode(np.zeros(5000)), limits=Limits(nbytes=1000))
        with pytest.raises(WireError, match="it takes 1 to 2"):
            decode(encode([np.zeros(5000)] * 2), limits=Limits(frames=2))

    def test_elements(self) -> None:
        frames = encode(list(range(100)))
        assert decode(frames, limits=Limits(elements=101)) == list(range(100))
        with pytest.raises(WireError, match="more than 100 values"):
            decode(frames, limits=Limits(elements=100))


FORGED = [
    b"",
    b"\x01",
    b"\x03\xc0",
    b"\x01\xc0\xc0",
    b"\x01\xc1",
    b"\x01\xdd\xff\xff\xff\xff",
    b"\x01\xdf\xff\xff\xff\xff\x01",
    b"\x01\xc6\xff\xff\xff\xff",
    b"\x01" + b"\x91" * 1_000_000,
    b"\x01" + b"\x91" * 65 + b"\xc0",
    b"\x01\xa1\xff",
    b"\x01\x81\x80\x01",
    b"\x02\x81\x90\x01",  # a key that is a list
    b"\x01\xd6\xff\0\0\0\0",
    b"\x01\xc7\x0c\xff" + bytes(12),
    b"\x01\xd4\x63\x00",
    b"\x01\xc7\x00\x08",  # a mark in the form that has none
    b"\x02\xc7\x00\x08",  # a mark outside of a list
    b"\x02\x92\x01\xc7\x00\x08",  # not at its beginning
    b"\x02\x92\xc7\x00\x09\x01",  # a key without a value
    b"\x02\x93\xc7\x00\x09\x90\x01",  # a key that is a list
    b"\x01\xd4\x01\x00",
    b"\x01\xd6\x02\x01\0\0\0",
    b"\x01\xd6\x07\x00\0\0\0",
    b"\x01\xd6\x07\xff\xff\xff\xff",
    b"\x01\xd4\x04\xff",
]
"""Bytes that no encoder of ours makes."""


class TestForged:
    @pytest.mark.parametrize("head", FORGED, ids=lambda head: repr(head[:12]))
    def test_is_refused(self, head: bytes) -> None:
        with pytest.raises(WireError):
            decode([head])

    def test_no_frames(self) -> None:
        with pytest.raises(WireError, match="0 frames"):
            decode([])

    def test_an_array_that_says_it_is_longer(self) -> None:
        frames = encode({"image": np.zeros((100, 100), "u1")})
        assert decode([frames[0], bytes(10_000)])["image"].shape == (100, 100)
        for size in (0, 9_999, 10_001):
            with pytest.raises(WireError, match="bytes for an array of uint8"):
                decode([frames[0], bytes(size)])

    def test_one_that_is_of_objects(self) -> None:
        head = bytes(encode(np.zeros(1, "<f8"))[0])
        assert b"<f8" in head
        for other in (b"|O8", b"<O8", b"O,O", b"1f8", b"<z8"):
            with pytest.raises(WireError, match="not a type of arrays"):
                decode([head.replace(b"<f8", other)])
