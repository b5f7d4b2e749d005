"""Values into bodies and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from splitpipe.errors import NotPicklable
from splitpipe.transport.arena import ArenaLink, ArenaView
from splitpipe.transport.envelope import OUT_OF_BAND, Packer, UnpackError, release, unpack
from splitpipe.transport.message import Claim, Credit, End, Failed, Item, decode, encode
from splitpipe.transport.slot import Bounds
from tests.runtime.comparing import all_frozen, frozen, kinds

MB = 1 << 20


class Unrestorable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def fails() -> Any:
    raise RuntimeError("while pickling")


class FailsHalfWay:
    """Gives its first array away, and then fails."""

    def __reduce__(self) -> Any:
        return list, ((np.zeros(5000), (i for i in ())),)


class Ends:
    def __init__(self, limit: int = 64 * MB, slots: int = 8) -> None:
        self.link = ArenaLink(Bounds(limit, slots, 6))
        self.arena = self.link.writer()
        self.packer = Packer(self.arena)
        self.view: ArenaView = self.link.reader()

    def close(self) -> None:
        self.arena.close()
        self.view.close()
        self.link.close()

    def body(self, *values: Any) -> bytes:
        for value in values:
            self.packer.add(value)
        return b"".join(self.packer.pack())


@pytest.fixture(params=["roomy", "narrow", "none"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(**{"roomy": {}, "narrow": {"limit": 600_000}, "none": {"limit": 0}}[request.param])
    yield made
    made.close()


@pytest.fixture
def roomy() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_every_kind_comes_back_as_it_was(ends: Ends) -> None:
    for value in kinds():
        (back,) = unpack(ends.body(value), ends.view)
        assert frozen(back) == frozen(value)
        del back


def test_all_kinds_in_one_body(ends: Ends) -> None:
    assert all_frozen(unpack(ends.body(*kinds()), ends.view)) == all_frozen(kinds())


def test_without_an_arena() -> None:
    packer = Packer(None)
    for value in kinds():
        packer.add(value)
    assert all_frozen(unpack(b"".join(packer.pack()), None)) == all_frozen(kinds())


arrays = st.builds(
    lambda n, dtype, fill: np.full(n, fill, dtype),
    st.sampled_from([0, 1, 255, 256, 257, 5000, 70_000]),
    st.sampled_from(["u1", "f8", "i2", "?"]),
    st.integers(0, 1),
)
values = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(bodies=st.lists(st.lists(values, max_size=6), min_size=1, max_size=5))
def test_anything_comes_back_as_it_was(bodies: list[list[Any]]) -> None:
    ends = Ends(limit=2 * MB, slots=3)
    try:
        for body in bodies:
            assert all_frozen(unpack(ends.body(*body), ends.view)) == all_frozen(body)
    finally:
        ends.close()


def test_delivered_arrays_are_writable_and_separate(ends: Ends) -> None:
    first, second = unpack(ends.body(np.zeros(5000), np.zeros(5000)), ends.view)
    first += 1
    assert second.sum() == 0


def test_what_a_maker_does_after_add_changes_nothing(ends: Ends) -> None:
    buffer = np.zeros(OUT_OF_BAND, np.uint8)
    for i in range(3):
        buffer[:] = i
        ends.packer.add(buffer)
    back = unpack(b"".join(ends.packer.pack()), ends.view)
    assert [int(one[0]) for one in back] == [0, 1, 2]


class TestBuiltInPlace:
    def test_is_not_copied_again(self, roomy: Ends) -> None:
        array = roomy.packer.allocate((100, 100), "float64")
        array[:] = 3
        body = roomy.body(array)
        assert len(body) < 400
        (back,) = unpack(body, roomy.view)
        back[0, 0] = 4  # the very same memory: that is the point
        assert array[0, 0] == 4
        assert not array.flags.writeable

    def test_a_part_of_it(self, roomy: Ends) -> None:
        array = roomy.packer.allocate((100, 100), "int64")
        array[:] = np.arange(100)
        (back,) = unpack(roomy.body(array[:50]), roomy.view)
        assert np.array_equal(back, array[:50])

    def test_sent_twice_it_is_copied_the_second_time(self, roomy: Ends) -> None:
        array = roomy.packer.allocate(5000, "uint8")
        array[:] = 1
        (first,) = unpack(roomy.body(array), roomy.view)
        (second,) = unpack(roomy.body(array), roomy.view)
        first[:] = 9
        assert second.max() == 1

    def test_never_sent_it_costs_a_slot_only_until_the_next_body(self, roomy: Ends) -> None:
        for _ in range(30):
            roomy.packer.allocate(MB)
            values = unpack(roomy.body(1), roomy.view)
            assert values == [1]
        assert roomy.arena.statistics().slots <= 2

    def test_objects_and_small_arrays_come_from_the_heap(self, roomy: Ends) -> None:
        roomy.packer.allocate(3, object)
        roomy.packer.allocate(10)
        assert roomy.arena.statistics().slots == 0


class TestErrors:
    def test_what_cannot_be_pickled_leaves_the_packer_as_it_was(self, ends: Ends) -> None:
        ends.packer.add("before")
        nbytes = ends.packer.nbytes
        for bad in ((i for i in ()), FailsHalfWay(), [np.zeros(5000), (i for i in ())]):
            with pytest.raises(NotPicklable, match="cannot travel"):
                ends.packer.add(bad)
            assert ends.packer.count == 1
            assert ends.packer.nbytes == nbytes
        assert unpack(ends.body("after"), ends.view) == ["before", "after"]

    def test_what_cannot_be_restored_keeps_what_came_before(self, ends: Ends) -> None:
        body = ends.body(1, np.zeros(5000), Unrestorable(), 4)
        with pytest.raises(UnpackError) as caught:
            unpack(body, ends.view)
        assert len(caught.value.values) == 2
        assert isinstance(caught.value.__cause__, ValueError)

    def test_buffers_of_a_failed_attempt_are_forgotten(self, ends: Ends) -> None:
        value = (np.full(5000, 1), lambda: 2, np.full(5000, 3))
        (back,) = unpack(ends.body(value), ends.view)
        assert (int(back[0][0]), back[1](), int(back[2][0])) == (1, 2, 3)

    def test_arrays_made_here_in_whatever_way_they_are_sent(self, roomy: Ends) -> None:
        packer = roomy.packer
        first, second, third = (packer.allocate((30, 100), "int32") for _ in range(3))
        for number, array in enumerate((first, second, third)):
            array[:] = number
        second.shape = (100, 30)
        for array in (third, first, second, third, third[3:], third.T):
            packer.add(array)
        back = unpack(b"".join(packer.pack()), roomy.view)
        assert [array.shape for array in back] == [
            (30, 100), (30, 100), (100, 30), (30, 100), (27, 100), (100, 30)
        ]  # fmt: skip
        assert [set(array.ravel().tolist()) for array in back] == [{2}, {0}, {1}, {2}, {2}, {2}]
        packer.add(third)  # its body is gone: it is an array like any other
        assert (unpack(b"".join(packer.pack()), roomy.view)[0] == 2).all()

    def test_discarded_values_are_gone_and_their_slots_free(self, roomy: Ends) -> None:
        for _ in range(30):
            roomy.packer.add(np.zeros(MB, np.uint8))
            roomy.packer.discard()
        assert roomy.packer.count == 0
        assert roomy.arena.statistics().slots == 1
        assert unpack(roomy.body("x"), roomy.view) == ["x"]

    def test_a_body_that_nobody_reads_gives_its_slots_back(self, roomy: Ends) -> None:
        for _ in range(30):
            release(roomy.body(np.zeros(MB, np.uint8)), roomy.view)
        assert roomy.arena.statistics().slots == 1


@pytest.mark.parametrize("cls", [Item, End, Failed, Claim, Credit])
def test_messages_keep_every_field(cls: Any) -> None:
    big = 2**63 + 1
    fields = dict.fromkeys(("run", "sequence", "start", "stop", "count"), big)
    message = cls(
        producer=65535, epoch=2**32 - 1, elapsed_ns=big, nbytes=big, body=b"body", **fields
    )
    back = decode(encode(message) + b"body")
    assert type(back) is cls
    back.body = bytes(back.body)
    assert back == message


@pytest.mark.parametrize("wire", [b"", b"\1" * 63, b"\0" * 64, b"\x09" * 64])
def test_what_is_no_message_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError, match=r"shorter than its header|unknown kind"):
        decode(wire)
