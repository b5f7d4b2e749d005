"""`route`: every item through its branch, and all of them in their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages import Batch, Context, Filter, FlatMap, Map, Operation
from splitpipe.pipeline.stages.route import Route
from tests.pipeline.stages.driving import Watched, context_of, drive


def parity(n: int) -> str:
    return "odd" if n % 2 else "even"


def twice(n: int) -> list[int]:
    return [n, n]


def small(n: int) -> bool:
    return n < 50


BRANCHES = {"odd": (Map(str), Map(lambda s: s + "!")), "even": (Filter(small), FlatMap(twice))}


def reference(n: int) -> list[Any]:
    if n % 2:
        return [f"{n}!"]
    return [n, n] if n < 50 else []


@given(st.lists(st.integers(0, 99)))
def test_items_keep_their_places(items: list[int]) -> None:
    route = Route(parity, BRANCHES)
    context = context_of(route)
    made = drive(route, items, context=context)
    assert made == [one for n in items for one in reference(n)]
    assert context.dropped == sum(1 for n in items if not reference(n))
    odd = sum(n % 2 for n in items)
    assert context.measured == {"to odd": odd, "to even": len(items) - odd}


@given(st.lists(st.integers(0, 5)), st.sampled_from((None, "one")))
def test_other_items_are_dropped_or_go_where_is_said(items: list[int], other: str | None) -> None:
    branches: dict[Any, Any] = {"one": (Map(lambda n: -n),), "two": ()}
    route = Route(lambda n: {1: "one", 2: "two"}.get(n), branches, other)
    context = context_of(route)
    made = drive(route, items, context=context)
    if other is None:
        assert made == [-n if n == 1 else n for n in items if n in (1, 2)]
    else:
        assert made == [n if n == 2 else -n for n in items]
    assert len(made) + context.dropped == len(items)


def test_an_item_without_a_branch_is_told() -> None:
    route = Route(len, {1: ()})
    with pytest.raises(ValueError, match=r"label 2; there are branches for \[1\]; say other="):
        drive(route, ["a", "bb"])
    with pytest.raises(ValueError, match="cannot be a label: unhashable"):
        drive(Route(lambda item: [item], {1: ()}), [1])  # type: ignore[arg-type, return-value]


def test_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []
    items = Watched([1, 1, 2, 1])
    route = Route(parity, {"odd": (Map(made.append),), "even": ()})
    stream = route.run([items], context_of(route))
    assert items.taken == 0
    for asked, taken in enumerate((1, 2, 3, 4), 1):
        next(stream)
        assert (items.taken, len(made)) == (taken, (1, 2, 2, 3)[asked - 1])


def test_generators_of_branches_are_closed_with_the_route() -> None:
    closed: list[int] = []

    def watched(n: int) -> Iterator[int]:
        try:
            yield n
            yield n
        finally:
            closed.append(n)

    route = Route(parity, {"odd": (FlatMap(watched),), "even": ()})
    stream: Any = route.run([iter([1, 3])], context_of(route))
    next(stream)
    assert closed == []
    stream.close()
    assert closed == [1]


def test_randomness_depends_on_the_item_and_its_stage_alone() -> None:
    def draw(n: int, rng: Any) -> tuple[int, int]:
        return n, int(rng.integers(1 << 60))

    route = Route(
        parity, {"odd": (Map(draw), Map(lambda x, rng: (x, draw(0, rng)[1]))), "even": (Map(draw),)}
    )
    assert route.random
    items = [1, 2, 1, 1, 2]
    made, again = drive(route, items), drive(route, items)
    assert made == again
    numbers = [n for one in made for n in (_flat(one)) if n > 99]
    assert len(set(numbers)) == len(numbers) == 8
    context = context_of(route)
    assert context.place is not None
    context.place.number = 3
    assert drive(route, items[3:], context=context) == made[3:]


def _flat(value: Any) -> list[int]:
    return [n for one in value for n in _flat(one)] if isinstance(value, tuple) else [value]


def test_counts_are_known_where_they_are_known_of_every_branch() -> None:
    assert Route(parity, {"odd": (Map(str),), "even": ()}).ratio == 1
    assert Route(parity, {"odd": (Map(str),), "even": ()}, None).ratio is None
    assert Route(parity, BRANCHES).ratio is None


@dataclass(frozen=True)
class Deaf(Operation):
    """Says that it treats each item by itself, and takes none."""

    per_item: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "deaf"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        yield from ()


def test_a_branch_that_takes_nothing_is_told() -> None:
    with pytest.raises(GraphError, match="branch 'odd' of a route did not take the item"):
        drive(Route(parity, {"odd": (Deaf(),)}), [1])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Route("key", {1: ()}), "key must be a function"),
        (lambda: Route(len, {}), "needs a dict of branches"),
        (lambda: Route(len, {"raise": ()}), "cannot be called 'raise'"),
        (lambda: Route(len, {1: (Batch(2),)}), r"'batch\(2\)' in branch 1 .* whole stream"),
        (lambda: Route(len, {1: ()}, 2), r"one of the labels \[1\], not 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        make()
