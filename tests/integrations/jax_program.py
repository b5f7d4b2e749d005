"""What JAX does with our batches, on eight devices of one machine: run by ``test_jax``.

A program of its own: the number of devices is settled when JAX begins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import splitpipe as sp
from splitpipe.integrations.jax import to_jax


def item(number: int) -> dict[str, Any]:
    # 32 kB, so that batches travel in shared memory.
    return {"x": np.full(8192, number, np.float32), "label": number, "name": f"item {number}"}


def pipeline(items: int = 96) -> sp.Pipeline:
    return sp.Pipeline(range(items), shuffle="global", seed=3).map(item, workers=2).batch(8)


def equal(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]))


def inline(pipe: sp.Pipeline) -> list[Any]:
    with pipe.loader(executor="inline") as loader:
        return list(loader)


def test_batches_that_are_kept_stay_what_they_were() -> None:
    with pipeline().loader() as loader:
        kept = list(to_jax(loader, prefetch=3))
    assert isinstance(kept[0]["x"], jax.Array)
    assert kept[0]["name"][0].startswith("item ")
    equal(kept, inline(pipeline()))


def test_sharded_over_eight_devices() -> None:
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    with pipeline().loader() as loader:
        found = list(to_jax(loader, sharding=rows))
    assert len(found[0]["x"].addressable_shards) == 8
    assert found[0]["x"].addressable_shards[0].data.shape == (1, 8192)
    equal(found, inline(pipeline()))
    whole = NamedSharding(mesh, PartitionSpec())
    with pipeline().loader(executor="inline") as loader:
        chosen = to_jax(loader, sharding=lambda array: rows if array.ndim == 2 else whole)
        batch = next(chosen)
    assert batch["label"].sharding.is_fully_replicated
    assert not batch["x"].sharding.is_fully_replicated


def test_a_smaller_last_batch_says_what_to_do() -> None:
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    with pipeline(12).loader(executor="inline") as loader:
        batches = to_jax(loader, sharding=rows)
        next(batches)  # which the failure of the one behind does not touch
        with pytest.raises(sp.FormatError, match="drop_last"):
            next(batches)


def test_states_are_of_what_was_handed_out() -> None:
    wanted = inline(pipeline())
    for prefetch in (0, 1, 4):
        for given in (0, 1, 5, 12):
            with to_jax(pipeline().loader(executor="inline"), prefetch=prefetch) as batches:
                for _ in range(given):
                    next(batches)
                state = batches.state_dict()
                rest = list(batches)
            equal(rest, wanted[given:])
            with to_jax(pipeline().loader(executor="inline"), prefetch=prefetch) as again:
                next(again)
                again.load_state_dict(state)
                equal(list(again), rest)
    with pytest.raises(sp.PipelineError, match="keeps no state"):
        to_jax([1]).state_dict()


def test_integers_that_do_not_fit_are_refused() -> None:
    ends = np.array([2**31 - 1, -(2**31)])
    assert next(to_jax([ends])).tolist() == ends.tolist()
    for array in (np.array([2**31]), np.array([1, -(2**31) - 1]), np.array([2**32], np.uint64)):
        with pytest.raises(sp.FormatError, match="jax_enable_x64"):
            next(to_jax([array]))
    if not hasattr(jax, "enable_x64"):  # what it was called before
        from jax.experimental import enable_x64
    else:
        enable_x64 = jax.enable_x64
    with enable_x64(True):
        assert next(to_jax([np.array([2**40])])).tolist() == [2**40]


def test_what_jax_has_no_type_for_stays() -> None:
    days, words = np.array(["2020-01-01"], "M8[D]"), np.array(["a"])
    big_endian, empty = np.array([1.5], ">f4"), np.zeros((0, 3), np.int64)
    batch = next(to_jax([(days, words, big_endian, empty, None, {"deep": [np.float64(1)]})]))
    assert batch[0] is days
    assert batch[1] is words
    assert batch[2].tolist() == [1.5]
    assert batch[3].shape == (0, 3)


def test_errors_come_at_their_place() -> None:
    def broken() -> Iterator[Any]:
        yield np.ones(2)
        yield np.ones(3)
        raise ZeroDivisionError("here")

    batches = to_jax(broken(), prefetch=5)
    assert [next(batches).shape, next(batches).shape] == [(2,), (3,)]
    for kind in (ZeroDivisionError, StopIteration):
        with pytest.raises(kind):
            next(batches)


def several(rank: int, address: str) -> None:
    """One of two processes with two devices each: each reads its part, sums are of all."""
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    mesh = Mesh(np.array(jax.devices()).reshape(4), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, PartitionSpec()))
    pipe = sp.Pipeline(np.arange(40, dtype=np.float32)).shard(rank, 2).batch(4, drop_last=True)
    with pipe.loader(executor="inline") as loader:
        sums = []
        for batch in to_jax(loader, sharding=rows):
            assert batch.shape == (8,)
            sums.append(float(total(batch)))
    assert sums == [float(sum(range(8 * n, 8 * n + 8))) for n in range(5)], sums
    print("sums", len(sums))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        several(int(sys.argv[1]), sys.argv[2])
    else:
        assert jax.device_count() == 8
        for name, check in list(globals().items()):
            if name.startswith("test_"):
                check()
                print(name)
