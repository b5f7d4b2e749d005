"""Trees: what is written in C comes back as pickle would bring it, in C and in Python."""

from __future__ import annotations

import gc
import math
import pickle
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from splitpipe.transport.envelope import OUT_OF_BAND, Packer, unpack
from splitpipe.transport.native import twin
from splitpipe.transport.native.twin import MARK, PLACE

native: ModuleType | None
try:
    from splitpipe.transport.native import _kernel as native
except ImportError:
    native = None

LIMIT = 64
READERS = [
    pytest.param(twin.read, id="python"),
    pytest.param(
        None if native is None else native.read,
        id="native",
        marks=pytest.mark.skipif(native is None, reason="trees in C are not built here"),
    ),
]
WRITERS = [twin.write, getattr(native, "write", None)]
Read = Callable[..., Any]
needs_native = pytest.mark.skipif(native is None, reason="trees in C are not built here")


def written(value: object, limit: int = LIMIT) -> tuple[bytes, bytes, list[Any]] | None:
    """The stream of `value` and where its large arrays are, each in a segment of its own."""
    assert native is not None
    found = native.write(value, limit, ())
    if found is None:
        return None
    stream, places, outside, nbytes = found
    held, complete = [], bytearray(places)
    for number, array in outside or []:
        held.append(np.frombuffer(bytearray(array.tobytes(order="A")), np.uint8))
        PLACE.pack_into(complete, number * PLACE.size, len(held), 0, array.nbytes)
    assert nbytes == sum(one.nbytes for one in held)
    return stream, bytes(complete), held


def back(read: Read, value: object) -> Any:
    found = written(value)
    assert found is not None, f"not plain: {value!r}"
    return read(*found)


def shape_of(value: Any, seen: dict[int, int] | None = None) -> Any:
    """All that can be told of a value, with a number for each object that comes again."""
    seen = {} if seen is None else seen
    kind = type(value).__name__
    if isinstance(value, (list, dict, np.ndarray)):
        if id(value) in seen:
            return "again", seen[id(value)]
        seen[id(value)] = len(seen)
    if isinstance(value, np.ndarray):
        flags = value.flags
        about = flags.c_contiguous, flags.f_contiguous, flags.aligned
        return kind, value.dtype.str, value.dtype.char, value.shape, about, value.tobytes()
    if isinstance(value, dict):
        return kind, [(shape_of(key, seen), shape_of(one, seen)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [shape_of(one, seen) for one in value]
    if isinstance(value, np.generic):
        return kind, value.dtype.char, repr(value)
    return kind, math.copysign(1, value) if kind == "float" else None, repr(value)


def pickled(value: object) -> Any:
    buffers: list[pickle.PickleBuffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < LIMIT:
            return True
        buffers.append(buffer)
        return False

    stream = pickle.dumps(value, 5, buffer_callback=keep)
    return pickle.loads(stream, buffers=[bytearray(one.raw()) for one in buffers])


LETTERS = "?bBhHiIlLefdgFDG"


def _array(letter: str, shape: list[int], order: str, writeable: bool) -> Any:
    count = math.prod(shape)
    array = np.asarray(np.arange(count).reshape(shape) % 2, letter, order=order)  # type: ignore[call-overload]
    array.flags.writeable = writeable
    return array


arrays = st.builds(
    _array,
    st.sampled_from(LETTERS),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from("CF"),
    st.booleans(),
)
scalars = st.builds(
    lambda letter, one: np.dtype(letter).type(one), st.sampled_from(LETTERS), st.integers(0, 1)
)
atoms = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=True)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | scalars
)
keys = (
    st.text(max_size=3) | st.integers(-9, 9) | st.tuples(st.integers(0, 3), st.binary(max_size=2))
)
values = st.recursive(
    atoms | arrays,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | inner.map(lambda one: [one, one, {"again": one}])
    ),
    max_leaves=12,
)


@needs_native
@pytest.mark.parametrize("read", READERS)
@hypothesis.given(value=values)
def test_comes_back_as_pickle_brings_it(read: Read, value: Any) -> None:
    assert shape_of(back(read, value)) == shape_of(pickled(value))


@needs_native
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("nbytes", [LIMIT - 1, LIMIT])
def test_arrays_are_their_reader_s_own(read: Read, nbytes: int) -> None:
    array = np.zeros(nbytes, np.uint8)
    array.flags.writeable = False
    got = back(read, [array])[0]
    got += 1
    assert array.sum() == 0


class Talkative(np.float64):
    """A number that runs code when it is asked what it is."""

    @property
    def dtype(self) -> Any:
        raise AssertionError("asked")


@needs_native
def test_nobody_s_code_is_run() -> None:
    assert written([Talkative(1)]) is None


@needs_native
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("letter", "qQ")
def test_numbers_that_pickle_takes_for_others(read: Read, letter: str) -> None:
    """On systems where there are two kinds of 64 bits, pickle makes one of them."""
    array, scalar = back(read, [np.zeros(3, letter), np.dtype(letter).type(1)])
    assert array.dtype.char == np.dtype(type(scalar)).char == letter


