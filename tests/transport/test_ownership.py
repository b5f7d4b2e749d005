"""Whose a value is: what passes to another thread as it is, and what is copied."""

from __future__ import annotations

import enum
import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from splitpipe.errors import BrokenChannel, NotPicklable
from splitpipe.transport.envelope import Packer, release, unpack
from splitpipe.transport.objects import ObjectPacker, Shelf
from splitpipe.transport.ownership import COUNTED, constant, contents
from tests.runtime.comparing import Point, all_frozen, frozen, kinds

counted = pytest.mark.skipif(not COUNTED, reason="counts of references say nothing here")


@dataclass
class Record:
    x: Any
    y: Any = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    x: Any
    y: Any = None


class Heir(Record):
    pass


class Matrix(np.ndarray[Any, Any]):
    pass


class Colour(enum.Enum):
    RED = 1


class Way:
    """A packer, and the loop that leads to it."""

    def __init__(self) -> None:
        self.shelf = Shelf(1 << 20)
        self.packer = ObjectPacker(self.shelf)
        self.packer.calibrate(self.feed)

    def feed(self, items: Iterator[Any]) -> None:
        for item in items:
            self.packer.add(item)
            del item

    def through(self, items: Iterator[Any]) -> list[Any]:
        self.feed(items)
        return unpack(b"".join(self.packer.pack()), self.shelf)


OURS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(10),
    "fortran": lambda: np.zeros((3, 4), order="F"),
    "view of nothing else": lambda: np.arange(10)[::3],
    "transposed": lambda: np.zeros((3, 4, 5)).T[1],
    "over bytes": lambda: np.frombuffer(bytes(8), np.uint8),
    "empty": lambda: np.empty((0, 3)),
    "dict": lambda: {"x": np.arange(5), "name": "a", "n": [1, {"m": np.ones(2)}]},
    "keys": lambda: {(1, "a"): [1], Colour.RED: [2]},
    "list": lambda: [np.arange(5), [], {}],
    "tuple": lambda: (np.arange(5), 1),
    "named": lambda: Point([1], np.arange(2)),
    "set": lambda: {1, (2, 3)},
    "deque": lambda: deque([np.arange(3)]),
    "bytearray": lambda: bytearray(10),
    "dataclass": lambda: Record(np.arange(5), {"a": [1]}),
    "slots": lambda: Slotted(np.arange(5), [2]),
    "heir": lambda: Heir(np.arange(5)),
    "window on bytes": lambda: memoryview(bytes(5)),
}


@counted
@pytest.mark.parametrize("name", OURS)
def test_what_nobody_else_holds_passes_as_it_is(name: str) -> None:
    numbers = []

    def made() -> Any:
        value = OURS[name]()
        numbers.append(id(value))
        return value

    way = Way()
    got = way.through(made() for _ in range(3))
    assert [id(value) for value in got] == numbers


CONSTANT = [None, 5, "text", b"bytes", 0.5, (1, ("a", None)), range(3), np.float32(2), Colour.RED,
            frozenset({1, (2,)}), Point(1, "a"), np.datetime64("2026-01-01"), ...]  # fmt: skip


def test_what_cannot_change_passes_as_it_is_however_many_hold_it() -> None:
    got = Way().through(iter(CONSTANT))
    assert all(one is other for one, other in zip(got, CONSTANT, strict=True))
    assert all(constant(value) is not None for value in CONSTANT)


BASE = np.arange(100)
MAP = mmap.mmap(-1, 4096)


def held_itself() -> Iterator[Any]:
    value = np.arange(5)
    yield value
    value += 1


def held_part() -> Iterator[Any]:
    part = [1]
    yield {"a": {"b": part}}
    part.append(2)


def held_by_two() -> Iterator[Any]:
    outer = [[1]]
    yield (outer, 5)
    outer[0].append(2)


def held_in_a_tuple() -> Iterator[Any]:
    pair = ([1],)
    yield pair
    pair[0].append(2)


def held_weakly() -> Iterator[Any]:
    weak: Any = None

    def made() -> Any:
        nonlocal weak
        array = np.arange(5)
        weak = weakref.ref(array)
        return array

    yield [made()]
    array = weak()
    if array is not None:
        array += 1


def held_view() -> Iterator[Any]:
    view: Any = None

    def made() -> Any:
        nonlocal view
        array = np.arange(5)
        view = array[2:]
        return array

    yield made()
    view += 1


def held_base() -> Iterator[Any]:
    yield BASE[10:20]
    BASE[15] += 1


