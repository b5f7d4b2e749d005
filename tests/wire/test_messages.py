"""Messages of the feed come back as what they were."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import WireError
from splitpipe.wire.carrying import Batch, carry
from splitpipe.wire.limits import Limits
from splitpipe.wire.messages import (
    Ack,
    Acked,
    Bye,
    Delivery,
    End,
    Failed,
    Hello,
    Message,
    Ping,
    Pong,
    PushBack,
    Refused,
    Welcome,
    Window,
    read,
    read_from_client,
    read_from_engine,
    write,
)

FROM_CLIENT = [
    Hello("ticket", "s" * 20, 1, "me", 10, 1 << 20, [(0, 3)], [(3, 5), (9, 10)], None),
    Hello("ticket", "s" * 20, 0, "", 10, 1 << 20, [], [], 7, 1 << 20),
    Ack([(1, 2)]),
    PushBack([]),
    Window(0, 0),
    Ping(),
    Bye([(0, 1)]),
]
FROM_ENGINE = [
    Welcome("abc", None, 30.0, [(1, 2)], 4),
    Welcome("abc", 10, 1.5),
    Acked([(0, 9)]),
    Failed(3, {"kind": "ValueError", "message": "no", "record": 7, "stage": None}),
    End(10),
    Refused("unknown session", True),
    Refused("unknown ticket", True, True),
    Pong(),
]
SIZES = st.sampled_from([0, 1, 63, 64, 65, 4000, 65535, 65536, 70_000])
BATCHES = st.lists(
    st.builds(
        lambda sequence, samples, sizes: Batch(
            sequence, samples, [bytes([number % 256]) * size for number, size in enumerate(sizes)]
        ),
        st.integers(0, 2**61),
        st.integers(0, 1000),
        st.lists(SIZES, max_size=8),
    ),
    max_size=10,
)


def plain(batches: list[Batch]) -> list[tuple[int, int, list[bytes]]]:
    return [(one.sequence, one.samples, [bytes(frame) for frame in one.frames]) for one in batches]


@pytest.mark.parametrize("message", FROM_CLIENT, ids=lambda one: type(one).__name__)
def test_of_a_client(message: Message) -> None:
    assert read_from_client(write(message)) == read(write(message)) == message
    with pytest.raises(WireError, match="not a message"):
        read_from_engine(write(message))


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda one: type(one).__name__)
def test_of_an_engine(message: Message) -> None:
    assert read_from_engine(write(message)) == read(write(message)) == message
    with pytest.raises(WireError, match="not a message"):
        read_from_client(write(message))


@given(BATCHES)
def test_batches(batches: list[Batch]) -> None:
    message = read_from_engine(write(Delivery(batches)))
    assert isinstance(message, Delivery)
    assert plain(message.batches) == plain(batches)


@given(BATCHES, st.data())
def test_batches_whose_frames_do_not_fit_are_refused(
    batches: list[Batch], data: st.DataObject
) -> None:
    head, *payload = write(Delivery(batches))
    number = data.draw(st.integers(0, len(payload)))
    if number == len(payload):
        payload.append(b"more")
    elif data.draw(st.booleans()):
        payload[number] = bytes(payload[number]) + b"x"
    else:
        payload[number] = bytes(payload[number])[:-1]
    with pytest.raises(WireError):
        read_from_engine([head, *payload])


def test_large_frames_are_not_copied() -> None:
    large = bytes(100_000)
    _, frames = carry([Batch(0, 1, [b"head", large])])
    assert frames[1] is large


@pytest.mark.parametrize(
    "fields",
    [
        [1, ["ack"]],
        [1, ["ack", [[1]]]],
        [1, ["ack", [[-1, 2]]]],
        [1, ["ack", [["a", 2]]]],
        [1, ["ack", [[1, 2**63]]]],
        [2, ["ack", []]],
        [1, ["unheard of"]],
        [1, ["hello", "t", "short", 0, "", 1, 1, [], []]],
        [1, ["hello", "t", "s" * 65, 0, "", 1, 1, [], []]],
        [1, ["hello", "t", "s" * 20 + "\n", 0, "", 1, 1, [], []]],
        [1, ["hello", "t" * 2000, "s" * 20, 0, "", 1, 1, [], []]],
        [1],
        [],
        None,
        "ack",
    ],
    ids=repr,
)
def test_others_are_refused(fields: object) -> None:
    with pytest.raises(WireError):
        read_from_client([msgspec.msgpack.encode(fields)])


def test_what_a_newer_version_adds_is_passed_over() -> None:
    frame = msgspec.msgpack.encode([1, ["ack", [[1, 2]], "more"]])
    assert read_from_client([frame]) == Ack([(1, 2)])


def test_limits_hold() -> None:
    frames = write(Delivery([Batch(0, 1, [bytes(100_000)] * 3)]))
    with pytest.raises(WireError, match="1 to 3"):
        read_from_engine(frames, limits=Limits(frames=3))
    with pytest.raises(WireError, match="is the limit"):
        read_from_engine(frames, limits=Limits(nbytes=1000))