@needs_native
@pytest.mark.parametrize("read", READERS)
class TestWhatIsOneObject:
    def test_stays_one(self, read: Read) -> None:
        inner, array, name = [1], np.arange(3), "".join(["some ", "name"])
        got = back(read, [inner, {"a": inner, "b": (array, array)}, name, name])
        assert got[0] is got[1]["a"]
        assert got[1]["b"][0] is got[1]["b"][1]
        assert got[2] is got[3]

    def test_a_large_array_travels_once(self, read: Read) -> None:
        array = np.arange(1000.0)
        found = written((array, array))
        assert found is not None
        assert len(found[2]) == 1
        first, second = read(*found)
        assert first is second

    def test_in_itself(self, read: Read) -> None:
        circle: list[Any] = [0]
        circle += [circle, {"me": circle}]
        got = back(read, circle)
        assert got[1] is got
        assert got[2]["me"] is got

    def test_a_tuple_in_itself_is_left_to_pickle(self, read: Read) -> None:
        del read
        inner: list[Any] = []
        around = (inner,)
        inner.append(around)
        assert written(around) is None

    def test_a_tuple_twice_is_one(self, read: Read) -> None:
        pair = (1.5, "x")
        got = back(read, [pair, pair])
        assert got[0] is got[1]

    def test_more_than_fit_into_a_small_table(self, read: Read) -> None:
        ones = [[number] for number in range(1000)]
        got = back(read, [ones, ones[::-1]])
        assert all(a is b for a, b in zip(got[0], got[1][::-1], strict=True))


class Mine(list[int]):
    pass


@dataclass
class Record:
    x: int


Point = namedtuple("Point", "x y")


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NOT_PLAIN: list[Any] = [
    Mine([1]),
    Record(1),
    Point(1, 2),
    {1, 2},
    frozenset({1}),
    bytearray(b"x"),
    OrderedDict(a=1),
    2**63,
    -(2**63) - 1,
    "\ud800",
    object,
    len,
    range(3),
    slice(1),
    np.array([None]),
    np.zeros(2, "i4,f4"),
    np.zeros(2, ">i4"),
    np.zeros(2, "M8[s]"),
    np.zeros(2, "U3"),
    np.zeros(2, np.dtype("f4", metadata={"unit": "m"})),
    np.zeros((4, 4))[:, 1:3],
    np.zeros(3).view(np.recarray),
    np.ma.zeros(3),
    np.datetime64(1, "s"),
    np.str_("x"),
    np.void(b"1234"),
    _deep(201),
]


@needs_native
@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_not_plain_is_left_to_pickle(value: Any) -> None:
    assert written(value) is None
    assert written([1, {"deep": (value,)}]) is None
    packer = Packer(None)
    packer.add([value, 1])
    (got,) = unpack(b"".join(packer.pack()), None)
    assert type(got[0]) is type(value)


@needs_native
@pytest.mark.parametrize("read", READERS)
def test_as_deep_as_may_be(read: Read) -> None:
    value = _deep(198)
    assert back(read, value) == value


@needs_native
@pytest.mark.parametrize(
    "write", [twin.write, getattr(native, "write", None)], ids=["python", "native"]
)
class TestPlaces:
    def test_in_a_span(self, write: Callable[..., Any]) -> None:
        memory = np.ones(5000, np.uint8)
        address = memory.__array_interface__["data"][0]
        array = memory[1000:1512].view("float64").reshape(8, 8)
        stream, places, outside, nbytes = write(array, LIMIT, (1, 2, address, 5000))
        assert PLACE.unpack(places) == (2, 1000, 512)
        assert outside is None
        assert nbytes == 512
        assert not array.flags.writeable
        for read in (one.values[0] for one in READERS):
            got = read(stream, places, [np.empty(0, np.uint8), memory])
            assert np.array_equal(got, array)
            assert np.shares_memory(got, memory)
            assert got.flags.writeable

    @pytest.mark.parametrize("span", [(0, 100), (1, 511), (-512, 1023), (512, 4000)])
    def test_not_wholly_in_it(self, write: Callable[..., Any], span: tuple[int, int]) -> None:
        array = np.zeros(512, np.uint8)
        begin = array.__array_interface__["data"][0] + span[0]
        _, places, outside, _ = write(array, LIMIT, (begin, span[1]))
        assert PLACE.unpack(places) == (0, 0, 512)
        assert outside[0][0] == 0
        assert outside[0][1] is array
        assert array.flags.writeable

    def test_small_ones_have_none(self, write: Callable[..., Any]) -> None:
        found = write(np.zeros(LIMIT - 1, np.uint8), LIMIT, ())
        assert found is None or found[1:] == (b"", None, 0)

    def test_both_write_an_array_alike(self, write: Callable[..., Any]) -> None:
        for letter in LETTERS:
            for order in "CF":
                array = np.ones((7, 70), letter, order=order)  # type: ignore[call-overload]
                stream, places, _, _ = write(array, LIMIT, ())
                expected = twin.write(array, LIMIT, ())
                assert expected is not None
                # The one in C gives it a number, since the test refers to it as well.
                assert bytes([stream[0], stream[1] & 0x7F]) + stream[2:] == expected[0]
                assert places == expected[1]