def held_memory() -> Iterator[Any]:
    memory = bytearray(80)
    yield np.frombuffer(memory, np.int64)
    memory[0] += 1


def mapped() -> Iterator[Any]:
    yield np.frombuffer(MAP, np.uint8)[:10]
    MAP[0] = (MAP[0] + 1) % 256


def held_bytearray() -> Iterator[Any]:
    memory = bytearray(5)
    yield memory
    memory[0] = 1


def held_window() -> Iterator[Any]:
    window: Any = None

    def made() -> Any:
        nonlocal window
        memory = bytearray(5)
        window = memoryview(memory)
        return memory

    yield made()
    window[0] = 1


def held_attributes() -> Iterator[Any]:
    state: Any = None

    def made() -> Any:
        nonlocal state
        record = Record(1)
        state = vars(record)
        return record

    yield made()
    state["x"] = 2


def held_slot() -> Iterator[Any]:
    part = np.arange(5)
    yield Slotted(part)
    part += 1


def held_in_objects() -> Iterator[Any]:
    part = [1]
    array = np.empty(2, object)
    array[0] = part
    del array
    made = np.array([None, None], object)
    made[1] = part
    yield made
    part.append(2)


def held_shape() -> Iterator[Any]:
    array = np.frombuffer(bytes(6), np.uint8)
    yield array
    array.resize((2, 3), refcheck=False)


def tensors() -> Iterator[Any]:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(10)
    yield tensor[2:5]
    tensor += 1
    array = np.zeros(10)
    yield {"over numpy": torch.from_numpy(array)}
    array += 1
    yield torch.ones(3).numpy()
    view: Any = None

    def made() -> Any:
        nonlocal view
        tensor = torch.zeros(10)
        view = tensor[3:]
        return tensor

    yield made()
    view += 1


@lru_cache
def _remembered() -> Any:
    return [1]


def remembered() -> Iterator[Any]:
    yield _remembered()
    _remembered().append(2)


def zipped() -> Iterator[Any]:
    part = [1]
    yield from zip([part], [2], strict=True)
    part.append(2)


def same_again() -> Iterator[Any]:
    buffer = np.zeros(3000, np.uint8)
    for number in range(3):
        buffer[:] = number
        yield buffer


def subclass() -> Iterator[Any]:
    matrix = np.zeros(3).view(Matrix)
    yield matrix
    matrix += 1


def named() -> Iterator[Any]:
    point = Point([1], 2)
    yield point
    point.x.append(3)


MAKERS = [held_itself, held_part, held_by_two, held_in_a_tuple, held_weakly, held_view, held_base,
          held_memory, mapped, held_bytearray, held_window, held_attributes, held_slot,
          held_in_objects, held_shape, remembered, zipped, same_again, subclass, named,
          tensors]  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_what_its_maker_does_afterwards_changes_nothing(
    maker: Callable[[], Iterator[Any]],
) -> None:
    expected = []

    def watched() -> Iterator[Any]:
        for value in maker():
            expected.append(content(value))
            yield value
            del value

    assert [content(value) for value in Way().through(watched())] == expected
    _remembered.cache_clear()


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_makers_do_change_what_they_gave(maker: Callable[[], Iterator[Any]]) -> None:
    """Otherwise the test above would say nothing."""
    before, values = [], []
    for value in maker():
        before.append(content(value))
        values.append(value)
    assert [content(value) for value in values] != before
    _remembered.cache_clear()


def test_every_kind_comes_as_it_is() -> None:
    for hold in (kinds(), []):
        assert all_frozen(Way().through(iter(kinds()))) == all_frozen(kinds())
        assert all_frozen(Way().through(iter(hold))) == all_frozen(hold)


def test_one_value_twice_is_two_for_the_reader() -> None:
    first, second = Way().through(repeat(np.zeros(5), 2))
    first += 1
    assert second.sum() == 0


# --- anything that anybody makes, holds, and changes ------------------------------------------


@dataclass
class Recipe:
    """How to make a value, and which parts of it its maker keeps."""

    kind: str
    parts: list[Recipe]
    keep: bool

    def make(self, kept: list[Any]) -> Any:
        value = self._made([part.make(kept) for part in self.parts])
        if self.keep:
            kept.append(value)
        return value

    def _made(self, parts: list[Any]) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "array": lambda: np.arange(len(parts) + 300),
            "view": lambda: np.arange(600)[:: len(parts) + 1],
            "bytes": lambda: bytearray(9),
            "text": lambda: "text",
            "list": lambda: parts,
            "tuple": lambda: tuple(parts),
            "dict": lambda: dict(enumerate(parts)),
            "deque": lambda: deque(parts),
            "record": lambda: Record(parts),
            "slots": lambda: Slotted(*parts[:1] or [0], parts[1:]),
            "window": lambda: [np.frombuffer(memoryview(bytearray(16)), np.uint8), *parts],
            "twice": lambda: [parts, parts],
        }
        return makers[self.kind]()


