"""From stages to tasks: a pure function, tested without any process."""

from __future__ import annotations

import re
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.plan import Plan, RunOptions, plan


def f(x: Any) -> Any:
    return x


def stream(items: Any) -> Any:
    return items


def planned(pipe: sp.Pipeline, **options: Any) -> Plan:
    return plan({"": pipe.node}, RunOptions(**options))


def shape(pipe: sp.Pipeline, **options: Any) -> tuple[list[tuple[str, int]], str]:
    made = planned(pipe, **options)
    return [(t.name, t.workers) for t in made.tasks], " ".join(
        s.name for s in made.locals[0].stages
    )


FACTORY = sp.Pipeline(lambda: iter(()))
SEQUENCE = sp.Pipeline(range(100))


class TestPlacement:
    @pytest.mark.parametrize(
        ("pipe", "tasks", "local"),
        [
            (SEQUENCE, [("source", 1)], ""),
            (SEQUENCE.map(f).filter(f), [("f > f-2", 1)], ""),
            (SEQUENCE.map(f, workers=2).filter(f), [("f > f-2", 2)], ""),
            (SEQUENCE.map(f).filter(f, workers=3), [("f > f-2", 3)], ""),
            (SEQUENCE.map(f, workers=2).batch(4).map(f), [("f > batch(4) > f-2", 2)], ""),
            (SEQUENCE.filter(f, workers=2).batch(4), [("f", 2), ("batch(4)", 1)], ""),
            (SEQUENCE.map(f, workers=2).through(stream), [("f", 2), ("stream", 1)], ""),
            (SEQUENCE.through(stream).map(f, workers=2), [("stream", 1), ("f", 2)], ""),
            (SEQUENCE.map(f, workers=2).map(f, workers=2), [("f", 2), ("f-2", 2)], ""),
            (SEQUENCE.map(f, workers=1).map(f, workers=1), [("f", 1), ("f-2", 1)], ""),
            (SEQUENCE.map(f, workers=0), [], "f"),
            (SEQUENCE.map(f).map(f, workers=0), [("f", 1)], "f-2"),
            (SEQUENCE.map(f, workers=2).map(f, workers=0).batch(2), [("f", 2)], "f-2 batch(2)"),
            (
                SEQUENCE.map(f, workers=2).map(f, workers=0).filter(f, workers=0),
                [("f", 2)],
                "f-2 f-3",
            ),
            (FACTORY.map(f), [("f", 1)], ""),
            (FACTORY.map(f, workers=2), [("source", 1), ("f", 2)], ""),
            (FACTORY.map(f).map(f, workers=2), [("f", 1), ("f-2", 2)], ""),
            (FACTORY.map(f, workers=2).batch(2), [("source", 1), ("f", 2), ("batch(2)", 1)], ""),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_who_runs_what(self, pipe: sp.Pipeline, tasks: Any, local: str) -> None:
        assert shape(pipe) == (tasks, local)
        inline = planned(pipe, executor="inline")
        assert inline.tasks == ()
        assert inline.locals[0].stages == pipe.stages

    def test_a_batch_with_known_rows_is_built_by_several_workers(self) -> None:
        made = planned(SEQUENCE.map(f, workers=2).batch(4).batch(3))
        assert made.tasks[0].unit == 12
        assert planned(SEQUENCE.map(f, workers=1).batch(4)).tasks[0].unit == 1
        assert planned(SEQUENCE.batch(4, workers=2).flat_map(f).map(f)).tasks[0].unit == 4

    def test_options_do_not_leak_from_one_task_to_the_next(self) -> None:
        pipe = SEQUENCE.map(f, workers=2, ordered=False, capacity=3).filter(f, workers=2)
        first, second = planned(pipe).tasks
        assert (first.ordered, first.window) == (False, 3)
        assert second.ordered
        assert second.window > 3

    def test_every_edge_is_bounded(self) -> None:
        for prefetch in (1, 4, 100_000):
            for task in planned(
                SEQUENCE.map(f, workers=2).through(stream), prefetch=prefetch
            ).tasks:
                assert 1 <= task.window <= 256
                assert task.slots > task.lease_limit >= 1

    def test_only_who_may_wait_and_was_not_told_how_much_gets_fewer_large_slots(self) -> None:
        mapped = SEQUENCE.map(f, workers=2)
        assert planned(mapped).tasks[0].warm_nbytes == 32 << 20
        assert planned(mapped.batch(4)).tasks[0].warm_nbytes == 32 << 20  # parts may be small
        assert planned(mapped.batch(4, collate=list)).tasks[0].warm_nbytes is None
        assert planned(SEQUENCE.map(f, workers=2, capacity=8)).tasks[0].warm_nbytes is None
        second = planned(SEQUENCE.through(stream).map(f, workers=2)).tasks[1]
        assert (second.pool, second.warm_nbytes) == (True, None)

    def test_it_is_pure(self) -> None:
        def touch() -> Any:
            raise AssertionError("planning must not read the source")

        pipe = sp.Pipeline(touch).map(touch, workers=2).batch(2)
        assert repr(planned(pipe)) == repr(planned(pipe))
        assert repr(pipe)
        assert pipe.explain()


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: SEQUENCE.filter(f).batch(2, workers=2), "batch(2)' needs the whole stream"),
            (lambda: FACTORY.batch(2, workers=2), "batch(2)' needs the whole stream in order"),
            (lambda: SEQUENCE.through(stream, workers=2), "'stream' needs the whole stream"),
            (
                lambda: SEQUENCE.map(f, workers=0, name="a").map(f, workers=1, name="b"),
                "stage 'a' asks for the consumer's process (workers=0), but 'b' after it",
            ),
        ],
    )
    def test_of_a_graph(self, make: Any, message: str) -> None:
        with pytest.raises(sp.GraphError, match=re.escape(message)):
            planned(make())

    @pytest.mark.parametrize(
        "options",
        [
            {"executor": "threads"},
            {"transport": "tcp"},
            {"start_method": "clone"},
            {"prefetch": 0},
            {"prefetch": 1.5},
            {"epochs": 0},
            {"epochs": True},
            {"arena_bytes": -1},
        ],
        ids=repr,
    )
    def test_of_options(self, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(sp.GraphError, match=name):
            RunOptions(**options)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: SEQUENCE.map(3), "map needs a function"),
            (lambda: SEQUENCE.map(f, workers=-1), "workers must be a whole number"),
            (lambda: SEQUENCE.map(f, workers=1.0), "workers must be a whole number"),
            (lambda: SEQUENCE.map(f, capacity=0), "capacity must be a whole number"),
            (lambda: SEQUENCE.batch(0), "size must be a whole number of at least 1"),
            (lambda: SEQUENCE.batch("2"), "size must be"),
            (lambda: SEQUENCE.take(-1), "count must be"),
            (lambda: sp.Pipeline("text"), "a str is not a source"),
            (lambda: sp.Pipeline({1: 2}), "a dict is not a source"),
            (lambda: sp.Pipeline(3), "is not a source"),
            (lambda: sp.Pipeline(iter([1])), "can be read only once"),
            (lambda: sp.Pipeline(list, shuffle="global"), "needs a source with len"),
            (lambda: sp.Pipeline(range(3), seed=-1), "seed"),
            (lambda: sp.Pipeline(range(3), window=0), "window"),
        ],
    )
    def test_of_a_description(self, make: Any, message: str) -> None:
        with pytest.raises(sp.GraphError, match=message):
            make()


