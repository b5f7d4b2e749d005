"""Async generators and coroutines: the same items, errors and endings as ordinary ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError, StageFailed
from splitpipe.pipeline.allocate import empty, use_allocator
from splitpipe.pipeline.stages import Through
from splitpipe.pipeline.stages.async_map import AsyncMap
from splitpipe.pipeline.stages.asynchronous import EventLoop
from tests.pipeline.stages.driving import Watched, context_of, drive


async def plus(items: AsyncIterator[int], more: int, *, times: int = 1) -> AsyncIterator[int]:
    async for item in items:
        await asyncio.sleep(0)
        for _ in range(times):
            yield item + more


async def pairs(left: AsyncIterator[Any], right: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for item in left:
        yield item, await anext(right, None)


class Callable:
    async def __call__(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield -item


@given(st.lists(st.integers(), max_size=5), st.integers(0, 2))
def test_an_async_generator_is_a_stage_like_any_other(items: list[int], times: int) -> None:
    made = drive(Through(plus, (1,), {"times": times}), items)
    assert made == [item + 1 for item in items for _ in range(times)]


def test_it_may_have_several_inputs_and_be_wrapped() -> None:
    assert drive(Through(pairs), [1, 2, 3], "ab") == [(1, "a"), (2, "b"), (3, None)]
    assert drive(Through(partial(plus, more=2)), [1]) == [3]
    assert drive(Through(Callable()), [1, 2]) == [-1, -2]


def test_it_runs_no_further_than_it_is_asked_to() -> None:
    items = Watched([1, 2, 3])
    through = Through(plus, (0,))
    stream: Any = through.run([items], context_of(through))
    assert items.taken == 0
    assert (next(stream), items.taken) == (1, 1)
    assert (next(stream), items.taken) == (2, 2)
    stream.close()
    assert items.taken == 2


def test_inputs_are_read_in_the_thread_of_the_stage() -> None:
    def threads() -> Iterator[int]:
        yield threading.get_ident()

    assert drive(Through(plus, (0,)), threads()) == [threading.get_ident()]


def test_arrays_are_made_where_two_threads_may_make_them() -> None:
    made: list[Any] = []

    def allocator(shape: Any, dtype: Any, near: Any) -> Any:
        made.append(shape)
        return np.zeros(shape, dtype)

    async def arrays(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in items:
            yield empty(3)

    use_allocator(allocator)
    try:
        drive(Through(arrays), [1, 2])
        assert made == []
        empty(4)
        assert made == [4]
    finally:
        use_allocator(None)


def test_it_works_where_a_loop_runs_already() -> None:
    async def main() -> list[int]:
        return drive(Through(plus, (1,)), [1, 2])

    assert asyncio.run(main()) == [2, 3]


def test_a_generator_gets_one_for_the_epoch() -> None:
    async def drawn(items: AsyncIterator[Any], rng: Any) -> AsyncIterator[Any]:
        async for _ in items:
            yield int(rng.integers(1 << 60))

    through = Through(drawn)
    assert drive(through, range(3)) == drive(through, range(3))
    other = drive(through, range(3), context=context_of(through, epoch=1))
    assert other != drive(through, range(3))


@pytest.mark.parametrize("kind", [KeyError, StopIteration, StopAsyncIteration, SystemExit])
def test_what_it_raises_is_raised_at_its_place(kind: type[BaseException]) -> None:
    async def failing(items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            if item == 2:
                raise kind("two")
            yield item

    stream = Through(failing).run([iter([1, 2, 3])], context_of(Through(failing)))
    assert next(stream) == 1
    # PEP 479, for async generators too: an end that slips out is no end.
    raised = RuntimeError if issubclass(kind, StopIteration | StopAsyncIteration) else kind
    with pytest.raises(raised):
        next(stream)


def test_what_its_input_raises_it_may_handle() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    async def careful(items: AsyncIterator[int]) -> AsyncIterator[Any]:
        try:
            async for item in items:
                yield item
        except OSError as error:
            yield str(error)

    assert drive(Through(careful), broken()) == [1, "no more"]
    with pytest.raises(OSError, match="no more"):
        drive(Through(plus, (0,)), broken())


@pytest.mark.parametrize("consumed", [0, 1, 2])
def test_closing_it_early_cleans_up_now(consumed: int) -> None:
    log: list[Any] = []

    async def tidy(items: AsyncIterator[int]) -> AsyncIterator[int]:
        log.append("begin")
        background = asyncio.create_task(asyncio.Event().wait())
        try:
            async for item in items:
                yield item
        finally:
            await asyncio.sleep(0)
            log.append("end")
            log.extend([item async for item in items])  # there is nothing for it any more
            background.cancel()

    stream: Any = Through(tidy).run([iter(range(9))], context_of(Through(tidy)))
    for _ in range(consumed):
        next(stream)
    stream.close()
    assert log == (["begin", "end"] if consumed else [])


def test_what_cleaning_up_raises_is_raised() -> None:
    async def untidy(items: AsyncIterator[int]) -> AsyncIterator[int]:
        try:
            async for item in items:
                yield item
        finally:
            raise KeyError("cleaning")

    stream: Any = Through(untidy).run([iter(range(9))], context_of(Through(untidy)))
    next(stream)
    with pytest.raises(KeyError, match="cleaning"):
        stream.close()


def test_tasks_that_are_left_behind_are_cancelled_and_waited_for() -> None:
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cancelled.set()

    kept: list[Any] = []

    async def careless(items: AsyncIterator[int]) -> AsyncIterator[int]:
        kept.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)
        async for item in items:
            yield item

    assert drive(Through(careless), [1, 2]) == [1, 2]
    assert cancelled.is_set()


def test_a_loop_that_ends_by_itself_is_an_error() -> None:
    async def exits() -> None:
        raise SystemExit(3)

    kept: list[Any] = []

    async def waiting(items: AsyncIterator[int]) -> AsyncIterator[int]:
        kept.append(asyncio.create_task(exits()))
        await asyncio.Event().wait()
        yield 1

    with pytest.raises(StageFailed, match=r"SystemExit\(3\)"):
        drive(Through(waiting), [1])


class Gates:
    """Calls that end when they are told to."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.cancelled: list[int] = []

    async def call(self, n: int) -> int:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range((7 * n) % 5):  # some take longer than others
                await asyncio.sleep(0)
            if n == 99:
                raise LookupError("ninety-nine")
            if n > 99:
                await asyncio.Event().wait()
            return n * n
        except asyncio.CancelledError:
            self.cancelled.append(n)
            raise
        finally:
            self.under_way -= 1


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 6))
def test_async_map_keeps_the_order_and_its_bound(items: list[int], concurrency: int) -> None:
    gates = Gates()
    made = drive(AsyncMap(gates.call, concurrency), items)
    assert made == [n * n for n in items]
    assert gates.most <= concurrency
    assert gates.under_way == 0


