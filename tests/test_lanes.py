"""Orders in lanes: bijections still, the same for any number of ranks, and each rank by itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.errors import GraphError, ResumeError
from splitpipe.order import Order, make_order
from splitpipe.order.lanes import LaneOrder
from splitpipe.storage.layout import BinLayout, Segment

SHUFFLES = st.sampled_from([None, "global", "binwise"])


class Bins(list[int]):
    """Numbers that lie in bins."""

    def __init__(self, rows: int, bins: int = 5) -> None:
        super().__init__(range(rows))
        half = rows // 3
        segments = [Segment(0, half, 0, bins), Segment(half, rows - half, bins, bins + 2)]
        self._layout = BinLayout(segments)

    def bin_layout(self) -> BinLayout:
        return self._layout


@given(
    rows=st.integers(0, 700),
    lanes=st.integers(2, 40),
    shuffle=SHUFFLES,
    seed=st.integers(0, 1 << 40),
    epoch=st.integers(0, 9),
    window=st.integers(1, 4),
)
@settings(max_examples=80)
def test_every_row_comes_once_and_keeps_its_lane(
    rows: int, lanes: int, shuffle: str | None, seed: int, epoch: int, window: int
) -> None:
    order = make_order(Bins(rows), shuffle, seed, epoch, window, lanes)
    assert isinstance(order, LaneOrder)
    found = order.indices(0, rows)
    assert sorted(found.tolist()) == list(range(rows))
    assert [order[position] for position in range(rows)] == found.tolist()
    rounds = rows // lanes
    for lane in range(lanes):
        first, stop = order.stretch(lane)
        mine = found[lane : rounds * lanes : lanes]
        assert len(mine) == rounds
        assert ((first <= mine) & (mine < stop)).all()
    again = pickle.loads(pickle.dumps(order))
    assert again == order
    assert again.indices(rows // 3, rows).tolist() == found[rows // 3 :].tolist()


@pytest.mark.parametrize("shuffle", ["global", "binwise"])
def test_what_is_over_is_another_one_in_every_epoch(shuffle: str) -> None:
    ends = {
        tuple(make_order(Bins(1003), shuffle, 1, e, lanes=4).indices(1000, 1003)) for e in range(6)
    }
    assert len(ends) == 6


def test_lanes_and_epochs_are_shuffled_apart() -> None:
    for shuffle in ("global", "binwise"):
        seen = set()
        for epoch in range(3):
            order = make_order(Bins(4000), shuffle, 1, epoch, lanes=4)
            for lane in range(4):
                seen.add(tuple((order.indices(0, 4000)[lane::4] - order.stretch(lane)[0]).tolist()))  # type: ignore[attr-defined]
        assert len(seen) == 12


def test_for_ever() -> None:
    """Golden values: a change here breaks every training run that was interrupted."""
    assert make_order(range(11), None, 0, 0, lanes=3).indices(0, 11).tolist() == GOLDEN[None]
    assert (
        make_order(range(1 << 40), "global", 7, 2, lanes=64)
        .indices(1 << 39, (1 << 39) + 3)
        .tolist()
        == GOLDEN["global"]
    )
    assert (
        make_order(Bins(1_000_000, 32), "binwise", 7, 2, 4, 64).indices(500_000, 500_003).tolist()
        == GOLDEN["binwise"]
    )


GOLDEN: dict[str | None, list[int]] = {
    None: [0, 3, 7, 1, 4, 8, 2, 5, 9, 6, 10],
    "global": [7565280748, 22685633918, 40285760775],
    "binwise": [505418, 524551, 533598],
}


def parts(world: int, rows: int = 400, **options: Any) -> list[list[int]]:
    pipe = sp.Pipeline(Bins(rows), seed=3, **options)
    return [list(pipe.shard(rank, world)) for rank in range(world)]


@pytest.mark.parametrize("shuffle", [None, "global", "binwise"])
def test_ranks_read_stretches_of_their_own_and_take_the_same_steps(shuffle: str | None) -> None:
    whole = list(sp.Pipeline(Bins(400), shuffle=shuffle, seed=3, lanes=8))
    for world in (1, 2, 4, 8):
        ranks = parts(world, shuffle=shuffle, lanes=8)
        assert [item for step in zip(*ranks, strict=True) for item in step] == whole
        for rank, mine in enumerate(ranks):
            own = {item // 50 for item in mine}
            assert own == set(range(rank, 8, world))


def test_ranks_that_do_not_divide_them_take_the_same_steps_too() -> None:
    whole = list(sp.Pipeline(Bins(400), shuffle="binwise", seed=3, lanes=8))
    ranks = parts(5, shuffle="binwise", lanes=8)
    assert [item for step in zip(*ranks, strict=True) for item in step] == whole


def test_workers_and_resuming_change_nothing() -> None:
    pipe = sp.Pipeline(Bins(403), shuffle="binwise", window=2, seed=3, lanes=4).shard(1, 2).batch(7)
    truth = [batch.tolist() for batch in pipe.loader(executor="inline")]
    with pipe.loader(executor="thread") as loader:
        assert [batch.tolist() for batch in loader] == truth
    with pipe.loader(executor="inline") as loader:
        items = iter(loader)
        assert [next(items).tolist() for _ in range(3)] == truth[:3]
        state = loader.state_dict()
    with pipe.loader(executor="thread", state=state) as loader:
        assert [batch.tolist() for batch in loader] == truth[3:]
    other = sp.Pipeline(Bins(403), shuffle="binwise", window=2, seed=3).shard(1, 2).batch(7)
    with pytest.raises(ResumeError, match="lanes"):
        list(other.loader(executor="inline", state=state))


def test_going_on_with_other_ranks() -> None:
    def pipe(rank: int, world: int) -> sp.Pipeline:
        return sp.Pipeline(Bins(400), shuffle="global", seed=3, lanes=8).shard(rank, world)

    before: list[list[int]] = []
    states = []
    for rank in range(4):
        with pipe(rank, 4).loader(executor="inline") as loader:
            items = iter(loader)
            before.append([next(items) for _ in range(10)])
            states.append(loader.state_dict())
    after = []
    for rank, state in enumerate(sp.redistribute(states, 8)):
        with pipe(rank, 8).loader(executor="inline", state=state) as loader:
            after.append(list(loader))
    assert sorted(item for mine in [*before, *after] for item in mine) == list(range(400))
    # 40 positions are behind, which the new ranks divide: each goes on in a lane of its own.
    assert all(len({item // 50 for item in mine}) == 1 for mine in after)


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        ((1, 4), "2 of 8 lanes, which no other rank reads"),
        ((1, 3), "of all 8 lanes, since 3 ranks do not divide them"),
    ],
)
def test_it_is_told(rank: tuple[int, int], text: str) -> None:
    pipe = sp.Pipeline(range(400), lanes=8).shard(*rank).batch(5)
    assert text in str(pipe.explain())


def test_that_whole_batches_are_dealt_is_told() -> None:
    pipe = sp.Pipeline(range(400), lanes=8).batch(5).shard(1, 4)
    assert "of all 8 lanes, since whole batches are dealt" in str(pipe.explain())


def test_what_cannot_be() -> None:
    with pytest.raises(GraphError, match="lanes"):
        sp.Pipeline(range(10), lanes=0)
    with pytest.raises(GraphError, match="lanes=2 needs a source with len"):
        sp.Pipeline(lambda: iter(range(10)), lanes=2)
    with pytest.raises(GraphError, match="no bins"):
        sp.Pipeline(range(10), shuffle="binwise", lanes=2)

    with pytest.raises(GraphError, match="a mixture of datasets has no lanes"):
        sp.Pipeline(sp.Streams([range(10), range(5)]), lanes=2)
    pipe = sp.Pipeline(range(64), lanes=2).shard(0, 2).balance(np.ones(64)).batch(4)
    with pytest.raises(GraphError, match="leave one of them out"):
        list(pipe)


def test_datasets_and_views(tmp_path: Path) -> None:
    sp.write_split_data(str(tmp_path / "d"), [b"%d" % n for n in range(500)], splits=7)
    with sp.open_dataset(tmp_path / "d") as ds:
        pipe = sp.Pipeline(ds, shuffle="binwise", window=2, seed=1, lanes=4)
        found = [list(pipe.shard(rank, 4)) for rank in range(4)]
        assert sorted(int(item) for mine in found for item in mine) == list(range(500))
        assert [{int(item) // 125 for item in mine} for mine in found] == [{0}, {1}, {2}, {3}]
        whole: Order = make_order(ds, "binwise", 1, 0, 2, 4)
        assert [bytes(item) for item in pipe] == [ds[row] for row in whole]
