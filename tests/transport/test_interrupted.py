"""Ctrl-C at each place of making and reading a body: nothing that is left is a crash."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from splitpipe.transport.envelope import Packer, unpack
from splitpipe.transport.repacking import repack
from tests.interrupting import at_each_place, interrupted

VALUES = [np.zeros(3000), {"a": np.ones(3000), "b": 1}, "three", 2.5j, {1, 2}]


def packed() -> bytes:
    packer = Packer(None)
    for value in VALUES:
        packer.add(value)
    return b"".join(packer.pack())


ACTS: dict[str, Callable[[bytes], Any]] = {
    "packing": lambda _: packed(),
    "unpacking": lambda body: unpack(body, None),
    "repacking": lambda body: repack(body, None, Packer(None)),
}


@pytest.mark.parametrize("act", ACTS)
def test_interrupted(act: str) -> None:
    body = packed()

    def attempt(place: int) -> bool:
        def once() -> None:
            try:
                ACTS[act](body)
            except KeyboardInterrupt as error:
                circle: list[Any] = [error]
                circle.append(circle)  # with all frames that it went through, garbage in a cycle
                raise

        hit = interrupted(once, place)
        gc.collect()
        return hit

    at_each_place(attempt)
    assert [type(value) for value in unpack(body, None)] == [type(value) for value in VALUES]
