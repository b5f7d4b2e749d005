"""The smallest form: one generator, one child process, an iterator in front."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

import splitpipe as sp


def squares(n: int, *, offset: int = 0) -> Iterator[int]:
    for i in range(n):
        yield i * i + offset


def batches(n: int) -> Iterator[np.ndarray]:
    for i in range(n):
        batch = sp.empty((100, 100), "float64")
        batch[:] = i
        yield batch


def fails_at(n: int) -> Iterator[int]:
    yield from range(n)
    raise LookupError(f"item {n}")


def dies_at(n: int) -> Iterator[int]:
    yield from range(n)
    os.kill(os.getpid(), signal.SIGKILL)


def leaks_stop_iteration() -> Iterator[int]:
    yield 1
    yield next(iter(()))


def sends_a_lock() -> Iterator[object]:
    yield 1
    yield (i for i in ())


def nested(n: int) -> Iterator[list[int]]:
    for i in range(n):
        yield list(sp.MpQItr(squares, i))


def pids() -> Iterator[int]:
    yield os.getpid()


def test_arguments_reach_the_generator() -> None:
    assert list(sp.MpQItr(squares, 5, offset=3)) == [3, 4, 7, 12, 19]


def test_runs_in_another_process_and_a_new_one_each_time() -> None:
    once = sp.MpQItr(pids)
    assert len({os.getpid(), *once, *once}) == 3


def test_repeated_and_nested_iterations_are_independent() -> None:
    itr = sp.MpQItr(squares, 4)
    assert list(itr) == list(itr) == [0, 1, 4, 9]
    assert [(a, b) for a in itr for b in itr] == [
        (a * a, b * b) for a in range(4) for b in range(4)
    ]


def test_inside_a_stage() -> None:
    assert list(sp.MpQItr(nested, 4)) == [[], [0], [0, 1], [0, 1, 4]]


def test_left_early_it_ends_quietly() -> None:
    for item in sp.MpQItr(squares, 10**9):
        if item > 100:
            break
    gc.collect()


def test_an_exception_comes_at_its_place() -> None:
    itr = iter(sp.MpQItr(fails_at, 3))
    assert [next(itr) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="item 3") as caught:
        next(itr)
    assert any("fails_at" in note for note in caught.value.__notes__)
    with pytest.raises(sp.PipelineError):
        next(itr)


def test_a_killed_process_is_not_waited_for() -> None:
    itr = iter(sp.MpQItr(dies_at, 3))
    with pytest.raises(sp.PoisonRecord, match="SIGKILL"):
        list(itr)


def test_a_stop_iteration_that_slips_out_is_no_end() -> None:
    itr = iter(sp.MpQItr(leaks_stop_iteration))
    assert next(itr) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(itr)


def test_what_cannot_travel_is_not_dropped() -> None:
    itr = iter(sp.MpQItr(sends_a_lock))
    assert next(itr) == 1
    with pytest.raises(sp.NotPicklable, match="generator") as caught:
        next(itr)
    assert "input item 1" in caught.value.__notes__[0]


def test_arrays_are_kept_as_they_were() -> None:
    with pytest.warns(RuntimeWarning, match="being kept"):
        kept = list(sp.MpQItr(batches, 40))
    assert [float(batch[0, 0]) for batch in kept] == list(range(40))


def test_a_closure_travels() -> None:
    factor = 3
    assert list(sp.MpQItr(lambda: (factor * i for i in range(3)))) == [0, 3, 6]


def test_what_is_no_generator_is_said() -> None:
    with pytest.raises(sp.GraphError, match="not iterable"):
        list(sp.MpQItr(lambda: None))  # type: ignore[arg-type,return-value]


def test_repr_names_the_generator() -> None:
    assert "squares" in repr(sp.MpQItr(squares, 3))
