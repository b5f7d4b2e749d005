"""`concat`, `interleave` and `zip`: several inputs, nothing lost."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.concat import Concat
from splitpipe.pipeline.stages.interleave import Interleave
from splitpipe.pipeline.stages.zip import Zip
from tests.pipeline.stages.driving import Watched, context_of, drive

streams = st.lists(st.lists(st.integers(0, 99), max_size=9), min_size=1, max_size=4)


@given(streams)
def test_concat_is_one_after_the_other(inputs: list[list[int]]) -> None:
    assert drive(Concat(), *inputs) == list(chain(*inputs))
    assert Concat().length([len(items) for items in inputs]) == sum(map(len, inputs))


def test_concat_opens_an_input_when_the_one_before_has_ended() -> None:
    first, second = Watched([1, 2]), Watched([3])
    stream = Concat().run([first, second], context_of(Concat()))
    assert [next(stream), next(stream), second.taken] == [1, 2, 0]


@given(streams, st.integers(1, 4))
def test_interleave_takes_turns(inputs: list[list[int]], block: int) -> None:
    made = drive(Interleave(block), *inputs)
    blocks = [[x[i : i + block] for i in range(0, len(x), block)] for x in inputs]
    expected = [turn for turns in zip_longest(*blocks, fillvalue=[]) for turn in turns]
    assert made == list(chain(*expected))
    assert Interleave(block).length([len(x) for x in inputs]) == len(made)


def test_interleave_reads_no_further_than_it_must() -> None:
    first, second = Watched(range(9)), Watched(range(9))
    stream = Interleave(2).run([first, second], context_of(Interleave()))
    assert [next(stream) for _ in range(3)] == [0, 1, 0]
    assert (first.taken, second.taken) == (2, 1)


@given(streams)
def test_zip_of_the_shortest_counts_what_it_had_taken(inputs: list[list[int]]) -> None:
    zipped = Zip(uneven="shortest")
    context = context_of(zipped)
    watched = [Watched(items) for items in inputs]
    made = list(zipped.run(watched, context))
    assert made == list(zip(*inputs, strict=False))
    assert sum(items.taken for items in watched) == len(made) * len(inputs) + context.dropped
    assert zipped.length([len(items) for items in inputs]) == len(made)


@given(streams)
def test_zip_tells_uneven_inputs(inputs: list[list[int]]) -> None:
    lengths = [len(items) for items in inputs]
    if len(set(lengths)) == 1:
        assert drive(Zip(), *inputs) == list(zip(*inputs, strict=True))
        return
    with pytest.raises(ValueError, match="ended after") as caught:
        drive(Zip(), *inputs)
    ended = lengths.index(min(lengths))
    assert f"input {ended} ended after {min(lengths)} items" in str(caught.value)


def test_zip_gives_dicts_where_inputs_have_names() -> None:
    named = Zip(("image", "text"))
    assert drive(named, [1, 2], "ab") == [{"image": 1, "text": "a"}, {"image": 2, "text": "b"}]
    with pytest.raises(ValueError, match="input 'text' ended after 1 items, input 'image' goes on"):
        drive(named, [1, 2], "a")
    with pytest.raises(GraphError, match="2 names for 3 inputs"):
        drive(named, [1], [2], [3])


def test_zip_lets_go_of_a_row_before_it_asks_for_the_next() -> None:
    alive: list[int] = []

    class Item:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def items() -> Any:
        for _ in range(3):
            assert not alive
            yield Item()

    stream = Zip().run([items()], context_of(Zip()))
    widths = [len(next(stream)) for _ in range(3)]  # holds none of them
    assert widths == [1, 1, 1]
    assert next(stream, None) is None


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Interleave(0), "block must be a whole number of at least 1"),
        (lambda: Zip(uneven="longest"), "uneven must be one of raise, shortest"),
        (lambda: Zip(("a", "a")), "names of zipped inputs must differ"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        make()
