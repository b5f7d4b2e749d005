"""Who rides with whom where streams join and part, tested without any process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.explain import explain
from splitpipe.pipeline.plan import Plan, RunOptions, plan


def f(x: Any) -> Any:
    return x


def stream(items: Iterator[Any]) -> Iterator[Any]:
    yield from items


SEQUENCE = sp.Pipeline(range(100))
FACTORY = sp.Pipeline(lambda: iter(()))
SHARED = FACTORY.map(f, name="trunk")
POOL = SEQUENCE.map(f, workers=2, name="pool")


def planned(*pipes: sp.Pipeline, **options: Any) -> Plan:
    return plan({f"o{n}": pipe.node for n, pipe in enumerate(pipes)}, RunOptions(**options))


def tasks(*pipes: sp.Pipeline) -> dict[str, tuple[int, ...]]:
    """Return tasks by name: their workers, and the numbers of the tasks that they read."""
    made = planned(*pipes)
    origin = {edge: n for n, task in enumerate(made.tasks) for edge in task.outputs}
    for number, task in enumerate(made.tasks):
        assert all(origin[edge] < number for edge in task.inputs), "each after what it reads"
    assert sorted(origin) == list(range(made.edges))
    read = [edge for task in made.tasks for edge in task.inputs]
    read += [edge for local in made.locals for edge in local.inputs]
    assert sorted(read) == list(range(made.edges)), "every edge has one reader"
    return {task.name: (task.workers, *(origin[e] for e in task.inputs)) for task in made.tasks}


@pytest.mark.parametrize(
    ("pipes", "expected"),
    [
        ([sp.zip(SHARED.map(f), SHARED)], {"trunk > f > zip": (1,)}),
        ([sp.zip(SHARED.map(f), SHARED, workers=1)], {"trunk > f > zip": (1,)}),
        ([sp.zip(SHARED.map(f, workers=1), SHARED)], {"trunk > f > zip": (1,)}),
        (
            [sp.zip(SHARED.map(f, workers=2), SHARED)],
            {"trunk > zip": None},
        ),
        ([sp.zip(POOL, POOL)], {"pool": (2,), "zip": (1, 0)}),
        ([POOL, POOL.map(f, workers=1)], {"pool": (2,), "relay": (1, 0), "f": (1, 1)}),
        ([SHARED, SHARED.map(f)], {"trunk > f": (1,)}),
        ([sp.concat(SEQUENCE, FACTORY)], {"concat": (1,)}),
    ],
    ids=lambda value: repr(value)[:70],
)
def test_who_runs_what(pipes: list[sp.Pipeline], expected: dict[str, Any]) -> None:
    made = tasks(*pipes)
    if None in expected.values():  # together they would wait for themselves
        assert "trunk > zip" not in made
        assert made.keys() >= {"f"}
    else:
        assert made == expected


def test_a_relay_comes_after_its_pool_however_late_that_is() -> None:
    mapped = SEQUENCE.map(f)
    late = mapped.map(f, workers=1, name="late").filter(f, workers=2, name="pool")
    made = tasks(late.map(f), mapped.shuffle(3), late)
    assert "relay" in made


def test_who_asks_for_another_executor_does_not_ride() -> None:
    pipe = SHARED.map(f, workers=1, executor="process").map(f, executor="thread").map(f)
    assert [task.executor for task in planned(pipe).tasks] == ["process", "thread"]


@pytest.mark.parametrize(
    ("pipes", "message"),
    [
        (
            [sp.zip(SHARED.map(f, workers=0, name="here"), SHARED, workers=1)],
            "stage 'here' asks for the consumer's process (workers=0), but 'zip' after it",
        ),
        (
            [SHARED.map(f, workers=0, name="here"), SHARED.map(f, workers=0, name="there")],
            None,
        ),
        (
            (lambda one: [one, one.map(f, workers=0)])(SHARED.map(f, workers=0, name="here")),
            "the outputs 'o0' and 'o1' both read it; give it a process of its own (workers=1)",
        ),
        (
            [SHARED.through(stream, workers=1).shuffle(3).map(f, workers=1).repeat(2)],
            "'repeat(2)' begins its input anew, and",
        ),
        (
            (lambda one: [one.repeat(2), one])(FACTORY.shuffle(3)),
            "is read by another branch too",
        ),
        ([FACTORY.through(stream, workers=2)], "'stream' needs the whole stream in order"),
    ],
    ids=lambda value: repr(value)[:70],
)
def test_refusals(pipes: list[sp.Pipeline], message: str | None) -> None:
    if message is None:
        assert planned(*pipes).tasks
        return
    with pytest.raises(sp.GraphError, match=re.escape(message)):
        planned(*pipes)


def test_explain_says_where_batches_may_be_made_in_parts() -> None:
    said = "units of 4 positions, or in parts of a batch where one costs long"
    assert said in SEQUENCE.map(f, workers=2).batch(4).explain()
    for whole in (
        SEQUENCE.map(f, workers=2).batch(4, collate=list),
        SEQUENCE.map(f, workers=2, ordered=False).batch(4),
    ):
        assert "in parts" not in whole.explain()


def test_explain_names_what_is_read_and_by_whom() -> None:
    text = POOL.explain()
    assert "pool: reads the source, 2 processes" in text
    made = planned(POOL, POOL.map(f, workers=1))
    text = explain(made, RunOptions())
    assert "2. relay: 1 process, 2 outputs" in text
    assert "3. f: 1 process" in text
    assert "consumer's process (o0): reads 2., nothing but receiving" in text
    assert "consumer's process (o1): reads 3., nothing but receiving" in text
