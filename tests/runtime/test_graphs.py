"""Graphs: whatever they are cut into, and whoever reads them, they give what inline gives."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import splitpipe as sp
from tests.runtime.comparing import all_frozen, frozen, read
from tests.sampling import sampled

pytestmark = pytest.mark.deadline(60)


def inc(x: int) -> int:
    return x + 1


def tag(x: Any) -> Any:
    return ("tag", x)


def odd(x: int) -> bool:
    return x % 2 == 1


def copies(x: int) -> Iterator[tuple[int, int]]:
    for i in range(x % 4):
        yield x, i


def image(x: int) -> Any:
    return np.full(5000, x % 251, np.uint8)


def drawn(x: Any, rng: np.random.Generator) -> Any:
    return x, int(rng.integers(1 << 40))


def chosen(x: Any, rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.6)


def several(x: Any, rng: np.random.Generator) -> Iterator[Any]:
    for _ in range(int(rng.integers(3))):
        yield x, int(rng.integers(1 << 40))


def first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number == count:
            return
        yield item


def pairs(left: Iterator[Any], right: Iterator[Any]) -> Iterator[Any]:
    for one in left:
        yield one, next(right, None)


def count_to(n: int) -> Callable[[], Iterator[int]]:
    return lambda: iter(range(n))


SOURCES: dict[str, Any] = {"sequence": range(90), "factory": count_to(90)}


def shared(source: Any, w: int) -> sp.Pipeline:
    return sp.Pipeline(source).map(inc, workers=w or None)


# Each is given a source and `w`, the workers of its pools.
GRAPHS: dict[str, Callable[[Any, int], sp.Pipeline]] = {
    "diamond": lambda s, w: sp.zip(shared(s, w), shared(s, w).map(tag, workers=w)),
    "diamond-shared": lambda s, w: (
        lambda p: sp.zip({"raw": p, "tagged": p.map(tag, workers=w)})
    )(shared(s, w)),
    "diamond-own-process": lambda s, w: (
        lambda p: sp.zip(p.map(image), p.map(tag, workers=w), workers=1)
    )(shared(s, w)),
    "of-the-source": lambda s, w: (
        lambda p: sp.zip(p, p.map(tag, workers=w), p.map(inc))
    )(sp.Pipeline(s)),
    "twice-the-same": lambda s, w: (lambda p: sp.zip(p, p, p))(shared(s, w)),
    "nested": lambda s, w: (
        lambda p: (
            lambda q: sp.zip(q, sp.zip(q.map(tag), q.map(inc, workers=w)), p.map(image))
        )(p.map(inc))
    )(shared(s, w)),
    "interleave": lambda s, w: (
        lambda p: sp.interleave(p.filter(odd, workers=w), p.flat_map(copies), block=2)
    )(shared(s, w)),
    "mix": lambda s, w: (
        lambda p: sp.mix([p.map(tag, workers=w), p.filter(odd)], [3, 1])
    )(shared(s, w)),
    "mix-first": lambda s, w: (
        lambda p: sp.mix({"a": p, "b": p.filter(odd)}, stop="first", method="even")
    )(shared(s, w)),
    "concat": lambda s, w: (
        lambda p: sp.concat(p.map(tag, workers=w), p, p.batch(7, collate=list))
    )(shared(s, w)),
    "merge": lambda s, w: (
        lambda parts: sp.merge(parts[0].map(tag, workers=w), parts[1], parts[2])
    )(shared(s, w).split_by(lambda x: x % 3, [0, 1, 2])),
    "tee": lambda s, w: (
        lambda a, b, c: sp.zip(a.map(inc, workers=w), b, c.map(image))
    )(*shared(s, w).tee(3)),
    "free": lambda s, w: (
        lambda p: sp.stage(pairs, p.map(tag, workers=w), p.filter(odd), workers=1)
    )(shared(s, w)),
    "early": lambda s, w: (
        lambda p: sp.zip(p.map(tag, workers=w), p.through(first, 11), uneven="shortest")
    )(shared(s, w)),
    "two-sources": lambda s, w: sp.zip(
        sp.Pipeline(s).map(inc, workers=w), sp.Pipeline(list(range(90))).map(tag), workers=1
    ),
    "repeated": lambda s, w: (
        sp.Pipeline(s).map(inc).shuffle(16).repeat(3).map(tag, workers=w).batch(8, collate=list)
    ),
    "mix-repeat": lambda s, w: sp.mix(
        [sp.Pipeline(s).shuffle(8), sp.Pipeline(range(7)).filter(odd)], stop="repeat"
    ).map(tag, workers=w),
    "join-local": lambda s, w: (
        lambda p: sp.zip(p.map(tag, workers=w), p.map(image), workers=0)
    )(shared(s, w)),
    "join-then-pool": lambda s, w: (
        lambda p: sp.zip(p, p.map(tag)).map(tag, workers=w).batch(4, collate=list)
    )(shared(s, w)),
}  # fmt: skip

CUTS: dict[str, dict[str, Any]] = {
    "fork": {"start_method": "fork"},
    "zmq": {"start_method": "fork", "transport": "zmq"},
    "thread": {"executor": "thread"},
}


@pytest.mark.long
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", GRAPHS)
def test_equals_inline(name: str, source: str, cut: str) -> None:
    for workers in (1, 2):
        pipe = GRAPHS[name](SOURCES[source], workers)
        expected = all_frozen(pipe.loader(executor="inline", epochs=2))
        with pipe.loader(epochs=2, prefetch=workers, **CUTS[cut]) as loader:
            assert all_frozen(loader) == expected


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_other_start_methods(method: str) -> None:
    pipe = GRAPHS["nested"](range(90), 2)
    expected = all_frozen(pipe.loader(executor="inline"))
    with pipe.loader(start_method=method) as loader:
        assert all_frozen(loader) == expected


@pytest.mark.parametrize(
    *sampled(1, name=["nested", "merge", "concat", "free", "join-then-pool"], n=[0, 1, 2])
)
def test_hardly_any_items(name: str, n: int) -> None:
    for source in (range(n), count_to(n)):
        pipe = GRAPHS[name](source, 2)
        expected = all_frozen(pipe.loader(executor="inline", epochs=3))
        with pipe.loader(start_method="fork", epochs=3) as loader:
            assert all_frozen(loader) == expected


def read_in_turn(
    loaders: dict[str, sp.Loader], turns: Callable[[str, int], int]
) -> dict[str, list[Any]]:
    """Read `turns(name, round)` items of each loader in each round, to the end of all."""
    got: dict[str, list[Any]] = {name: [] for name in loaders}
    left, number = list(loaders), 0
    try:
        while left:
            for name in list(left):
                for _ in range(turns(name, number)):
                    try:
                        got[name].append((loaders[name].epoch, frozen(next(loaders[name]))))
                    except StopIteration:
                        left.remove(name)
                        break
            number += 1
    finally:
        for loader in loaders.values():
            loader.close()
    return got


def outputs(source: Any, w: int) -> dict[str, sp.Pipeline]:
    decoded = shared(source, w)
    return {
        "train": decoded.map(tag, workers=w).batch(4, collate=list),
        "eval": decoded.filter(odd),
        "raw": decoded,
        "images": decoded.map(image),
    }


def even(source: Any) -> dict[str, sp.Pipeline]:
    """Outputs that give as many items as one another."""
    p = sp.Pipeline(source).map(inc)
    return {
        "own": p.map(tag, workers=1, name="own"),
        "raw": p,
        "ride": p.map(image, name="ride"),
        "pool": p.map(tag, workers=2, name="pool"),
    }


class TestSeveralOutputs:
    @pytest.mark.parametrize(*sampled(1, source=SOURCES, cut=CUTS))
    def test_read_in_step(self, source: str, cut: str) -> None:
        for workers in (0, 1, 2):
            described = outputs(SOURCES[source], workers)
            expected = read_in_turn(
                sp.run(described, executor="inline", epochs=2), lambda name, _: 1
            )
            loaders = sp.run(described, epochs=2, **CUTS[cut])
            assert read_in_turn(loaders, lambda name, _: 1) == expected

    @pytest.mark.parametrize("cut", CUTS)
    def test_read_in_another_order_gives_the_same(self, cut: str) -> None:
        described = outputs(count_to(60), 1)
        names = list(described)

        def turns(name: str, number: int) -> int:
            return (names.index(name) * 7 + number * 5) % 4

        expected = read_in_turn(sp.run(described, executor="inline", epochs=2), lambda *_: 1)
        assert read_in_turn(sp.run(described, executor="inline", epochs=2), turns) == expected
        assert read_in_turn(sp.run(described, epochs=2, **CUTS[cut]), turns) == expected

    @pytest.mark.parametrize("executor", ["inline", "process"])
    def test_each_gives_what_it_gives_alone(self, executor: str) -> None:
        described = outputs(count_to(60), 2)
        together = read_in_turn(
            sp.run(described, executor=executor, start_method="fork"), lambda *_: 1
        )
        for name, pipe in described.items():
            assert [item for _, item in together[name]] == all_frozen(pipe)

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_one_after_the_other_within_what_is_kept(self, executor: str) -> None:
        a, b = sp.Pipeline(count_to(800)).map(inc).tee()
        loaders = sp.run({"a": a, "b": b.map(tag)}, executor=executor, start_method=fork(executor))
        with loaders["a"], loaders["b"]:
            assert list(loaders["a"]) == list(range(1, 801))
            assert list(loaders["b"]) == [("tag", x) for x in range(1, 801)]

    @pytest.mark.parametrize(
        *sampled(
            2,
            executor=["inline", "process", "thread"],
            workers=[None, 1, 2],
            capacity=[1, 3, 5000],
        )
    )
    def test_capacity_is_what_was_said(
        self, executor: str, workers: int | None, capacity: int
    ) -> None:
        a, b = sp.Pipeline(count_to(4000)).map(inc, workers=workers).tee(capacity=capacity)
        described = {"a": a.filter(odd, workers=None), "b": b}
        loaders = sp.run(described, executor=executor, start_method=fork(executor))
        with loaders["a"], loaders["b"]:
            if capacity > 4000:
                assert list(loaders["a"]) == list(range(1, 4001, 2))
                assert list(loaders["b"]) == list(range(1, 4001))
                return
            with pytest.raises(sp.BranchStalled, match="branch 'b' of 'tee' is not read"):
                list(loaders["a"])
            with pytest.raises(sp.PipelineError, match="'b' of 'tee'"):
                list(loaders["b"])

    @pytest.mark.parametrize(
        *sampled(1, unread=["own", "raw", "ride", "pool"], executor=["process", "inline", "thread"])
    )
    def test_one_that_is_not_read_is_named(self, unread: str, executor: str) -> None:
        loaders = sp.run(even(count_to(100_000)), executor=executor, start_method=fork(executor))
        with pytest.raises(sp.BranchStalled, match=f"branch '{unread}' of 'inc' is not read"):
            read_in_turn(loaders, lambda name, _: int(name != unread))

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_only_one_is_read(self, executor: str) -> None:
        for name in ("train", "raw"):
            described = outputs(count_to(100_000), 1)
            loaders = sp.run(described, executor=executor, start_method=fork(executor))
            got, error = read(loaders[name])
            assert isinstance(error, sp.BranchStalled)
            assert "is not read" in str(error)
            assert len(got) * (4 if name == "train" else 1) >= 1000
            for loader in loaders.values():
                loader.close()

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_one_that_stays_in_its_epoch_is_named(self, executor: str) -> None:
        a = sp.Pipeline(count_to(10)).map(inc)
        loaders = sp.run(
            {"a": a, "b": a.map(tag)},
            executor=executor,
            start_method=fork(executor),
            epochs=500,
        )
        with loaders["a"], loaders["b"]:
            assert next(loaders["b"]) == ("tag", 1)
            with pytest.raises(sp.BranchStalled, match="'b' is not read: it is still in epoch"):
                list(loaders["a"])


def fork(executor: str) -> str | None:
    return "fork" if executor == "process" else None


class TestClosing:
    @pytest.mark.parametrize(
        *sampled(1, closed=["own", "raw", "ride", "pool"], executor=["process", "inline", "thread"])
    )
    def test_one_early(self, closed: str, executor: str) -> None:
        described = even(count_to(3000))
        expected = {name: all_frozen(pipe) for name, pipe in described.items()}
        loaders = sp.run(described, executor=executor, start_method=fork(executor))
        next(loaders[closed])
        loaders.pop(closed).close()
        got = read_in_turn(loaders, lambda *_: 3)
        for name, items in got.items():
            assert [item for _, item in items] == expected[name]

    @pytest.mark.parametrize("executor", ["inline", "process"])
    def test_one_before_its_first_item(self, executor: str) -> None:
        described = outputs(count_to(3000), 2)
        expected = all_frozen(described["eval"])
        loaders = sp.run(described, executor=executor, start_method=fork(executor), epochs=2)
        for name in ("train", "raw", "images"):
            loaders[name].close()
        with loaders["eval"] as loader:
            assert all_frozen(loader) == expected * 2

    @pytest.mark.parametrize("executor", ["inline", "process"])
    def test_one_that_is_collected(self, executor: str) -> None:
        described = outputs(count_to(3000), 1)
        expected = all_frozen(described["raw"])
        loaders = sp.run(described, executor=executor, start_method=fork(executor))
        kept = loaders.pop("raw")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loaders.clear()
            gc.collect()
        with kept:
            assert all_frozen(kept) == expected

    def test_generators_end_with_the_last_reader(self) -> None:
        ended: list[str] = []

        def watched(items: Iterator[int], name: str) -> Iterator[int]:
            try:
                for item in items:  # noqa: UP028  what is handed on by `yield from` ends first
                    yield item
            finally:
                ended.append(name)

        trunk = sp.Pipeline(count_to(100)).through(watched, "trunk")
        described = {"a": trunk.through(watched, "a"), "b": trunk.through(watched, "b")}
        loaders = sp.run(described, executor="inline")
        next(loaders["a"])
        next(loaders["b"])
        loaders["a"].close()
        assert ended == ["a"]
        assert next(loaders["b"]) == 1
        loaders["b"].close()
        assert ended == ["a", "b", "trunk"]

    def test_all_is_gone_with_the_last(self) -> None:
        loaders = sp.run(outputs(count_to(100_000), 2), start_method="fork")
        for loader in loaders.values():
            next(loader)
        supervisor = loaders["raw"]._run.supervisor
        assert supervisor is not None
        workers = [psutil.Process(pid) for pid in supervisor.pids]
        for loader in loaders.values():
            assert any(worker.is_running() for worker in workers)
            loader.close()
        assert not any(w.is_running() and w.status() != "zombie" for w in workers)


class TestEpochs:
    @pytest.mark.parametrize(
        *sampled(
            1,
            reads=[(0, 0), (5, 5), (3, 40), (90, 1), (90, 90)],
            executor=["inline", "process", "thread"],
        )
    )
    def test_left_early(self, reads: tuple[int, int], executor: str) -> None:
        a = sp.Pipeline(count_to(90)).map(inc)
        described = {"a": a.map(tag), "b": a.through(first, 50)}
        expected = {name: list(pipe) for name, pipe in described.items()}
        loaders = sp.run(described, executor=executor, start_method=fork(executor), epochs=4)
        with loaders["a"], loaders["b"]:
            epochs = {name: loader.by_epoch() for name, loader in loaders.items()}
            for _ in range(4):
                for name, count in zip(epochs, reads, strict=True):
                    items = next(epochs[name])
                    got = [item for _, item in zip(range(count), items, strict=False)]
                    assert got == expected[name][:count]
            for name in epochs:
                assert list(epochs[name]) == []

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_of_a_join_left_early(self, executor: str) -> None:
        pipe = GRAPHS["nested"](count_to(3000), 1)
        whole = all_frozen(pipe)
        with pipe.loader(executor=executor, start_method=fork(executor), epochs=4) as loader:
            for number, epoch in enumerate(loader.by_epoch()):
                count = (0, 7, 500, 3000)[number]
                got = [frozen(item) for _, item in zip(range(count), epoch, strict=False)]
                assert got == whole[:count]

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_without_end(self, executor: str) -> None:
        a = sp.Pipeline(count_to(5)).map(inc)
        described = {"a": a, "b": a.map(tag)}
        loaders = sp.run(described, executor=executor, start_method=fork(executor), epochs=None)
        with loaders["a"], loaders["b"]:
            for number in range(400):
                assert next(loaders["a"]) == number % 5 + 1
                assert next(loaders["b"]) == ("tag", number % 5 + 1)
                assert loaders["a"].epoch == loaders["b"].epoch == number // 5


def bad(at: int, error: type[BaseException] = ValueError) -> Callable[[Any], Any]:
    def decode(x: Any) -> Any:
        if x == at:
            raise error("bad")
        return x

    return decode


class TestErrors:
    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_in_one_branch(self, executor: str, workers: int) -> None:
        p = sp.Pipeline(count_to(500)).map(inc)
        pipe = sp.zip(p.map(bad(300), workers=workers, name="left"), p.map(tag), workers=1)
        got, error = read(pipe.loader(executor=executor, start_method=fork(executor)))
        assert got == [(x, ("tag", x)) for x in range(1, 300)]
        assert type(error) is ValueError
        assert "in stage 'left'" in "\n".join(error.__notes__)

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_in_what_several_share(self, executor: str) -> None:
        p = sp.Pipeline(count_to(500)).map(bad(300), name="trunk")
        for pipe in (
            sp.zip(p.map(tag, workers=1), p.map(inc)),
            sp.zip(p.map(tag), p.map(inc), workers=1),
            sp.zip(p.map(tag, workers=2), p.map(inc, workers=1)),
        ):
            got, error = read(pipe.loader(executor=executor, start_method=fork(executor)))
            assert got == [(("tag", x), x + 1) for x in range(300)]
            assert type(error) is ValueError
            assert "in stage 'trunk'" in "\n".join(error.__notes__)
            assert "input item 300" in "\n".join(error.__notes__)

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_of_one_output_ends_all(self, executor: str) -> None:
        p = sp.Pipeline(count_to(500)).map(inc)
        loaders = sp.run(
            {"a": p.map(bad(300)), "b": p}, executor=executor, start_method=fork(executor)
        )
        for number in range(1, 300):
            assert next(loaders["a"]) == next(loaders["b"]) == number
        with pytest.raises(ValueError, match="bad"):
            next(loaders["a"])
        with pytest.raises(sp.PipelineError, match="ended with ValueError for another output"):
            list(loaders["b"])
        for loader in loaders.values():
            loader.close()

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_a_join_says_where_its_inputs_were(self, executor: str) -> None:
        def joining(left: Iterator[int], right: Iterator[int]) -> Iterator[int]:
            for one, other in zip(left, right, strict=True):
                if one == 40:
                    raise KeyError(other)
                yield one + other

        left, right = sp.Pipeline(range(90)), sp.Pipeline(count_to(90))
        pipe = sp.stage(joining, left, right, name="both")
        got, error = read(pipe.loader(executor=executor, start_method=fork(executor)))
        assert got == [2 * x for x in range(40)]
        assert type(error) is KeyError
        text = "\n".join(error.__notes__)
        assert "in stage 'both'" in text
        assert "input items 40, 40" in text
        assert "record 40 of range(0, 90)" in text

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_no_end_is_taken_for_another(self, executor: str) -> None:
        p = sp.Pipeline(count_to(50)).map(bad(20, StopIteration))
        pipe = sp.zip(p.map(inc, workers=1), p, workers=1)
        got, error = read(pipe.loader(executor=executor, start_method=fork(executor)))
        assert got == [(x + 1, x) for x in range(20)]
        assert isinstance(error, (RuntimeError, sp.StageFailed))

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_of_a_generator_that_ends_its_input_wrongly(self, executor: str) -> None:
        def greedy(items: Iterator[int]) -> Iterator[int]:
            while True:
                yield next(items)

        p = sp.Pipeline(count_to(20)).map(inc)
        got, error = read(
            sp.zip(p.through(greedy), p.map(tag, workers=1), workers=1).loader(
                executor=executor, start_method=fork(executor)
            )
        )
        assert len(got) == 20
        assert isinstance(error, (RuntimeError, sp.StageFailed))

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_what_cannot_be_copied_for_two(self, executor: str) -> None:
        p = sp.Pipeline(count_to(9)).map(lambda x: x if x < 5 else threading.Lock(), name="locks")
        pipe = sp.zip(p.map(tag), p.map(tag), workers=1)
        got, error = read(pipe.loader(executor=executor, start_method=fork(executor)))
        assert got == [(("tag", x), ("tag", x)) for x in range(5)]
        assert type(error) is sp.NotPicklable
        assert "lock" in str(error)

    def test_a_source_that_fails_when_it_is_opened(self) -> None:
        def gone() -> Iterator[int]:
            raise FileNotFoundError("no such shard")

        p = sp.Pipeline(gone)
        for executor in ("inline", "process", "thread"):
            for pipe in (p.map(tag), sp.zip(p.map(tag, workers=1), p)):
                got, error = read(pipe.loader(executor=executor, start_method=fork(executor)))
                assert got == []
                assert type(error) is FileNotFoundError
                assert "in stage 'source'" in "\n".join(error.__notes__)


class TestItems:
    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    @pytest.mark.parametrize("workers", [None, 1])
    def test_that_one_branch_changes(self, workers: int | None, executor: str) -> None:
        def spoil(x: Any) -> Any:
            x["n"] += 100
            x["a"] += 1
            return x

        p = sp.Pipeline(count_to(40)).map(lambda x: {"n": x, "a": np.full(3, x)})
        for pipe in (
            sp.zip(p.map(spoil, workers=workers), p),
            sp.zip(p, p.map(spoil, workers=workers)),
        ):
            expected = [{100 + x, x} for x in range(40)]
            with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
                got = list(loader)
            assert [{one["n"], other["n"]} for one, other in got] == expected
            assert [{int(a["a"][0]), int(b["a"][0])} for a, b in got] == [
                {x, x + 1} for x in range(40)
            ]

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_whose_maker_uses_them_again(self, executor: str) -> None:
        def reusing() -> Iterator[Any]:
            buffer = np.zeros(300)
            for number in range(30):
                buffer[:] = number
                yield buffer

        p = sp.Pipeline(reusing)
        late = p.through(lambda items: iter([len(list(items))]))
        pipe = sp.concat(late, p.map(lambda x: float(x[0])))
        with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
            assert list(loader) == [30, *map(float, range(30))]


class TestUneven:
    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    @pytest.mark.parametrize("workers", [None, 1, 2])
    def test_branches_within_what_is_kept(self, workers: int | None, executor: str) -> None:
        p = sp.Pipeline(count_to(20_000)).map(inc).tee(capacity=2000)[0]
        rare = p.filter(lambda x: x % 1000 == 0, workers=workers)
        pipe = sp.interleave(rare, p.filter(lambda x: x % 1000 == 1))
        with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
            got = list(loader)
        assert got == [y for x in range(0, 20_000, 1000) for y in (x + 1000, x + 1)]

    @pytest.mark.parametrize("executor", ["inline", "process", "thread"])
    def test_branches_beyond_it(self, executor: str) -> None:
        p = sp.Pipeline(count_to(20_000)).map(inc)
        last = p.filter(lambda x: x == 20_000, workers=1, name="last")
        pipe = sp.zip(last, p, uneven="shortest", workers=1)
        with (
            pipe.loader(executor=executor, start_method=fork(executor)) as loader,
            pytest.raises(sp.BranchStalled, match="branch 'zip' of 'inc' is not read"),
        ):
            list(loader)

    def test_messages_of_very_different_sizes(self) -> None:
        # A process that has read all and waits has not therefore been forgotten: what it made may
        # still be on its way to whoever reads both branches.

        def heavy(x: int) -> Any:
            return np.full(300_000, x, np.int64)

        p = sp.Pipeline(count_to(3000)).map(inc)
        q, r = p.tee(capacity=4)
        pipe = sp.zip(
            q.map(heavy, workers=1), r.map(tag, workers=1).map(tag, workers=1), workers=1
        ).take(120)
        for _ in range(3):
            with pipe.loader(start_method="fork") as loader:
                for number, (array, tagged) in enumerate(loader, 1):
                    assert int(array[7]) == number
                    assert tagged == ("tag", ("tag", number))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_random_numbers_belong_to_places(workers: int) -> None:
    source = sp.Pipeline(count_to(60), seed=5)
    for begin in (source, sp.Pipeline(range(60), shuffle="global", seed=5)):

        def graph(w: int | None, begin: sp.Pipeline = begin) -> dict[str, sp.Pipeline]:
            p = begin.filter(odd, workers=w).flat_map(several, workers=w)
            q = p.map(drawn, workers=w, name="drawn")
            return {
                "batches": q.filter(chosen, workers=w).batch(3, collate=list).map(drawn, workers=w),
                "joined": sp.interleave(q.map(drawn, workers=w), p).map(drawn, workers=w),
                "windows": q.through(first, 30).map(drawn, workers=w),
            }

        expected = read_in_turn(sp.run(graph(None), executor="inline", epochs=2), lambda *_: 1)
        assert len({item for _, item in expected["windows"]}) == len(expected["windows"])
        for w in (None, workers):
            loaders = sp.run(graph(w), start_method="fork", epochs=2)
            assert read_in_turn(loaders, lambda *_: 1) == expected


class TestDeath:
    def test_is_told_to_every_output(self) -> None:
        p = sp.Pipeline(count_to(100_000)).map(inc)
        described = {"a": p.map(tag, workers=1), "b": p, "c": p.map(inc)}
        loaders = sp.run(described, start_method="fork", restarts=0)
        for loader in loaders.values():
            next(loader)
        supervisor = loaders["a"]._run.supervisor
        assert supervisor is not None
        pid = supervisor.pids[0]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(sp.WorkerDied, match="killed by SIGKILL"):
            read_in_turn(loaders, lambda *_: 1)
        for loader in loaders.values():
            with pytest.raises((sp.PipelineError, StopIteration)):
                next(loader)

    def test_is_told_to_readers_in_several_threads(self) -> None:
        p = sp.Pipeline(count_to(10_000_000)).map(inc)
        described = {"a": p.map(tag, workers=1), "b": p, "c": p.map(inc)}
        loaders = sp.run(described, start_method="fork", restarts=0)
        supervisor = loaders["a"]._run.supervisor
        assert supervisor is not None
        pid = supervisor.pids[0]
        started = threading.Barrier(4)
        raised: dict[str, BaseException] = {}

        def follow(name: str) -> None:
            next(loaders[name])
            started.wait(120)
            try:
                for _ in loaders[name]:
                    pass
            except BaseException as error:
                raised[name] = error

        threads = [threading.Thread(target=follow, args=(name,)) for name in loaders]
        for thread in threads:
            thread.start()
        started.wait(120)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        assert set(raised) == {"a", "b", "c"}
        assert all(isinstance(error, sp.PipelineError) for error in raised.values())
        for loader in loaders.values():
            loader.close()


def test_outputs_read_by_a_thread_each() -> None:
    described = outputs(count_to(1000), 1)  # threads may be ahead by as many as are kept
    expected = {name: all_frozen(pipe) for name, pipe in described.items()}
    for options in CUTS.values():
        loaders = sp.run(described, **options)
        got: dict[str, Any] = {}

        def follow(name: str, loader: sp.Loader, got: dict[str, Any] = got) -> None:
            try:
                got[name] = all_frozen(loader)
            except BaseException as error:
                got[name] = error

        threads = [threading.Thread(target=follow, args=one) for one in loaders.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        for loader in loaders.values():
            loader.close()
        assert got == expected


class TestSize:
    def test_a_deep_chain(self) -> None:
        pipe = sp.Pipeline(range(20))
        for _ in range(500):
            pipe = pipe.map(inc)
        for executor in ("inline", "process"):
            with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
                assert list(loader) == list(range(500, 520))
        assert len(pipe) == 20
        assert repr(pipe).count("inc") == 500
        assert "inc-500" in pipe.explain()

    def test_a_deep_ladder(self) -> None:
        pipe = sp.Pipeline(count_to(10))
        for _ in range(40):
            pipe = sp.zip(pipe, pipe).map(sum)
        for executor in ("inline", "process"):
            with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
                assert list(loader) == [x * 2**40 for x in range(10)]

    def test_a_wide_join(self) -> None:
        p = sp.Pipeline(count_to(30)).map(inc)
        pipe = sp.zip(*(p.map(lambda x, k=k: x * k) for k in range(100)))
        for executor in ("inline", "process"):
            with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
                assert list(loader) == [tuple(x * k for k in range(100)) for x in range(1, 31)]

    def test_many_sources(self) -> None:
        pipe = sp.concat(*(sp.Pipeline(count_to(k)) for k in range(100)))
        for executor in ("inline", "process"):
            with pipe.loader(executor=executor, start_method=fork(executor)) as loader:
                assert list(loader) == [x for k in range(100) for x in range(k)]