def test_calls_run_at_the_same_time() -> None:
    arrived: list[int] = []

    async def together(n: int) -> int:
        arrived.append(n)
        while len(arrived) < 4:  # ends only where four calls are under way
            await asyncio.sleep(0)
        return n

    assert drive(AsyncMap(together, 4), range(4)) == [0, 1, 2, 3]


def test_a_failure_comes_at_its_place_and_the_rest_is_cancelled() -> None:
    gates = Gates()
    stream = AsyncMap(gates.call, 4).run(
        [iter([1, 2, 99, 100, 101])], context_of(AsyncMap(gates.call))
    )
    assert [next(stream), next(stream)] == [1, 4]
    with pytest.raises(LookupError, match="ninety-nine"):
        next(stream)
    assert set(gates.cancelled) <= {100, 101}
    assert gates.under_way == 0


def test_closing_cancels_what_is_under_way() -> None:
    gates = Gates()
    operation = AsyncMap(gates.call, 3)
    stream: Any = operation.run([iter([1, 100, 101, 102])], context_of(operation))
    assert next(stream) == 1
    stream.close()
    assert gates.under_way == 0


def test_it_reads_no_further_ahead_than_its_bound() -> None:
    items = Watched(range(50))
    operation = AsyncMap(Gates().call, 5)
    for count, _ in enumerate(operation.run([items], context_of(operation)), 1):
        assert items.taken <= count + 4


def test_an_item_has_its_own_generator() -> None:
    async def draw(n: int, rng: Any) -> int:
        await asyncio.sleep(0)
        return int(rng.integers(1 << 60))

    one, many = (drive(AsyncMap(draw, concurrency), range(20)) for concurrency in (1, 7))
    assert one == many
    assert len(set(one)) == 20
    assert AsyncMap(draw).random


def test_what_is_no_coroutine_is_told() -> None:
    with pytest.raises(TypeError, match="await"):
        drive(AsyncMap(lambda n: n), [1])  # type: ignore[arg-type, return-value]
    with pytest.raises(GraphError, match="async_map must be a function"):
        AsyncMap(3)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="concurrency must be"):
        AsyncMap(Gates().call, 0)


def test_a_loop_may_be_closed_twice() -> None:
    loop = EventLoop("twice")
    loop.close()
    loop.close()
    with pytest.raises(StageFailed):
        loop.call(print)