KINDS = ["array", "view", "bytes", "text", "list", "tuple", "dict", "deque", "record", "slots",
         "window", "twice"]  # fmt: skip
recipes = st.recursive(
    st.builds(Recipe, st.sampled_from(KINDS), st.just([]), st.booleans()),
    lambda inner: st.builds(
        Recipe, st.sampled_from(KINDS[4:]), st.lists(inner, max_size=3), st.booleans()
    ),
    max_leaves=8,
)


def change(value: Any) -> None:
    """Change everything that can be reached from `value`."""
    if isinstance(value, np.ndarray):
        value += 1
    elif isinstance(value, bytearray):
        value[0] += 1
    elif isinstance(value, (list, deque)):
        for part in value:
            change(part)
        value.append("changed")
    elif isinstance(value, tuple):
        for part in value:
            change(part)
    elif isinstance(value, dict):
        for part in value.values():
            change(part)
        value["changed"] = 1
    elif isinstance(value, (Record, Slotted)):
        change(value.x)
        change(value.y)
        value.x = "changed"


def content(value: Any) -> Any:
    """As `frozen`, also for what only these tests have."""
    if isinstance(value, (Record, Slotted)):
        return type(value).__name__, content(value.x), content(value.y)
    if isinstance(value, (list, tuple, deque)):
        return type(value).__name__, [content(part) for part in value]
    if isinstance(value, dict):
        return "dict", [(key, content(part)) for key, part in value.items()]
    if type(value).__module__ == "torch":
        return "tensor", value.tolist()
    return frozen(value)


@hypothesis.settings(max_examples=300)
@hypothesis.given(cooked=st.lists(recipes, min_size=1, max_size=4), hold=st.booleans())
def test_anything_is_for_its_reader_what_it_is_between_processes(
    cooked: list[Recipe], hold: bool
) -> None:
    def made() -> Iterator[Any]:
        for recipe in cooked:
            kept: list[Any] = []
            if hold:
                value = recipe.make(kept)
                yield value
                change(value)
            else:
                yield recipe.make(kept)
            for part in kept:
                change(part)

    packer = Packer(None)
    for value in made():
        packer.add(value)
    there = unpack(b"".join(packer.pack()), None)
    here = Way().through(made())
    assert [content(value) for value in here] == [content(value) for value in there]
    for value in here:  # and what one reader does to one value changes no other
        before = [content(other) for other in here if other is not value]
        change(value)
        assert [content(other) for other in here if other is not value] == before


# --- arrays that are made for their reader ----------------------------------------------------


class TestMadeHere:
    @counted
    def test_passes_without_a_copy_and_is_read_only_for_its_maker(self) -> None:
        way, made = Way(), []

        def batches() -> Iterator[Any]:
            for number in range(3):
                batch = way.packer.allocate((10, 10), "float32")
                batch[:] = number
                made.append(batch.__array_interface__["data"][0])
                yield batch
                with pytest.raises(ValueError, match="read-only"):
                    batch[:] = 9

        got = way.through(batches())
        assert [array.__array_interface__["data"][0] for array in got] == made
        assert [float(array[0, 0]) for array in got] == [0, 1, 2]
        assert all(array.flags.writeable and array.dtype == "float32" for array in got)

    @counted
    def test_inside_of_what_is_held(self) -> None:
        way = Way()

        def batches() -> Iterator[Any]:
            batch = {"x": way.packer.allocate(5000), "y": np.zeros(5000), "n": [1]}
            batch["x"][:] = 7
            yield batch
            batch["y"][:] = batch["n"][0] = 9
            assert not batch["x"].flags.writeable

        (got,) = way.through(batches())
        assert (got["x"] == 7).all()
        assert (got["y"] == 0).all()
        assert got["n"] == [1]
        assert got["x"].flags.writeable

    def test_with_another_view_of_it_it_is_copied(self) -> None:
        way = Way()

        def batches() -> Iterator[Any]:
            batch = way.packer.allocate((10, 10))
            batch[:] = 0
            row = batch[3]
            yield batch
            row[:] = 9

        (got,) = way.through(batches())
        assert got.sum() == 0

    def test_reshaped_sliced_turned(self) -> None:
        way = Way()

        def arrays() -> Iterator[Any]:
            for take in (lambda a: a[2:], lambda a: a.T, lambda a: a.reshape(4, 25), lambda a: a):
                array = way.packer.allocate((10, 10), "int32")
                array[:] = np.arange(100).reshape(10, 10)
                yield take(array)
                yield [take(array)]
                del array

        table = np.arange(100, dtype="int32").reshape(10, 10)
        expected = [table[2:], table.T, table.reshape(4, 25), table]
        got = way.through(arrays())
        assert all(np.array_equal(one, two) for one, two in zip(got[::2], expected, strict=True))
        assert all(
            np.array_equal(one[0], two) for one, two in zip(got[1::2], expected, strict=True)
        )

    def test_objects_and_nothing(self) -> None:
        packer = Way().packer
        assert packer.allocate(3, object).dtype == object
        assert packer.allocate((0, 5)).shape == (0, 5)


