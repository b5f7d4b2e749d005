"""The order of many streams, against lists that are put together one sample after the other."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from itertools import chain, cycle, islice
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

import splitpipe as sp
from splitpipe.errors import GraphError
from splitpipe.order import make_order
from splitpipe.permutation import KeyedPermutation, derive_key
from splitpipe.pipeline.streams.counts import apportioned, rounded
from splitpipe.pipeline.streams.draws import Draws
from splitpipe.pipeline.streams.mixed import MixedOrder
from splitpipe.pipeline.streams.schedules import RANDOM_BLOCK, SCHEDULES, WITH_BATCH, schedule_of
from splitpipe.pipeline.streams.spread import Spread, floor_sums, step_of

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)
KEYS = st.integers(0, (1 << 64) - 1)
BATCHES = st.integers(1, 12)


def comb(counts: list[int], block: int, key: int) -> list[list[int]]:
    """The samples of each stream in every block: a comb over fractions that lie end to end."""
    total = sum(counts)
    full = total // block
    made = []
    if full:
        whole = apportioned(full * block, counts)
        line = list(chain.from_iterable([k] * (count % full) for k, count in enumerate(whole)))
        step = step_of(full)
        for number in range(full):
            tooth = (number * step + key) % full
            met = Counter(line[tooth::full])
            made.append([count // full + met[k] for k, count in enumerate(whole)])
    if total % block:
        given_out = [sum(column) for column in zip(*made, strict=True)] or [0] * len(counts)
        made.append([count - had for count, had in zip(counts, given_out, strict=True)])
    return made


def random_turns(counts: list[int], key: int, block: int = RANDOM_BLOCK) -> list[int]:
    turns: list[int] = []
    for number, inside in enumerate(comb(counts, block, key)):
        slots = list(chain.from_iterable([k] * count for k, count in enumerate(inside)))
        shuffled = KeyedPermutation(len(slots), derive_key(key, number))
        turns += [slots[place] for place in shuffled.between(0, len(slots)).tolist()]
    return turns


def turns_of(schedule: str, counts: list[int], batch: int | None, key: int) -> list[int]:
    """Whose turn every position is, as a list."""
    if schedule == "sequential":
        return list(chain.from_iterable([k] * count for k, count in enumerate(counts)))
    if schedule == "random":
        return random_turns(counts, key)
    if schedule == "round-robin":
        left, turns = list(counts), []
        for k in cycle(range(len(counts))):
            if not any(left):
                return turns
            if left[k]:
                left[k] -= 1
                turns.append(k)
    assert batch is not None
    if schedule == "stratified":
        return list(
            chain.from_iterable(
                [k] * count for inside in comb(counts, batch, key) for k, count in enumerate(inside)
            )
        )
    batches = random_turns([count // batch for count in counts], key)
    return list(chain.from_iterable([k] * batch for k in batches))


def with_draws(turns: list[int]) -> list[tuple[int, int]]:
    had: Counter[int] = Counter()
    made = []
    for k in turns:
        made.append((k, had[k]))
        had[k] += 1
    return made


class TestCounts:
    @given(st.integers(0, 10_000), st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
    def test_shares_are_rounded_down_or_up_and_together_exact(
        self, total: int, weights: list[float]
    ) -> None:
        assume(any(weights))
        shares = apportioned(total, weights)
        assert sum(shares) == total
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share - total * weight / sum(weights)) < 1 + 1e-6

    def test_what_is_left_goes_to_the_largest_fractions(self) -> None:
        assert apportioned(10, [0.1, 0.2, 0.7]) == (1, 2, 7)
        assert apportioned(3, [1, 1, 1, 1]) == (1, 1, 1, 0)
        assert apportioned(10**18 + 1, [1, 1]) == (5 * 10**17 + 1, 5 * 10**17)

    def test_factors_are_rounded_to_the_nearest(self) -> None:
        assert [rounded(0.7, 10), rounded(0.5, 3), rounded(2.5, 4), rounded(0.1, 4)] == [
            7,
            2,
            10,
            0,
        ]


class TestSpread:
    @given(st.integers(0, 60), st.integers(1, 90), st.integers(0, 300), st.integers(0, 500))
    def test_floors_are_summed(self, count: int, modulus: int, step: int, offset: int) -> None:
        expected = sum((step * i + offset) // modulus for i in range(count))
        made = floor_sums(np.array([count]), modulus, step, np.array([offset]))
        assert made.tolist() == [expected]

    @given(COUNTS, BATCHES, KEYS)
    def test_it_is_the_comb(self, counts: list[int], block: int, key: int) -> None:
        spread = Spread(counts, block, key)
        expected = comb(counts, block, key)
        assert spread.blocks == len(expected)
        blocks = np.arange(spread.blocks)
        inside = spread.inside(blocks)
        assert inside.tolist() == expected
        before = np.cumsum(inside, axis=0) - inside
        assert spread.before(blocks).tolist() == before.tolist()
        for chosen in (blocks, blocks[::2], blocks[1:2]):
            assert spread.both(chosen)[0].tolist() == before[chosen].tolist()
            assert spread.both(chosen)[1].tolist() == inside[chosen].tolist()

    @given(COUNTS, BATCHES, KEYS)
    def test_every_block_has_every_share_rounded_down_or_up(
        self, counts: list[int], block: int, key: int
    ) -> None:
        spread, total = Spread(counts, block, key), sum(counts)
        inside = spread.inside(np.arange(spread.blocks))
        assert inside.sum(axis=0).tolist() == counts
        assert (inside >= 0).all()
        for number, row in enumerate(inside.tolist()):
            size = min(block, total - number * block)
            assert sum(row) == size
            for had, count in zip(row, counts, strict=True):
                assert abs(had * total - size * count) < total  # within less than one sample

    @given(
        st.lists(st.integers(0, 10**6), min_size=2, max_size=9).filter(any),
        st.sampled_from([1, 7, 64, 1000]),
        KEYS,
    )
    @settings(max_examples=30)
    def test_no_stream_runs_ahead(self, counts: list[int], block: int, key: int) -> None:
        spread, total = Spread(counts, block, key), sum(counts)
        blocks = np.unique(np.linspace(0, spread.blocks - 1, 300).astype(np.int64))
        before = spread.before(blocks)
        shares = np.outer(blocks * block, np.array(counts) / total)
        assert np.abs(before - shares).max() < 2.5 + 0.4 * np.log2(spread.blocks + 1)

    def test_a_step_visits_every_place_once(self) -> None:
        for blocks in range(1, 300):
            step = step_of(blocks)
            assert len({number * step % blocks for number in range(blocks)}) == blocks

    def test_an_epoch_of_a_billion(self) -> None:
        counts = [700_000_001, 200_000_003, 99_999_999]
        spread = Spread(counts, 1, 12345678901234567890)
        assert spread.blocks == sum(counts)
        ends = np.array([0, 10**6, 10**9, sum(counts) - 1])
        shares = np.outer(ends, np.array(counts) / sum(counts))
        before = spread.before(ends)
        assert before.sum(axis=1).tolist() == ends.tolist()
        assert np.abs(before - shares).max() < 10
        with pytest.raises(GraphError, match="too long"):
            Spread([1 << 31], 1, 0)


class TestSchedules:
    @given(COUNTS, BATCHES, KEYS, st.sampled_from(SCHEDULES))
    def test_is_what_lists_give(self, counts: list[int], batch: int, key: int, name: str) -> None:
        given = batch if name in WITH_BATCH else None
        if name == "per-stream":
            counts = [count // batch * batch for count in counts]
        expected = with_draws(turns_of(name, counts, given, key))
        assert [sum(k == one for one, _ in expected) for k in range(len(counts))] == counts
        made = schedule_of(name, counts, given, key).find(np.arange(sum(counts)))
        assert list(zip(*(one.tolist() for one in made), strict=True)) == expected

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_of_more_than_one_block(self, name: str) -> None:
        counts = [9_000, 0, 200, 12_800]
        given = 100 if name in WITH_BATCH else None
        expected = with_draws(turns_of(name, counts, given, 99))
        schedule = schedule_of(name, counts, given, 99)
        made = schedule.find(np.arange(sum(counts)))
        assert list(zip(*(one.tolist() for one in made), strict=True)) == expected
        for chosen in (slice(4090, 4100), slice(3, None, 64), slice(21_999, None), slice(5, 5)):
            found = schedule.find(np.arange(sum(counts))[chosen])
            assert list(zip(*(one.tolist() for one in found), strict=True)) == expected[chosen]

    @given(st.lists(st.integers(0, 40), min_size=80, max_size=90), BATCHES, KEYS)
    @settings(max_examples=20)
    def test_places_far_apart_among_many_streams(
        self, counts: list[int], batch: int, key: int
    ) -> None:
        assume(any(counts))
        schedule = schedule_of("stratified", counts, batch, key)
        streams, draws = schedule.find(np.arange(sum(counts)))
        for start, step in ((0, 97), (5, 1000), (sum(counts) - 1, 1)):
            chosen = np.arange(start, sum(counts), step)
            assert schedule.find(chosen)[0].tolist() == streams[chosen].tolist()
            assert schedule.find(chosen)[1].tolist() == draws[chosen].tolist()

    def test_random_is_well_mixed(self) -> None:
        counts = [30_000, 10_000]
        turns, _ = schedule_of("random", counts, None, 5).find(np.arange(40_000))
        runs = np.count_nonzero(turns[1:] != turns[:-1])
        expected, deviation = 2 * 0.75 * 0.25 * 40_000, 2 * 0.75 * 0.25 * np.sqrt(40_000)
        assert abs(runs - expected) < 6 * deviation


def draws_of(size: int, count: int, seed: int, epoch: int) -> list[int]:
    """The rows of a stream's samples, pass after pass, and a part of one more."""

    def shuffled(what: int, number: int) -> list[int]:
        return list(make_order(range(size), "global", derive_key(seed, what), number))

    passes, rest = divmod(count, size)
    made = []
    for number in range(passes):
        made += shuffled(0x50415353, epoch * passes + number)
    if rest:
        cycle_, part = divmod(epoch, size // rest)
        made += shuffled(0x52455354, cycle_)[part * rest : (part + 1) * rest]
    return made


class TestDraws:
    @given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 99), st.integers(0, 20))
    def test_is_what_lists_give(self, size: int, count: int, seed: int, epoch: int) -> None:
        draws = Draws(range(size), count, shuffle="global", window=1, seed=seed, epoch=epoch)
        expected = draws_of(size, count, seed, epoch)
        assert list(draws) == expected
        assert len(draws) == count
        assert [draws[at] for at in range(count)] == expected
        assert draws.at(np.arange(count)[::3]).tolist() == expected[::3]
        assert list(pickle.loads(pickle.dumps(draws))) == expected
        for start in range(0, count, 7):
            assert (
                draws._between(start, min(count, start + 20)).tolist()
                == expected[start : start + 20]
            )

    @given(st.integers(1, 30), st.integers(1, 100), st.sampled_from([None, "global"]))
    def test_every_record_comes_as_often_as_any_other_or_once_more(
        self, size: int, count: int, shuffle: str | None
    ) -> None:
        passes, rest = divmod(count, size)
        rounds = size // rest if rest else 3  # epochs until all were in a rest, about
        together: Counter[int] = Counter()
        for epoch in range(rounds):
            made = list(Draws(range(size), count, shuffle=shuffle, window=1, seed=1, epoch=epoch))
            often = Counter(made)
            assert all(often[row] in (passes, passes + 1) for row in range(size))
            assert len(made) == count
            together += often
        extra = 1 if rest else 0
        assert all(
            passes * rounds <= together[row] <= passes * rounds + extra for row in range(size)
        )


