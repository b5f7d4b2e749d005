"""The program that is killed: ``python -m benchmarks.chaotic.program METHOD TRANSPORT WORKERS``.

It says ``running`` when it has its first batches, and reads until somebody ends it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import splitpipe as sp

__all__ = ["main"]


def numbers() -> Iterator[int]:
    return itertools.count()


def grow(x: int) -> Any:
    return np.full(20_000, x, np.int64)


def total(array: Any) -> int:
    return int(array.sum())


def main(method: str, transport: str, workers: str) -> None:
    """Read for ever, some of it in slots of shared memory."""
    large = sp.Pipeline(range(1 << 40)).map(grow, workers=int(workers))
    pipe = sp.zip(large, sp.Pipeline(numbers).through(iter, workers=1))
    loader = pipe.loader(start_method=method, transport=transport)
    for number, _ in enumerate(loader):
        if number == 8:
            print("running", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