@counted
def test_tensors_pass_as_they_are_when_their_memory_is_their_own() -> None:
    torch = pytest.importorskip("torch")
    numbers: list[int] = []

    def made() -> Any:
        tensor = torch.arange(6).float()
        numbers.append(tensor.data_ptr())
        return tensor

    def items() -> Iterator[Any]:
        yield made()
        yield {"x": made(), "y": [made()]}

    tensor, nested = Way().through(items())
    got = [tensor, nested["x"], nested["y"][0]]
    assert [one.data_ptr() for one in got] == numbers


def test_tensors_that_others_have_are_copied() -> None:
    torch = pytest.importorskip("torch")
    base = torch.zeros(100)
    array = np.zeros(100, np.float32)
    storage = torch.zeros(10)

    def stored() -> Any:
        nonlocal storage
        tensor = torch.zeros(10)
        storage = tensor.untyped_storage()
        return tensor

    def items() -> Iterator[Any]:
        yield base[3:10]
        yield base.detach()
        yield torch.from_numpy(array)
        yield [base.view(10, 10)]
        yield stored()
        storage.fill_(1)
        yield torch.zeros(5, requires_grad=True)
        base.fill_(1)
        array[:] = 1

    got = Way().through(items())
    plain = [(one[0] if type(one) is list else one).detach() for one in got]
    assert [float(tensor.sum()) for tensor in plain] == [0.0] * 6
    assert got[-1].requires_grad


# --- what cannot be copied --------------------------------------------------------------------


class Handle:
    """Something open that cannot travel."""

    def __reduce__(self) -> Any:
        raise TypeError("a handle stays where it is")


@counted
def test_what_cannot_be_copied_passes_when_nobody_else_holds_it() -> None:
    (got,) = Way().through(Handle() for _ in range(1))
    assert type(got) is Handle
    (inside,) = Way().through({"handle": Handle(), "array": np.arange(3)} for _ in range(1))
    assert type(inside["handle"]) is Handle


def test_what_cannot_be_copied_and_is_held_is_refused_by_name() -> None:
    way = Way()
    handle = Handle()
    for bad in (handle, [1, handle], {"x": handle}, Record(handle)):
        with pytest.raises(NotPicklable, match=r"type \w+ may still be held by its maker"):
            way.feed(iter([bad]))
        assert way.packer.count == 0
    assert way.through(iter(["after"])) == ["after"]


def test_a_window_on_memory_is_nobodys_own() -> None:
    """Two windows on one memory cannot be told from one by counting. They travel as bytes."""
    (got,) = Way().through(memoryview(bytearray(5)) for _ in range(1))
    assert got == bytes(5)


# --- the way, and the shelf -------------------------------------------------------------------


def test_without_measuring_nothing_is_ours() -> None:
    shelf = Shelf(100)
    packer = ObjectPacker(shelf)
    array = np.arange(5)
    packer.add(array)
    array += 1
    (got,) = shelf.take(packer.pack()[0])
    assert got.tolist() == [0, 1, 2, 3, 4]