class TestTake:
    @pytest.mark.parametrize(
        ("pipe", "positions", "left"),
        [
            (SEQUENCE.take(7), 7, 0),
            (SEQUENCE.map(f).take(7), 7, 0),
            (SEQUENCE.take(7).take(9), 7, 0),
            (SEQUENCE.batch(8).take(3), 24, 0),
            (SEQUENCE.batch(8).take(13), 100, 0),
            (SEQUENCE.batch(8).batch(2).take(3), 48, 0),
            (SEQUENCE.filter(f).take(7), 100, 1),
            (SEQUENCE.take(50).filter(f).take(7), 50, 1),
            (FACTORY.take(7), None, 1),
        ],
        ids=repr,
    )
    def test_bounds_the_source_where_counts_are_known(
        self, pipe: sp.Pipeline, positions: int | None, left: int
    ) -> None:
        made = planned(pipe)
        assert made.tasks[0].positions == positions
        names = [stage.name for task in made.tasks for stage in task.stages]
        assert sum(name.startswith("take") for name in names) == left

    @pytest.mark.parametrize("count", [0, 1, 2, 5, 99])
    @pytest.mark.parametrize("drop_last", [True, False])
    def test_never_changes_what_comes_out(self, count: int, drop_last: bool) -> None:
        for n in (0, 1, 7, 12):
            base = sp.Pipeline(range(n)).batch(3, collate=list, drop_last=drop_last)
            twice = base.batch(2, collate=list, drop_last=drop_last)
            for pipe in (base, twice):
                assert list(pipe.take(count)) == list(pipe)[:count]


class TestDescription:
    def test_is_immutable(self) -> None:
        pipe = sp.Pipeline(range(3))
        longer = pipe.map(f)
        assert pipe.stages == ()
        assert [stage.name for stage in longer.stages] == ["f"]
        with pytest.raises(AttributeError):
            pipe.stages = ()  # type: ignore[misc]

    def test_two_ways_from_one_beginning(self) -> None:
        pipe = sp.Pipeline(range(4)).map(lambda x: x + 1)
        assert list(pipe.filter(lambda x: x % 2)) == [1, 3]
        assert list(pipe.take(2)) == [1, 2]

    def test_repr(self) -> None:
        pipe = SEQUENCE.map(f, workers=2).filter(f).through(stream).batch(4).take(3)
        assert repr(pipe) == (
            "Pipeline(range(0, 100)) > map(f) x 2 > filter(f-2) > through(stream)"
            " > batch(4) > take(3)"
        )

    def test_len_where_it_can_be_known(self) -> None:
        assert len(SEQUENCE.map(f)) == 100
        assert len(SEQUENCE.batch(8)) == 13
        assert len(SEQUENCE.batch(8, drop_last=True)) == 12
        assert len(SEQUENCE.batch(8).take(3)) == 3
        for pipe in (SEQUENCE.filter(f), SEQUENCE.through(stream), FACTORY):
            with pytest.raises(TypeError, match="not known"):
                len(pipe)

    def test_explain_states_the_size_of_the_arena(self) -> None:
        text = SEQUENCE.map(f, workers=3).through(stream).explain(arena_bytes=8 << 20)
        assert "arena: at most 8 MiB of shared memory in all, 2 MiB for each of 4 workers" in text
        assert "1. f: reads the source, 3 processes" in text
        assert "2. stream: 1 process" in text
        assert "arena" not in SEQUENCE.map(f).explain(executor="inline")
