"""Frames in one buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import WireError
from splitpipe.wire.limits import Limits
from splitpipe.wire.packing import ALIGNMENT, join, pack, split, split_all, unpack


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_frames_come_back(frames: list[bytes]) -> None:
    whole = join(frames)
    assert len(whole) % ALIGNMENT == 0
    assert [bytes(frame) for frame in split(whole)] == frames


@given(st.lists(st.lists(st.binary(max_size=100), max_size=4), max_size=5))
def test_wholes_follow_each_other(wholes: list[list[bytes]]) -> None:
    body = b"".join(map(join, wholes))
    assert [[bytes(frame) for frame in frames] for frames in split_all(body)] == wholes


def test_frames_are_views_at_their_places() -> None:
    image = np.arange(10_000).astype("u1").reshape(100, 100)
    whole = pack({"image": image})
    found = unpack(whole)["image"]
    assert np.shares_memory(found, np.frombuffer(whole, "u1"))
    assert (np.frombuffer(whole, "u1").ctypes.data - found.ctypes.data) % ALIGNMENT == 0


@given(st.binary(max_size=40), st.data())
def test_a_changed_byte_is_seen(payload: bytes, data: st.DataObject) -> None:
    whole = bytearray(join([payload, b"second"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        split(whole)


@given(st.data())
def test_a_cut_is_seen(data: st.DataObject) -> None:
    whole = join([b"one", b"two" * 50])
    with pytest.raises(WireError):
        split(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(WireError):
        split(whole + b"\0")


def test_limits() -> None:
    whole = join([b"x"] * 10)
    with pytest.raises(WireError, match="that say they are 10"):
        split(whole, limits=Limits(frames=9))
    with pytest.raises(WireError, match="100 is the limit"):
        split(whole, limits=Limits(nbytes=100))
    with pytest.raises(WireError, match="more than 3 frames"):
        split_all(join([b"x"]) * 2, limits=Limits(frames=3))


def test_a_count_is_not_believed() -> None:
    whole = bytearray(join([b"x"]))
    whole[16:20] = (60_000).to_bytes(4, "little")
    with pytest.raises(WireError, match="that say they are 60000"):
        split(whole)