def test_where_counts_say_nothing_everything_that_can_change_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on builds without the interpreter lock."""
    monkeypatch.setattr("splitpipe.transport.objects.COUNTED", False)
    monkeypatch.setattr("splitpipe.transport.ownership._BASE", -1)
    addresses: list[int] = []

    def noted(array: Any) -> Any:
        addresses.append(array.__array_interface__["data"][0])
        return array

    way = Way()

    def items() -> Iterator[Any]:
        yield noted(np.arange(5))
        batch = noted(way.packer.allocate(5, "int64"))
        batch[:] = 7
        yield batch
        batch[:] = 8  # it was not handed over
        yield "text"

    first, second, third = way.through(items())
    assert first.__array_interface__["data"][0] != addresses[0]
    assert first.tolist() == [0, 1, 2, 3, 4]
    assert second.tolist() == [7] * 5
    assert third == "text"
    with pytest.raises(NotPicklable, match="held by its maker"):
        way.feed(Handle() for _ in range(1))


def test_somebody_who_looks_on_while_measuring_disarms_it() -> None:
    packer = ObjectPacker(Shelf(100))

    def feed(items: Iterator[Any]) -> None:
        for item in items:
            others = [item] * 20
            packer.add(item)
            del item, others

    packer.calibrate(feed)
    values = []
    for _ in range(1):
        values.append(np.arange(5))
        packer.add(values[0])
        values[0] += 1
    (got,) = packer._shelf.take(packer.pack()[0])
    assert got[0] == 0


def test_contents_weigh_what_they_hold() -> None:
    assert contents({"x": np.zeros(100)}) == 808
    assert contents([b"x" * 1000, 1]) == 1008
    assert contents(object()) is None
    assert contents(object(), strict=False) is not None


def test_atoms_pass_together() -> None:
    way = Way()
    way.packer.add_atoms([1, "two", (3, "four")])
    assert way.packer.nbytes == 8 + 3 + 12
    assert unpack(b"".join(way.packer.pack(bulk=True)), way.shelf) == [1, "two", (3, "four")]


def test_a_shelf_is_bounded_and_shut() -> None:
    shelf = Shelf(100)
    tickets = [shelf.put([number], 40, wait=False) for number in range(4)]
    assert shelf.statistics().slots == 4
    assert shelf.statistics().nbytes == 160
    release(tickets[3], shelf)
    assert [shelf.take(ticket) for ticket in tickets[:3]] == [[0], [1], [2]]
    big = shelf.put(["big"], 1000)  # alone it always fits
    shelf.shut()
    with pytest.raises(BrokenChannel):
        shelf.put([1], 1)
    assert shelf.take(big) == ["big"]
    shelf.close()
    with pytest.raises(BrokenChannel):
        shelf.take(big)


class Watching:
    """Notes what a producer says that waits."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.waits = threading.Event()
        self.still: Callable[[], bool] = lambda: False
        self.nobody = False

    def begin_wait(self, still: Callable[[], bool]) -> None:
        self.said.append("begin")
        self.still = still
        self.waits.set()

    def end_wait(self) -> None:
        self.said.append("end")

    def unwanted(self) -> bool:
        return self.nobody


@pytest.mark.parametrize("how", ["taken", "unwanted"])
def test_who_waits_for_room_says_so(how: str) -> None:
    shelf, watching = Shelf(100), Watching()
    shelf.watch(watching)
    first = shelf.put([1], 80)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(shelf.put, [2], 80)
        assert watching.waits.wait(120)
        assert watching.still()
        if how == "unwanted":
            watching.nobody = True
            shelf.wake()
            second.result(10)
        assert shelf.take(first) == [1]
        assert shelf.take(second.result(10)) == [2]
    assert watching.said == ["begin", "end"]
    assert not watching.still()


def test_what_is_discarded_is_let_go_of() -> None:
    way = Way()
    record = Record(1)
    gone = weakref.ref(record)
    way.feed(iter([record]))
    way.packer.discard()
    del record
    assert gone() is None
    assert way.packer.nbytes == way.packer.count == 0


def closing_over(part: Any) -> Any:
    return lambda: part


def test_a_closure_is_its_makers_unless_it_closes_over_its_own() -> None:
    part = [1]

    def made() -> Iterator[Any]:
        yield closing_over(part)
        part.append(2)

    (got,) = Way().through(made())
    assert got() == [1]


@counted
def test_an_open_file_stays_the_same_file() -> None:
    for mode in ("r", "rb"):
        (got,) = Way().through(open(__file__, mode) for _ in range(1))  # noqa: SIM115
        with got:
            assert got.fileno() >= 0


@counted
def test_a_generator_is_passed_when_everything_that_it_uses_is_its_own() -> None:
    (got,) = Way().through((x for x in [1, 2]) for _ in range(1))
    assert list(got) == [1, 2]
    held = [1, 2]
    with pytest.raises(NotPicklable, match="held by its maker"):
        Way().feed((x for x in held) for _ in range(1))
