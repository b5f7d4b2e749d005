"""Where `empty` leads to, in which thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.allocate import use_allocator


def marking(mark: int) -> Any:
    def allocate(shape: Any, dtype: Any, near: Any) -> Any:
        return np.full(shape, mark, dtype)

    return allocate


@pytest.fixture(autouse=True)
def _back_to_the_heap() -> Iterator[None]:
    yield
    use_allocator(None)


def test_threads_lead_to_their_own_and_the_others_to_that_of_the_process() -> None:
    use_allocator(marking(1))
    ready = threading.Barrier(3)

    def worker(mark: int | None) -> list[int]:
        if mark is not None:
            use_allocator(marking(mark))
        ready.wait(10)
        found = [int(sp.empty(1, "int64")[0])]
        use_allocator(None)
        return [*found, int(sp.empty(1, "int64")[0])]

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(worker, mark) for mark in (2, 3)]
        ready.wait(10)
        found = [future.result() for future in futures]
    assert found == [[2, 1], [3, 1]]
    assert sp.empty(1, "int64")[0] == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(sp.empty, 1, "int64").result()[0] == 1


def test_without_threads_nothing_is_looked_up() -> None:
    """In a process of its own: here other tests have had threads."""
    program = """
from splitpipe.pipeline import allocate
assert allocate._allocator is allocate._heap
made = lambda shape, dtype, near: None
allocate.use_allocator(made)
assert allocate._allocator is made
allocate.use_allocator(None)
assert allocate._allocator is allocate._heap
"""
    subprocess.run([sys.executable, "-c", program], check=True)
