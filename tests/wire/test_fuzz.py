"""Frames that were changed at random: a value or a `WireError`, nothing else, and no growth.

The long form takes 10^5 of them.
"""

from __future__ import annotations

import os
import pickle
import random
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe.errors import WireError
from splitpipe.wire.carrying import Batch
from splitpipe.wire.limits import Buffer, Limits
from splitpipe.wire.messages import (
    Delivery,
    Hello,
    Welcome,
    read_from_client,
    read_from_engine,
    write,
)
from splitpipe.wire.packing import pack, unpack
from splitpipe.wire.values import decode, encode

LIMITS = Limits(nbytes=1 << 20, frames=64, elements=1 << 16)
GROWTH_KIB = 64 << 10
Reader = Callable[[list[bytes]], Any]

VALUES: list[Any] = [
    {"id": np.arange(32), "text": [f"text {number}" for number in range(32)]},
    [{"id": number, "label": "x"} for number in range(8)],
    (np.zeros((9, 900), "f4"), np.array(["a", "bc"]), np.datetime64("2020-01-01")),
    {(1, 2): [2**70, None, b"bytes"], "deep": [[[[(1,)]]]]},
    np.zeros(700, np.dtype([("a", "i1"), ("b", "f8", (2, 3)), ("c", [("d", "U3")])], align=True)),
    [np.float32(1.5), np.str_("x"), b"y" * 70_000],
]
MESSAGES: list[Any] = [
    Hello("ticket", "s" * 20, 0, "me", 10, 1 << 20, [(0, 3)], [(3, 5)], None),
    Welcome("abc", 10, 30.0, [(1, 2)]),
    Delivery([Batch(number, 2, encode(value)) for number, value in enumerate(VALUES)]),
]
TELLING = bytes([0x81, 0x91, 0xC1, 0xC6, 0xC9, 0xD4, 0xD6, 0xD9, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF, 0])


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def mutated(frames: Sequence[Buffer], dice: random.Random, canary: bytes) -> list[bytes]:
    """Change some bytes, lengths, or frames."""
    made = [bytearray(frame) for frame in frames]
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        number = 0 if dice.random() < 0.8 else dice.randrange(len(made))
        frame = made[number]
        place = dice.randrange(len(frame) + 1)
        what = dice.randrange(8)
        if what < 4 and place < len(frame):
            frame[place] = dice.choice(TELLING) if what < 2 else dice.randrange(256)
        elif what == 4:
            del frame[place:]
        elif what == 5:
            frame[place:place] = dice.randbytes(dice.randrange(9))
        elif what == 6:
            frame[place : place + 5] = dice.choice([b"\xdd", b"\xdf", b"\xc6"]) + dice.randbytes(4)
        elif dice.random() < 0.5:
            frame[place:place] = canary
        else:
            made.insert(dice.randrange(len(made) + 1), bytearray(dice.randbytes(40)))
    return [bytes(frame) for frame in made]


def targets(canary: bytes) -> list[tuple[list[Buffer], Reader]]:
    def value_of(frames: list[bytes]) -> Any:
        return decode(frames, limits=LIMITS)

    def packed_value_of(frames: list[bytes]) -> Any:
        return unpack(frames[0], limits=LIMITS)

    def engine_says(frames: list[bytes]) -> Any:
        return read_from_engine(frames, limits=LIMITS)

    def client_says(frames: list[bytes]) -> Any:
        return read_from_client(frames, limits=LIMITS)

    readers: list[tuple[list[Buffer], Reader]] = [([canary], value_of)]
    for value in VALUES:
        readers += [(encode(value), value_of), ([pack(value)], packed_value_of)]
    for message in MESSAGES:
        readers += [(write(message), engine_says), (write(message), client_says)]
    return readers


def fuzz(count: int, seed: int, folder: Path) -> None:
    dice = random.Random(seed)
    canary = pickle.dumps(Canary(folder / "executed"))
    readers = targets(canary)
    refused = peak_kib = 0
    for number in range(count):
        frames, reader = dice.choice(readers)
        changed = mutated(frames, dice, canary)
        try:
            reader(changed)
        except WireError:
            refused += 1
        if number == min(count // 2, 1_000):  # what the first ones need is there by now
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count * 0.3 < refused < count * 0.999
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < GROWTH_KIB
    assert not (folder / "executed").exists()


def test_three_thousand(tmp_path: Path) -> None:
    fuzz(3_000, 1, tmp_path)


@pytest.mark.long
@pytest.mark.deadline(600)
def test_a_hundred_thousand(tmp_path: Path) -> None:
    fuzz(100_000, 2, tmp_path)


def test_the_canary_sings_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
