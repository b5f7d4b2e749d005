"""Stages whose items may fail, driven by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.guarding import guarded
from splitpipe.pipeline.stages import AsyncMap, Batch, Filter, FlatMap, Map, Route, Unbatch
from splitpipe.pipeline.stages.base import Context, Operation, Place
from splitpipe.pipeline.stages.failed import FailedItem, Ledger
from splitpipe.pipeline.stages.policy import LeaveOut
from splitpipe.pipeline.stages.reading import Reading, Unread, leniently


class Entered(Ledger):
    """A ledger that can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[FailedItem] = []
        self.waits: list[float] = []

    def enter(self, failed: FailedItem, policy: LeaveOut) -> None:
        self.items.append(failed)

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)


def driven(
    operation: Operation, items: Iterable[Any], policy: Any = "skip", epoch: int = 0
) -> tuple[list[Any], Context, Entered]:
    """Return what a stage with a policy gives, where it counted and what it entered."""
    ledger, place = Entered(), Place()
    context = Context("stage", epoch=epoch, place=place, ledger=ledger)
    made = guarded(operation, policy).run([place.mark(iter(items))], context)
    return list(made), context, ledger


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(f"odd: {x}")
    return x * 10


def positions(ledger: Entered) -> list[tuple[int, int]]:
    return [(one.position, one.part) for one in ledger.items]


class TestEachKindOfStage:
    def test_map(self) -> None:
        got, context, ledger = driven(Map(odd_fails), range(6))
        assert got == [0, 20, 40]
        assert (context.counts.treated, context.counts.skipped) == (6, 3)
        assert positions(ledger) == [(1, 0), (3, 0), (5, 0)]
        assert ledger.items[0].error == "ValueError"
        assert "odd_fails" in ledger.items[0].traceback

    def test_filter(self) -> None:
        got, context, _ = driven(Filter(lambda x: odd_fails(x) > 10), range(6))
        assert got == [2, 4]
        assert (context.dropped, context.counts.skipped) == (1, 3)

    def test_flat_map_leaves_out_an_item_whole(self) -> None:
        def parts(x: int) -> Iterator[tuple[int, int]]:
            yield x, 0
            yield x, odd_fails(x)

        got, context, ledger = driven(FlatMap(parts), range(4))
        assert got == [(0, 0), (0, 0), (2, 0), (2, 20)]
        assert context.counts.skipped == 2
        assert positions(ledger) == [(1, 0), (3, 0)]

    def test_unbatch(self) -> None:
        batches = [{"a": [1, 2], "b": [3, 4]}, {"a": [1], "b": [2, 3]}, {"a": [5], "b": [6]}]
        got, context, _ = driven(Unbatch(), batches)
        assert got == [{"a": 1, "b": 3}, {"a": 2, "b": 4}, {"a": 5, "b": 6}]
        assert context.counts.skipped == 1

    def test_route(self) -> None:
        branches = {"int": (Map(odd_fails),), "str": ()}
        route = Route(lambda x: type(x).__name__, branches)
        got, context, _ = driven(route, [2, "a", 3, None, 4])
        assert got == [20, "a", 40]
        assert context.counts.skipped == 2  # one in a branch, one without a branch

    def test_a_stage_in_a_branch_of_a_route(self) -> None:
        branches = {"int": (guarded(Map(odd_fails), "skip"),), "str": ()}
        ledger, place = Entered(), Place()
        context = Context("route", place=place, ledger=ledger)
        route = Route(lambda x: type(x).__name__, branches)
        got = list(route.run([place.mark(iter([2, "a", 3, 4]))], context))
        assert got == [20, "a", 40]
        assert context.counts.skipped == 1
        assert ledger.items[0].stage == "route/int/0"
        assert ledger.items[0].position == 2

    def test_async_map(self) -> None:
        async def treated(x: int) -> int:
            return odd_fails(x)

        got, context, ledger = driven(AsyncMap(treated, 3), range(7))
        assert got == [0, 20, 40, 60]
        assert (context.counts.treated, context.counts.skipped) == (7, 3)
        assert positions(ledger) == [(1, 0), (3, 0), (5, 0)]

    def test_batch_leaves_out_a_batch_and_counts_its_items(self) -> None:
        def collate(rows: list[int]) -> int:
            if 4 in rows:
                raise ValueError("four")
            return sum(rows)

        got, context, ledger = driven(Batch(3, collate=collate), range(8))
        assert got == [3, 13]
        assert (context.counts.treated, context.counts.skipped) == (8, 3)
        assert positions(ledger) == [(3, 0)]
        got, context, _ = driven(Batch(3, True, collate), range(8))
        assert (got, context.dropped, context.counts.skipped) == ([3], 2, 3)

    def test_batch_without_a_failure_is_as_ever(self) -> None:
        got, _, _ = driven(Batch(2), [np.arange(3), np.arange(3), np.arange(3)])
        assert [batch.shape for batch in got] == [(2, 3), (1, 3)]

    def test_reading(self) -> None:
        class Records(list[Any]):
            def __getitem__(self, index: Any) -> Any:
                if index in (0, 3):
                    raise OSError(f"bad sector {index}")
                return index

        order = sp.Pipeline(range(5)).source.order(0)  # type: ignore[union-attr]
        records = list(leniently(Records(range(5)), order, 0, 5))
        assert [type(one) is Unread for one in records] == [True, False, False, True, False]
        got, context, ledger = driven(Reading(), records)
        assert got == [1, 2, 4]
        assert context.counts.skipped == 2
        assert positions(ledger) == [(0, 0), (3, 0)]
        assert ledger.items[1].message == "bad sector 3"


