"""`window`: overlapping batches, and what is in none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages import Batch
from splitpipe.pipeline.stages.window import Window
from tests.pipeline.stages.driving import Watched, context_of, drive

counts = st.integers(0, 30)
sizes = st.integers(1, 9)


def reference(count: int, size: int, step: int, *, drop_last: bool) -> list[list[int]]:
    """Windows by their definition: regular beginnings, full, and one for what is left."""
    items = list(range(count))
    full = [items[start : start + size] for start in range(0, count - size + 1, step)]
    rest = items[len(full) * step :]
    unseen = set(items) - {item for window in full for item in window}
    if not drop_last and unseen & set(rest):
        full.append(rest)
    return full


@given(counts, sizes, sizes, st.booleans())
def test_windows_are_what_they_are_defined_to_be(
    count: int, size: int, step: int, drop_last: bool
) -> None:
    window = Window(size, step, drop_last=drop_last, collate=list)
    context = context_of(window)
    made = drive(window, range(count), context=context)
    assert made == reference(count, size, step, drop_last=drop_last)
    seen = {item for one in made for item in one}
    assert len(seen) + context.dropped == count


@given(counts, sizes)
def test_a_window_that_steps_by_its_size_is_a_batch(count: int, size: int) -> None:
    rows = [np.full(2, i) for i in range(count)]
    windows, batches = drive(Window(size, size), rows), drive(Batch(size), rows)
    assert [w.tolist() for w in windows] == [b.tolist() for b in batches]


@given(counts, sizes, sizes)
def test_without_gaps_nothing_is_lost(count: int, size: int, step: int) -> None:
    made = drive(Window(size, min(step, size), collate=list), range(count))
    assert {item for one in made for item in one} == set(range(count))


def test_it_reads_one_window_and_not_more() -> None:
    items = Watched(range(9))
    stream = Window(3).run([items], context_of(Window(3)))
    assert next(stream).tolist() == [0, 1, 2]
    assert items.taken == 3
    assert next(stream).tolist() == [1, 2, 3]
    assert items.taken == 4


@pytest.mark.parametrize(
    ("arguments", "match"), [((0,), "size"), ((2, 0), "step"), ((1.5,), "size")]
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(GraphError, match=f"{match} must be a whole number of at least 1"):
        Window(*arguments)
