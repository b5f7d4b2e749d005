"""`skip` leaves out the first items, and says how many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.skip import Skip
from tests.pipeline.stages.driving import Watched, context_of, drive


@given(st.lists(st.integers()), st.integers(0, 12))
def test_it_is_a_slice_and_counts_what_it_leaves_out(items: list[int], count: int) -> None:
    skip = Skip(count)
    context = context_of(skip)
    made = drive(skip, items, context=context)
    assert made == items[count:]
    assert len(made) + context.dropped == len(items)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    skip, items = Skip(3), Watched(range(10))
    stream = skip.run([items], context_of(skip))
    assert items.taken == 0
    assert next(stream) == 3
    assert items.taken == 4


def test_counts_may_be_numpy_integers() -> None:
    assert Skip(np.int8(2)) == Skip(2)
    assert type(Skip(np.int8(2)).count) is int


@pytest.mark.parametrize("count", [-1, 1.5, "2", None, True])
def test_what_is_no_count_is_refused(count: Any) -> None:
    with pytest.raises(GraphError, match="count must be a whole number of at least 0"):
        Skip(count)