class TestRetries:
    @pytest.mark.parametrize("kind", ["map", "flat_map", "async_map"])
    def test_an_item_is_tried_again_in_its_place(self, kind: str) -> None:
        left = {3: 2, 5: 9}

        def flaky(x: int) -> int:
            if left.get(x, 0) > 0:
                left[x] -= 1
                raise OSError(x)
            return x

        async def awaited(x: int) -> int:
            return flaky(x)

        def several(x: int) -> Iterator[int]:
            yield -x
            yield flaky(x)

        operations: dict[str, Operation] = {
            "map": Map(flaky),
            "flat_map": FlatMap(several),
            "async_map": AsyncMap(awaited, 4),
        }
        policy = sp.retry(3, delay_s=0, then="skip")
        got, context, ledger = driven(operations[kind], range(1, 8), policy)
        whole = [1, 2, 3, 4, 6, 7]
        assert got == ([y for x in whole for y in (-x, x)] if kind == "flat_map" else whole)
        assert context.counts.retried == 2 + 3
        assert context.counts.skipped == 1
        assert ledger.items[0].tries == 4
        assert positions(ledger) == [(4, 0)]

    def test_the_last_error_is_raised(self) -> None:
        errors = iter([OSError("first"), OSError("second"), OSError("third")])

        def fails(x: int) -> int:
            raise next(errors)

        with pytest.raises(OSError, match="third") as caught:
            driven(Map(fails), [1], sp.retry(2, delay_s=0))
        assert caught.value.__cause__ is None

    def test_waits_grow(self) -> None:
        _, _, ledger = driven(Map(odd_fails), [1], sp.retry(3, delay_s=1.0, then="skip"))
        assert len(ledger.waits) == 3
        assert 0.5 <= ledger.waits[0] <= 1.5
        assert 2.0 <= ledger.waits[2] <= 6.0

    @pytest.mark.parametrize("kind", ["map", "async_map", "flat_map"])
    def test_a_try_has_the_random_numbers_of_the_first(self, kind: str) -> None:
        seen: dict[int, list[float]] = {}

        def drawn(x: int, rng: np.random.Generator) -> float:
            number = float(rng.random())
            seen.setdefault(x, []).append(number)
            if len(seen[x]) < 3:
                raise OSError
            return number

        async def awaited(x: int, rng: np.random.Generator) -> float:
            return drawn(x, rng)

        def several(x: int, rng: np.random.Generator) -> Iterator[float]:
            yield drawn(x, rng)

        operations: dict[str, Operation] = {
            "map": Map(drawn),
            "flat_map": FlatMap(several),
            "async_map": AsyncMap(awaited, 2),
        }
        got, _, _ = driven(operations[kind], range(4), sp.retry(2, delay_s=0))
        assert all(len(set(numbers)) == 1 for numbers in seen.values())
        assert len(set(got)) == 4

    def test_an_unreadable_record_is_read_again(self) -> None:
        reads: list[int] = []

        class Flaky(list[int]):
            def __getitem__(self, index: Any) -> Any:
                reads.append(index)
                if reads.count(index) < 3 and index == 1:
                    raise OSError("busy")
                return index

        pipe = sp.Pipeline(Flaky(range(3)), on_error=sp.retry(2, delay_s=0))
        assert list(pipe) == [0, 1, 2]
        assert reads == [0, 1, 1, 1, 2]


