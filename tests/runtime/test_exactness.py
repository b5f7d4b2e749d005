"""Inline defines truth: every way to run a pipeline gives its items, in its order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.runtime.grants import Credits
from splitpipe.transport.memory import MemoryLink
from splitpipe.transport.message import Item, decode
from tests.runtime.comparing import Point, all_frozen, counted, frozen, kinds, read
from tests.sampling import sampled

KINDS = kinds()


def double(x: int) -> int:
    return 2 * x


def odd(x: int) -> bool:
    return x % 2 == 1


def copies(x: int) -> Iterator[tuple[int, int]]:
    for i in range(x % 4):
        yield x, i


def kind(x: int) -> Any:
    return KINDS[x % len(KINDS)]


def pairs(items: Iterator[Any]) -> Iterator[Any]:
    before = None
    for item in items:
        yield before, item
        before = item


def early(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _ in range(count):
        yield next(items, None)


def total(items: Iterator[int]) -> Iterator[int]:
    yield sum(items)


def nothing(items: Iterator[Any]) -> Iterator[Any]:
    return iter(())


def row(x: int) -> dict[str, Any]:
    return {"x": np.full((3, 5), x, np.float32), "n": x, "name": str(x), "pt": Point(x, b"l")}


def ragged(x: int) -> Any:
    return np.full(x % 5 + 1, x)


def sizes(x: int) -> Any:
    return np.full(400_000 if x % 7 == 3 else x, x, np.uint8)


def count_to(n: int) -> Callable[[], Iterator[int]]:
    return lambda: iter(range(n))


# Each is given `w`, the workers of its first pool.
PIPELINES: dict[str, Callable[[int], sp.Pipeline]] = {
    "map": lambda w: sp.Pipeline(range(50)).map(double, workers=w),
    "filter": lambda w: sp.Pipeline(range(50)).filter(odd, workers=w),
    "filter-all": lambda w: sp.Pipeline(range(50)).filter(lambda x: False, workers=w),
    "flat-map": lambda w: sp.Pipeline(range(50)).flat_map(copies, workers=w),
    "kinds": lambda w: sp.Pipeline(range(len(KINDS))).map(kind, workers=w),
    "kinds-on": lambda w: sp.Pipeline(range(len(KINDS))).map(kind).map(lambda x: x, workers=w),
    "kinds-factory": lambda w: sp.Pipeline(kinds).map(lambda x: x, workers=w),
    "through": lambda w: sp.Pipeline(range(50)).map(double, workers=w).through(pairs),
    "through-early": lambda w: sp.Pipeline(range(5000)).map(double, workers=w).through(early, 7),
    "through-total": lambda w: sp.Pipeline(range(9000)).map(double, workers=w).through(total),
    "through-none": lambda w: sp.Pipeline(range(50)).map(double, workers=w).through(nothing),
    "batch": lambda w: sp.Pipeline(range(53)).map(row, workers=w).batch(8),
    "batch-drop": lambda w: sp.Pipeline(range(53)).map(row, workers=w).batch(8, drop_last=True),
    "batch-alone": lambda w: sp.Pipeline(range(53)).batch(8, workers=w),
    "batch-twice": lambda w: sp.Pipeline(range(53)).map(double, workers=w).batch(4).batch(3),
    "batch-collate": lambda w: sp.Pipeline(range(9)).map(double, workers=w).batch(2, collate=sum),
    "ragged": lambda w: sp.Pipeline(range(53)).map(ragged, workers=w).batch(4),
    "unbatch": lambda w: sp.Pipeline(range(30)).map(row, workers=w).batch(7).unbatch(),
    "take": lambda w: sp.Pipeline(range(5000)).map(double, workers=w).take(11),
    "take-late": lambda w: sp.Pipeline(range(5000)).filter(odd, workers=w).take(11).batch(4),
    "take-none": lambda w: sp.Pipeline(range(50)).map(double, workers=w).take(0),
    "sizes": lambda w: sp.Pipeline(range(40)).map(sizes, workers=w),
    "empty": lambda w: sp.Pipeline([]).map(double, workers=w).batch(2),
    "one": lambda w: sp.Pipeline([4]).map(double, workers=w).batch(2),
    "shuffled": lambda w: sp.Pipeline(range(99), shuffle="global", seed=3).map(double, workers=w),
    "factory": lambda w: sp.Pipeline(count_to(300)).map(double, workers=w),
    "factory-empty": lambda w: sp.Pipeline(count_to(0)).map(double, workers=w),
    "two-pools": lambda w: sp.Pipeline(range(300)).map(double, workers=w).map(row, workers=3),
    "pool-stream-pool": lambda w: (
        sp.Pipeline(range(99)).flat_map(copies, workers=w).through(pairs).filter(bool, workers=2)
    ),
    "local-end": lambda w: (
        sp.Pipeline(range(99)).map(double, workers=w).batch(5, workers=0).unbatch().take(17)
    ),
}


@pytest.mark.parametrize(*sampled(1, name=PIPELINES, workers=[1, 2, 3]))
def test_fork_and_pipe(name: str, workers: int) -> None:
    pipe = PIPELINES[name](workers)
    for epochs, prefetch in ((1, 1), (3, 2)):
        expected = all_frozen(pipe.loader(executor="inline", epochs=epochs))
        with pipe.loader(start_method="fork", prefetch=prefetch, epochs=epochs) as loader:
            assert all_frozen(loader) == expected


@pytest.mark.parametrize(*sampled(1, name=PIPELINES, workers=[3, 1]))
def test_fork_and_zmq(name: str, workers: int) -> None:
    pipe = PIPELINES[name](workers)
    expected = all_frozen(pipe.loader(executor="inline", epochs=2))
    with pipe.loader(start_method="fork", transport="zmq", epochs=2, prefetch=5) as loader:
        assert all_frozen(loader) == expected


@pytest.mark.parametrize(
    *sampled(
        2,
        name=["kinds-on", "batch", "pool-stream-pool"],
        method=["forkserver", "spawn"],
        transport=["pipe", "zmq"],
    )
)
def test_other_start_methods(name: str, method: str, transport: str) -> None:
    pipe = PIPELINES[name](2)
    expected = all_frozen(pipe.loader(executor="inline", epochs=2))
    with pipe.loader(start_method=method, transport=transport, epochs=2) as loader:
        assert all_frozen(loader) == expected


@pytest.mark.parametrize(*sampled(1, transport=["pipe", "zmq"], capacity=[None, 1, 5, 1000]))
def test_unordered_gives_the_same_items_in_each_epoch(transport: str, capacity: int | None) -> None:
    pipe = sp.Pipeline(range(900)).flat_map(copies, workers=3, ordered=False, capacity=capacity)
    expected = counted(pipe)
    with pipe.loader(start_method="fork", transport=transport, epochs=3) as loader:
        assert [counted(epoch) for epoch in loader.by_epoch()] == [expected] * 3


@pytest.mark.parametrize("capacity", [1, 2, 100_000])
def test_capacity_changes_nothing(capacity: int) -> None:
    pipe = (
        sp.Pipeline(range(3000))
        .map(double, workers=2, capacity=capacity)
        .through(pairs, capacity=capacity)
    )
    with pipe.loader(start_method="fork") as loader:
        assert list(loader) == list(pipe)


@pytest.mark.parametrize(*sampled(1, workers=[1, 2], arena_bytes=[0, 1, 1 << 20, 3 << 20, 1 << 30]))
def test_the_size_of_the_arena_changes_nothing(arena_bytes: int, workers: int) -> None:
    pipe = sp.Pipeline(range(12)).map(lambda x: np.full(1 << 20, x, np.uint8), workers=workers)
    expected = all_frozen(pipe)
    with pipe.loader(start_method="fork", arena_bytes=arena_bytes, prefetch=2) as loader:
        assert all_frozen(loader) == expected


def test_the_units_of_a_pool_follow_what_they_cost() -> None:
    """Also behind a source that only one process can read, and that knows nothing of the pool."""
    pipe = sp.Pipeline(count_to(200)).map(lambda x: np.full(300_000, x, np.uint8), workers=2)
    with pipe.loader(start_method="fork") as loader:
        assert sum(1 for _ in loader) == 200
        assert loader.stats()[1].messages >= 100  # whatever it took: bytes alone say so


def test_the_head_of_a_pool_is_told_how_much_a_message_may_hold() -> None:
    link = MemoryLink()
    credits, told = Credits(link.sender(), run=1, window=4, pooled=True), link.receiver()
    words = iter(range(1, 9))

    def most(elapsed_ns: int, nbytes: int) -> int:
        """What a message may hold, once those of a hundred items have cost so much."""
        for sequence in range(20):
            credits.learn(Item(1, 0, 0, sequence, 0, 100, 100, elapsed_ns, nbytes))
        credits.hungry(next(words))
        wire, last = told.receive(), 0
        while wire is not None:
            last = decode(wire).start
            wire = told.receive(block=False)
        return last

    cheap, slow = most(1_000, 100), most(10**10, 100)
    large, cheap_again = most(1_000, 100 << 20), most(1_000, 100)
    assert (slow, large) == (1, 1)
    assert cheap == cheap_again > 100
    link.close()


def test_epochs_without_items_do_not_end_the_run_early() -> None:
    for pipe in (sp.Pipeline([]).map(double, workers=2), sp.Pipeline(count_to(0))):
        with pipe.loader(start_method="fork", epochs=400) as loader:
            assert [list(epoch) for epoch in loader.by_epoch()] == [[]] * 400


def test_every_epoch_has_its_own_order() -> None:
    pipe = sp.Pipeline(range(40), shuffle="global", seed=1).map(double, workers=2)
    with pipe.loader(start_method="fork", epochs=3) as loader:
        epochs = [list(epoch) for epoch in loader.by_epoch()]
    assert all(sorted(epoch) == [2 * x for x in range(40)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_short_unit_in_front_of_a_failure_passes_every_later_stage() -> None:
    def fails(x: int) -> int:
        if x == 5000:
            raise ValueError(x)
        return x

    pipe = sp.Pipeline(range(9000)).map(fails, workers=2).map(double, workers=2)
    got, error = read(pipe.loader(start_method="fork"))
    assert got == [2 * x for x in range(5000)]
    assert type(error) is ValueError


class TestValuesAreTakenWhenTheyAreMade:
    """What a stage does to a value after it gave it away changes nothing."""

    @pytest.mark.parametrize("nbytes", [10, 3000, 500_000])
    def test_one_buffer_for_every_item(self, nbytes: int) -> None:
        def source() -> Iterator[Any]:
            buffer = np.zeros(nbytes, np.uint8)
            for i in range(30):
                buffer[:] = i
                yield buffer

        with sp.Pipeline(source).loader(start_method="fork") as loader:
            assert all_frozen(loader) == all_frozen(sp.Pipeline(source))

    def test_one_dict_and_one_list_for_every_item(self) -> None:
        def source() -> Iterator[Any]:
            record: dict[str, Any] = {"rows": []}
            for i in range(30):
                record["i"] = i
                record["rows"].append(i)
                yield record

        with sp.Pipeline(source).loader(start_method="fork") as loader:
            assert all_frozen(loader) == all_frozen(sp.Pipeline(source))

    def test_one_buffer_in_a_pool(self) -> None:
        def crops(x: int) -> Iterator[Any]:
            buffer = np.zeros(5000, np.uint8)
            for i in range(5):
                buffer[:] = x + i
                yield buffer

        pipe = sp.Pipeline(range(20)).flat_map(crops, workers=2)
        with pipe.loader(start_method="fork") as loader:
            assert all_frozen(loader) == all_frozen(pipe)

    @pytest.mark.parametrize("nbytes", [100, 5000, 1_000_000])
    def test_arrays_that_a_generator_keeps(self, nbytes: int) -> None:
        def source() -> Iterator[Any]:
            before = None
            for i in range(25):
                current = sp.empty(nbytes)
                current[:] = i
                yield before, current
                before = current

        with sp.Pipeline(source).loader(start_method="fork", prefetch=1) as loader:
            assert all_frozen(loader) == all_frozen(sp.Pipeline(source))

    @pytest.mark.parametrize("nbytes", [5000, 1_000_000])
    def test_an_array_that_was_sent_is_not_written_again(self, nbytes: int) -> None:
        """It lies where its reader reads it: that is an error, and never another value there."""

        def source() -> Iterator[Any]:
            buffer = sp.empty(nbytes)
            for i in range(30):
                buffer[:] = i
                yield buffer

        with sp.Pipeline(source).loader(start_method="fork") as loader:
            first = next(loader)
            with pytest.raises(ValueError, match="read-only"):
                next(loader)
            assert set(first.tolist()) == {0}

    def test_arrays_that_are_never_sent(self) -> None:
        def source() -> Iterator[Any]:
            for i in range(40):
                sp.empty(300_000)[:] = 255
                current = sp.empty((3, 1000), "int32")
                current[:] = i
                yield current[:2]

        with sp.Pipeline(source).loader(start_method="fork", prefetch=1) as loader:
            assert all_frozen(loader) == all_frozen(sp.Pipeline(source))

    def test_the_parts_of_an_item_that_only_cloudpickle_can_take(self) -> None:
        def source() -> Iterator[Any]:
            for i in range(3):
                yield np.full(5000, i), (lambda: 1), np.full(5000, -i), np.full(700, 9.0)

        with sp.Pipeline(source).loader(start_method="fork") as loader:
            for i, (first, function, second, third) in enumerate(loader):
                assert (first == i).all()
                assert (second == -i).all()
                assert (third == 9.0).all()
                assert function() == 1


class TestWhatTheConsumerDoesWithItems:
    def source(self, count: int = 20) -> sp.Pipeline:
        return sp.Pipeline(range(count)).map(lambda x: np.full(300_000, x, np.uint8), workers=1)

    @pytest.mark.parametrize("arena_bytes", [1 << 20, 1 << 30])
    @pytest.mark.parametrize("prefetch", [1, 4])
    def test_keeping_everything(self, arena_bytes: int, prefetch: int) -> None:
        options: dict[str, Any] = {"prefetch": prefetch, "arena_bytes": arena_bytes}
        loader = self.source().loader(start_method="fork", **options)
        with loader, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kept = list(loader)
        if arena_bytes == 1 << 30:
            assert [w.category for w in caught] == [RuntimeWarning]
            assert "being kept" in str(caught[0].message)
        assert all((batch == i).all() for i, batch in enumerate(kept))

    def test_changing_items_in_place(self) -> None:
        with self.source().loader(start_method="fork", prefetch=1) as loader:
            for i, batch in enumerate(loader):
                assert (batch == i).all()
                batch += 100
                assert (batch == i + 100).all()

    def test_items_outlive_the_loader(self) -> None:
        with self.source(4).loader(start_method="fork") as loader:
            kept = list(loader)
        assert [frozen(batch) for batch in kept] == all_frozen(self.source(4))