def _outcome(read: Read, found: tuple[bytes, bytes, list[Any]]) -> Any:
    try:
        return shape_of(read(*found))
    except (ValueError, TypeError) as error:
        # Of unhashable keys Python tells, in its own words.
        return type(error) if isinstance(error, TypeError) else ValueError


@needs_native
@hypothesis.settings(max_examples=400)
@hypothesis.given(value=values, data=st.data())
def test_both_say_the_same_of_broken_streams(value: Any, data: st.DataObject) -> None:
    found = written(value)
    assert found is not None
    stream, places, held = found
    broken = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"(", b"[", b"r\0\0\0\0", b"A", b"\xdb"])
        )
        if not broken:
            break
    spoilt = bytearray(places)
    if spoilt and data.draw(st.booleans()):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    one, other = (
        _outcome(read, (bytes(broken), bytes(spoilt), held))
        for read in (one.values[0] for one in READERS)
    )
    assert one == other


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("stream", "places"),
    [
        (b"", b""),
        (b"A", b""),
        (MARK, b""),
        (MARK + b"NN", b""),
        (MARK + b"N", bytes(24)),
        (MARK + b"?", b""),
        (MARK + b"r\0\0\0\0", b""),
        (MARK + b"[\xff\xff\xff\xff", b""),
        (MARK + b"a\1\0\0\0\xff", b""),
        (MARK + b"\xa8\1\0\0\0r\0\0\0\0", b""),  # a tuple in itself
        (MARK + b"Ax\0\0", b""),
        (MARK + b"Ad\0\1" + b"\xff" * 8, b""),
        (MARK + b"Ad\0\2" + (b"\0" * 7 + b"\x7f") * 2, b""),
        (MARK + b"AB\2\1\5" + bytes(7), b""),
        (MARK + b"AB\2\1\5" + bytes(7), PLACE.pack(0, 0, 5)),
        (MARK + b"AB\2\1\5" + bytes(7), PLACE.pack(2, 0, 5)),
        (MARK + b"AB\2\1\5" + bytes(7), PLACE.pack(1, 0, 4)),
        (MARK + b"AB\2\1\5" + bytes(7), PLACE.pack(1, 96, 5)),
        (MARK + b"AB\2\1\5" + bytes(7), PLACE.pack(1, 2**64 - 2, 5)),
        (MARK + b"[\1\0\0\0" * 250 + b"N", b""),
    ],
)
def test_a_broken_stream_is_an_error(read: Read, stream: bytes, places: bytes) -> None:
    with pytest.raises(ValueError, match=r"fault of splitpipe|decode"):
        read(stream, places, [np.zeros(100, np.uint8)])


@needs_native
@pytest.mark.parametrize("shape", [(2**53, 0, 4), (0, 2**60), (2**40, 2**40, 0), (0, -1)])
def test_both_say_the_same_of_arrays_of_nothing(shape: tuple[int, ...]) -> None:
    lengths = b"".join(length.to_bytes(8, "little", signed=True) for length in shape)
    stream = MARK + b"Ad\0" + bytes([len(shape)]) + lengths
    outcomes = [_outcome(read.values[0], (stream, b"", [])) for read in READERS]
    assert outcomes[0] == outcomes[1]


@needs_native
def test_nothing_is_left_behind() -> None:
    inner, array = ["x"], np.zeros(100)
    value = {"a": [inner, inner], "b": (array, array), "c": np.float32(3), "d": 5000}
    half = (*value.values(), object())
    found = written(value)
    assert found is not None
    assert native is not None
    counts = [sys.getrefcount(one) for one in (inner, array, value, found[2][0])]

    def often() -> int:
        for _ in range(200):
            native.write(value, LIMIT, ())
            native.write(half, LIMIT, ())
            native.read(*found)
            for end in range(len(found[0])):
                with pytest.raises(ValueError, match="tree"):
                    native.read(found[0][:end], *found[1:])
        gc.collect()
        return sys.getallocatedblocks()

    often()
    before = often()
    assert often() - before < 50
    assert [sys.getrefcount(one) for one in (inner, array, value, found[2][0])] == counts


def test_items_of_any_size_pass_through_a_packer() -> None:
    packer = Packer(None)
    values = [np.zeros(OUT_OF_BAND), {"x": np.ones(OUT_OF_BAND), "y": [1, "two", None]}, "three"]
    for value in values:
        packer.add(value)
    assert shape_of(unpack(b"".join(packer.pack()), None)) == shape_of(values)