class TestWhoseFailureItIs:
    def test_what_the_input_raised_is_not_the_stages(self) -> None:
        def broken() -> Iterator[int]:
            yield 2
            raise ValueError("upstream")

        for operation in (Map(odd_fails), FlatMap(lambda x: [x]), Batch(3, collate=list)):
            with pytest.raises(ValueError, match="upstream"):
                driven(operation, broken())

    def test_interrupts_and_the_like_end_it(self) -> None:
        for kind in (KeyboardInterrupt, SystemExit, MemoryError):

            def raising(x: int, kind: type[BaseException] = kind) -> int:
                raise kind

            for operation in (Map(raising), FlatMap(raising)):  # type: ignore[arg-type]
                with pytest.raises(kind):
                    driven(operation, [1])

    def test_a_stop_iteration_is_a_failure_never_an_end(self) -> None:
        def first(x: list[int]) -> int:
            return next(iter(x))

        got, context, _ = driven(Map(first), [[1], [], [3]])
        assert (got, context.counts.skipped) == ([1, 3], 1)

    def test_errors_that_were_not_named(self) -> None:
        with pytest.raises(ValueError, match="odd: 1"):
            driven(Map(odd_fails), range(4), sp.skip(errors=KeyError))

    def test_a_closed_stage_closes_its_generators(self) -> None:
        closed = []

        def stream(x: int) -> Iterator[int]:
            try:
                yield x
            finally:
                closed.append(x)

        context = Context("stage", place=Place())
        made = guarded(FlatMap(stream), "skip").run([iter([1, 2])], context)
        assert next(made) == 1
        made.close()  # type: ignore[attr-defined]
        assert closed == [1]


class TestBudget:
    def test_the_one_too_many_fails_at_its_place(self) -> None:
        place, context = Place(), Context("parse", ledger=Entered())
        context.place = place
        made = guarded(Map(odd_fails), sp.skip(2)).run([place.mark(iter(range(10)))], context)
        assert [next(made) for _ in range(3)] == [0, 20, 40]
        with pytest.raises(sp.BudgetExceeded) as caught:
            next(made)
        text = str(caught.value)
        assert "'parse' left out 3 of the first 6 items of epoch 0; its budget is 2" in text
        assert "item 1: ValueError: odd: 1; item 3: " in text
        assert isinstance(caught.value.__cause__, ValueError)

    def test_a_share_at_the_end(self) -> None:
        got, _, _ = driven(Map(odd_fails), range(10), sp.skip(0.5))
        assert len(got) == 5
        with pytest.raises(sp.BudgetExceeded, match=r"5 of the first 10 .* 0\.4 of them"):
            driven(Map(odd_fails), range(10), sp.skip(0.4))

    def test_a_share_before_the_end(self) -> None:
        with pytest.raises(sp.BudgetExceeded, match="100 of the first 200 items"):
            driven(Map(odd_fails), range(10_000), sp.skip(0.4, after=199))

    def test_a_share_of_async_calls_is_judged_in_their_order(self) -> None:
        async def treated(x: int) -> int:
            return odd_fails(x)

        for concurrency in (1, 7, 64):
            with pytest.raises(sp.BudgetExceeded, match="10 of the first 20 items"):
                driven(AsyncMap(treated, concurrency), range(900), sp.skip(0.4, after=19))


class TestGathering:
    def test_a_buffer_that_is_yielded_again_and_again(self) -> None:
        def reused(x: int) -> Iterator[np.ndarray[Any, Any]]:
            buffer = np.zeros(3)
            for n in range(3):
                buffer[:] = n
                yield buffer

        pipe = sp.Pipeline([1]).flat_map(reused, on_error="skip")
        assert [array.tolist() for array in pipe] == [[0.0] * 3, [1.0] * 3, [2.0] * 3]

    def test_parts_have_the_numbers_that_they_have_without(self) -> None:
        def noisy(x: int, rng: np.random.Generator) -> float:
            return float(rng.random())

        def parts(x: int) -> list[int]:
            return [x] * x

        plain = sp.Pipeline(range(5)).flat_map(parts).map(noisy)
        again = {"fails": True}

        def flaky(x: int) -> Iterator[int]:
            yield from parts(x)[:1]
            if x == 3 and again.pop("fails", False):
                raise OSError
            yield from parts(x)[1:]

        retried = sp.Pipeline(range(5)).flat_map(
            flaky, on_error=sp.retry(1, delay_s=0), name="parts"
        )
        assert list(retried.map(noisy)) == list(plain)


def test_an_item_survives_its_line() -> None:
    error = ValueError("line\n\udcff \u2028 end")
    context = Context("a stage", epoch=(3 << 32) + 2)
    failed = FailedItem.of(error, context, position=7, part=2**63, record=1, key="k")
    line = failed.to_json()
    assert "\n" not in line
    assert json.loads(line)["repeat"] == 3
    assert FailedItem.of_json(line) == failed
    assert FailedItem.of_json(line[:-1] + ',"later":1}') == failed
    for text in ("[]", "{}", '{"stage":"a"}', "x"):
        with pytest.raises(ValueError):  # noqa: PT011
            FailedItem.of_json(text)


def test_messages_that_cannot_be_said() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def mute(x: int) -> int:
        raise Mute

    _, _, ledger = driven(Map(mute), [1])
    assert ledger.items[0].message == "<its str() failed>"


def test_long_ones_are_cut() -> None:
    def long(x: int) -> int:
        raise ValueError("x" * 100_000)

    _, _, ledger = driven(Map(long), [1])
    assert len(ledger.items[0].to_json()) < 20_000