SOURCES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


class TestMixed:
    @given(SOURCES, st.data(), st.sampled_from(SCHEDULES), st.integers(0, 5))
    def test_is_what_lists_give(self, sizes: list[int], data: Any, name: str, epoch: int) -> None:
        batch = data.draw(BATCHES) if name in WITH_BATCH else None
        counts = [data.draw(st.integers(0, 30)) for _ in sizes]
        if name == "per-stream":
            assert batch is not None
            counts = [count // batch * batch for count in counts]
        assume(any(counts))
        draws = [
            Draws(range(size), count, shuffle="global", window=1, seed=number, epoch=epoch)
            for number, (size, count) in enumerate(zip(sizes, counts, strict=True))
        ]
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        order = MixedOrder(schedule_of(name, counts, batch, 7), draws, starts)
        rows = [
            iter([start + row for row in draws_of(size, count, number, epoch)])
            for number, (start, size, count) in enumerate(zip(starts, sizes, counts, strict=True))
        ]
        turns = turns_of(name, counts, batch, 7)
        expected = [next(rows[k]) for k in turns]
        assert list(order) == expected
        total = len(expected)
        assert order.turns(np.arange(total)).tolist() == turns
        for start in range(0, total + 1, 5):
            assert order.indices(start, total).tolist() == expected[start:]
        places = np.array(list(islice(cycle(range(total - 1, -1, -3)), 9)), dtype=np.int64)
        assert order.at(places).tolist() == [expected[at] for at in places.tolist()]
        assert [order[at] for at in range(total)] == expected
        again = pickle.loads(pickle.dumps(order))
        assert list(again) == expected

    def test_positions_outside(self) -> None:
        draws = [Draws(range(3), 3, shuffle=None, window=1, seed=0, epoch=0)]
        order = MixedOrder(schedule_of("random", [3], None, 0), draws, [0])
        for bounds in ((-1, 2), (0, 4), (2, 1)):
            with pytest.raises(IndexError):
                order.indices(*bounds)
        assert order.indices(2, 2).tolist() == []
        assert order.at(np.empty(0, np.int64)).tolist() == []


GOLDEN = {
    "random": "0d07ca9f9bb19fa8",
    "stratified": "e8b7444e9293d955",
    "per-stream": "ffa8d70d45a456c1",
    "round-robin": "b03c345ca60f393a",
    "sequential": "47b1a5b807f0c4d2",
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_mixture_is_the_same_for_ever(name: str) -> None:
    """Of this version and every later one: a state that was saved says positions of this order."""
    parts = [
        sp.Stream(range(size), proportion=share) for size, share in ((5000, 5), (300, 3), (77, 0.5))
    ]
    batch = 64 if name in WITH_BATCH else None
    order = sp.Streams(parts, schedule=name, batch=batch, epoch_size=9001).order("global", 42, 3)
    rows = order.indices(0, len(order)).astype("<i8").tobytes()
    assert hashlib.blake2b(rows, digest_size=8).hexdigest() == GOLDEN[name]
