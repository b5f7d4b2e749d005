"""The stages of a pool, begun anew for every unit: what a chain made for that unit gives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.pipeline.graph import Body, Part
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.pipeline.source import SequenceSource
from splitpipe.runtime import board as b
from splitpipe.runtime.chain import Chain
from splitpipe.runtime.line import Line
from splitpipe.runtime.notes import Notes

UNITS = ((0, 0, 4), (0, 8, 12), (0, 4, 8), (1, 0, 4), (0, 12, 14))
"""Epoch, and positions of the source: not in their order."""


def noisy(value: Any, rng: np.random.Generator | None = None) -> tuple[Any, float]:
    assert rng is not None
    return value, float(rng.random())


def twice(value: Any) -> Iterator[Any]:
    yield value
    yield value


def few(value: Any) -> bool:
    return hash(value) % 3 > 0


def fails_at_nine(value: int) -> int:
    if value == 9:
        raise ValueError("nine")
    return value


def same(value: Any) -> Any:
    return value


def source(**options: Any) -> sp.Pipeline:
    return sp.Pipeline(range(100, 114), shuffle="global", seed=5, **options)


PIPES = {
    "map": lambda: source().map(same, workers=2),
    "numbers": lambda: source().map(noisy, workers=2).flat_map(twice).filter(few),
    "batch": lambda: source().map(noisy, workers=2).batch(2, collate=list),
    "numbers of batches": lambda: source().batch(2, collate=sum).map(noisy, workers=2),
    "before a cache": lambda: source().map(noisy, workers=2).cache(),
    "of one rank": lambda: source().shard(1, 3).map(noisy, workers=2),
    "left out": lambda: source().map(same, workers=2, on_error=sp.skip(3)).map(noisy),
}


def body_of(pipe: sp.Pipeline) -> Body:
    return plan({"": pipe.node}, RunOptions()).tasks[0].body


def items_of(body: Body, epoch: int, start: int, stop: int) -> Iterator[Any]:
    head = body.source
    assert isinstance(head, SequenceSource)
    frozen = body.parts[0].frozen
    return head.items(head.order(0 if frozen else epoch), start, stop)


def by_chain(body: Body, epoch: int, start: int, stop: int) -> list[Any]:
    def opened(number: int, part: Part, wanted: int) -> Iterator[Any]:
        return items_of(body, epoch, start, stop)

    chain = Chain(body, epoch, first=start)
    (items,) = chain.start(opened)
    made = list(items)
    chain.close()
    return [made, chain.dropped, chain.position]


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("name", PIPES)
def test_every_unit_is_what_a_chain_gives(name: str, *, noted: bool) -> None:
    body = body_of(PIPES[name]())
    head = body.source
    assert isinstance(head, SequenceSource)
    row = memoryview(bytearray(8 * b.FIELDS)).cast("d")
    notes = Notes(row, items=True, stages=True) if noted else None
    line = Line(body, {})
    for epoch, start, stop in UNITS:
        if stop > len(head):
            continue
        items = line.begin(epoch, start, partial(items_of, body, epoch, start, stop), notes=notes)
        made = list(items)
        line.close()
        dropped = sum(context.dropped for context in line.contexts.values())
        assert [made, dropped, line.cursor.position] == by_chain(body, epoch, start, stop)
        assert line.counts == (dropped > 0 or name == "left out")
        assert len(list(line)) == len(body.parts)


def test_an_error_says_where_it_was_and_the_next_unit_is_whole() -> None:
    body = body_of(sp.Pipeline(range(20)).map(fails_at_nine, workers=2))
    line = Line(body, {})
    with pytest.raises(ValueError, match="nine") as caught:
        list(line.begin(3, 8, partial(items_of, body, 3, 8, 12)))
    line.close()
    (first, second) = line.where(caught.value, "worker 1")
    assert first == "in stage 'fails_at_nine' (worker 1), epoch 3, input item 9"
    assert second.startswith("record 9 of")
    assert list(line.begin(3, 12, partial(items_of, body, 3, 12, 15))) == [12, 13, 14]
    line.close()


def test_what_cannot_be_opened_is_raised_where_its_first_item_would_come() -> None:
    def refuse() -> Iterator[Any]:
        raise OSError("no such file")

    line = Line(body_of(sp.Pipeline(range(20)).map(same, workers=2)), {})
    items = line.begin(0, 0, refuse)
    with pytest.raises(OSError, match="no such file"):
        next(items)
    line.close()
