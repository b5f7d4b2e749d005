"""Both kernels, and columns in memory for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest

from splitpipe.storage.format import ENTRY, place
from splitpipe.storage.native import twin

try:
    from splitpipe.storage.native import _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]

__all__ = ["FIRST", "KERNELS", "SEEDS", "Made", "Rows", "_kernel", "needs_native", "rows_of"]

needs_native = pytest.mark.skipif(_kernel is None, reason="the kernel in C is not built here")
KERNELS = [
    pytest.param(twin, id="python"),
    pytest.param(_kernel, id="native", marks=needs_native),
]
FIRST = 78
SEEDS = [0x12345678, 0xFFFFFFFF, 0]

Rows = npt.NDArray[np.int64]


def rows_of(*numbers: int) -> Rows:
    return np.array(numbers, dtype=np.int64)


class Made:
    """A column in memory: records dealt to three bins, and an index that tests may damage."""

    def __init__(self, records: Sequence[bytes]) -> None:
        self.records = list(records)
        self.bins = [bytearray(FIRST) for _ in SEEDS]
        self.entries: list[tuple[int, int, int, int]] = []
        for row, record in enumerate(self.records):
            number = row % len(self.bins)
            held = self.bins[number]
            offset = len(held)
            crc = google_crc32c.extend(place(SEEDS[number], offset, row), record)
            held += record + bytes(3)
            self.entries.append((offset, len(record), number, crc))

    def open(self, module: Any, *, verify: bool = True, attached: bool = True) -> Any:
        index = memoryview(b"".join(ENTRY.pack(*entry) for entry in self.entries))
        column = module.Column(index, [len(held) for held in self.bins], SEEDS, verify=verify)
        if attached:
            for number, held in enumerate(self.bins):
                column.attach(number, bytes(held))
        return column

    def damage(self, row: int, **parts: int) -> Made:
        entry = dict(zip(("offset", "length", "number", "crc"), self.entries[row], strict=True))
        self.entries[row] = tuple({**entry, **parts}.values())  # type: ignore[assignment]
        return self
