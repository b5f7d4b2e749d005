"""What grows with nodes and records, and what does not: ``python -m benchmarks.scaling``.

Responsible for: the figures of ``docs/scaling.md``. What can be run is run at its real size, since
orders are arithmetic: planning, shuffling, resuming and redistributing 10^12 positions among 1,000
ranks. What cannot (an index of terabytes, 1,000 machines) is computed from what was measured here,
and said to be.

Rules:
- costs are CPU time, the least of several tries, so that a busy machine tells the same;
- a position is checked where it is cheap: what is measured is also right.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import splitpipe as sp
from splitpipe.order import BinwiseOrder, binwise_order
from splitpipe.storage.layout import BinLayout, Segment

__all__ = ["Numbers", "index_nbytes", "lockstep", "main"]

SIZES = (10**6, 10**9, 10**12)
WORLD = 1000
BATCH = 64


class Numbers(Sequence[int]):
    """Records that are their own row, in as many bins as one likes: a source of any size.

    Example:
        >>> len(Numbers(10**12, bins=4)), Numbers(10**12, bins=4)[10**12 - 1]
        (1000000000000, 999999999999)
    """

    def __init__(self, rows: int, bins: int) -> None:
        self._layout = BinLayout([Segment(0, rows, 0, bins)])

    def __len__(self) -> int:
        return self._layout.rows

    def __getitem__(self, index: Any) -> Any:
        return range(len(self))[index]

    def bin_layout(self) -> BinLayout:
        """Which rows lie in which bin."""
        return self._layout


def cost_ms(work: Callable[[], Any], tries: int = 5) -> float:
    """Milliseconds of CPU of the cheapest of several tries."""
    found = []
    for _ in range(tries):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return 1e3 * min(found)


def table(head: str, rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    names = head.split(" | ")
    lines = [f"| {head} |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float)
        else f"{value:,}"
        if _whole(value)
        else str(value)
    )


def _whole(value: object) -> bool:
    return isinstance(value, int)


# -- one rank: planning, ordering, resuming ------------------------------------------------------


def pipeline(rows: int, shuffle: str, bins: int = 1024, world: int = WORLD) -> sp.Pipeline:
    """A rank's pipeline of a run on `world` ranks."""
    pipe = sp.Pipeline(Numbers(rows, bins), shuffle=shuffle, seed=1)
    return pipe.map(abs).shard(7, world).batch(BATCH)


def one_rank() -> list[list[object]]:
    """What a rank pays, by size."""
    made: list[list[object]] = []
    for rows in SIZES:
        for shuffle in ("global", "binwise"):
            pipe = pipeline(rows, shuffle)
            plan_ms = cost_ms(lambda pipe=pipe: pipe.explain())
            order = pipe.source.order(0)
            half = rows // 2
            block_ms = cost_ms(lambda o=order, at=half: o.indices(at, at + (1 << 14)))
            with pipe.loader(executor="inline") as loader:
                loader.seek(len(pipe) // 2)
                next(loader)
                state = loader.state_dict()
                following = next(loader)

            def resumed(
                pipe: sp.Pipeline = pipe, state: Any = state, right: Any = following
            ) -> None:
                with pipe.loader(executor="inline", state=state) as loader:
                    assert (next(loader) == right).all()

            nbytes = len(json.dumps(state))
            nanoseconds = 1e6 * block_ms / (1 << 14)
            made.append([rows, shuffle, plan_ms, nanoseconds, nbytes, cost_ms(resumed)])
    return made


def many_bins() -> list[list[object]]:
    """What a binwise order of 10^12 records costs, by bins: made anew for every epoch."""
    made: list[list[object]] = []
    for bins in (64, 4096, 65536, 1 << 20):
        layout = BinLayout([Segment(0, 10**12, 0, bins)])
        spent = cost_ms(lambda one=layout: _ordered(one), 2)
        order = _ordered(layout)
        block_ms = cost_ms(lambda one=order: one.indices(10**11, 10**11 + (1 << 14)))
        made.append([bins, spent, 1e6 * block_ms / (1 << 14)])
    return made


def _ordered(layout: BinLayout) -> BinwiseOrder:
    return binwise_order(layout, 1, 0, 8)


# -- many ranks ----------------------------------------------------------------------------------


def redistributing() -> list[list[object]]:
    """Going on with one rank more, twice; old ranks were not in step."""
    made: list[list[object]] = []
    pipe = sp.Pipeline(range(10**12), shuffle="global", seed=1)
    for world in (10, 100, 1000):
        states = _states(pipe, world, None)
        spent = cost_ms(lambda old=states, new=world + 1: sp.redistribute(old, new), 2)
        first = sp.redistribute(states, world + 1)
        second = sp.redistribute(_states(pipe, world + 1, first), world)
        sizes = [len(json.dumps(one[0])) for one in (states, first, second)]
        made.append([world, spent, *sizes])
    return made


def _states(pipe: sp.Pipeline, world: int, begun: Sequence[Any] | None) -> list[Any]:
    found = []
    for rank in range(world):
        state = None if begun is None else begun[rank]
        mine = pipe.shard(rank, world).batch(BATCH)
        with mine.loader(executor="inline", state=state) as loader:
            if rank % 2:
                next(loader)
            found.append(loader.state_dict())
    return found


def balancing() -> list[list[object]]:
    """The plan that every rank makes of a step of all ranks, from lengths of samples."""
    made: list[list[object]] = []
    steps = 32
    for world in (8, 64, 256, 1000):
        rows = world * BATCH * steps
        lengths = np.random.default_rng(0).lognormal(5.0, 1.0, rows).astype(np.int64) + 1
        pipe = sp.Pipeline(range(rows), shuffle="global", seed=1).balance(lengths)
        mine = pipe.shard(3, world).batch(BATCH)
        made.append([world, world * BATCH, cost_ms(lambda one=mine: _read(one), 2) / steps])
    return made


def _read(pipe: sp.Pipeline) -> None:
    with pipe.loader(executor="inline") as loader:
        for _ in loader:
            pass


# -- records -------------------------------------------------------------------------------------


def index_nbytes(folder: Path, rows: int = 1 << 17) -> tuple[float, float]:
    """Bytes of index and sums of one record in a column, and of the manifest for one bin."""
    with sp.DatasetWriter(folder / "records") as writer:
        writer.write_many(b"%016d" % n for n in range(rows))
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder / "records")}
    index = sum(size for name, size in sizes.items() if name.endswith((".index", ".sums")))
    return index / rows, sizes["splitpipe.json"] / 64


def records(folder: Path) -> list[list[object]]:
    """What 10^12 records of 1 kB need beside themselves, computed from what some need."""
    each, manifest = index_nbytes(folder)
    made: list[list[object]] = []
    for rows in SIZES:
        bins = max(64, min(65536, rows * 1000 // (1 << 30)))
        made.append([rows, bins, rows * each / 1e9, 100 * each / 1000, bins * manifest / 1e6])
    return made


def messages() -> list[list[object]]:
    """What travels in one machine for a batch: everything else is arithmetic in each process."""
    pipe = sp.Pipeline(range(10**12), shuffle="global", seed=1)
    made: list[list[object]] = []
    for workers in (1, 2, 4):
        batches = 2000
        with pipe.map(abs, workers=workers).batch(256).loader() as loader:
            for _ in range(batches):
                next(loader)
            stats = loader.stats()
        sent = sum(task.messages for task in stats)
        made.append([workers, sent / batches, 0])
    return made


# -- a thousand machines in step -----------------------------------------------------------------


def batch_seconds(count: int = 4000) -> npt.NDArray[np.float64]:
    """How long batches of an example took, as a share of their mean: decoding of unequal length.

    CPU time of one batch of 16 samples whose work is log-normal, as pictures and texts have it.
    """
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(0.0, 1.0, (count, 16))
    data = rng.integers(0, 255, 1 << 16, dtype=np.uint8)
    spent = np.empty(count)
    for at, row in enumerate(lengths):
        began = time.thread_time()
        for length in row:
            data[: int(3000 * min(length, 20.0)) + 1].astype(np.float32).sum()
        spent[at] = time.thread_time() - began
    return spent / spent.mean()


def lockstep(
    times: npt.NDArray[np.float64], *, ranks: int, load: float, prefetch: int, steps: int, seed: int
) -> float:
    """Which share of its ideal speed a training run has whose ranks wait for the slowest in a step.

    A rank makes a batch in ``load`` times one of ``times``, drawn anew, where a step takes 1; it
    may have ``prefetch`` batches ready. A step begins when the one before has ended and all ranks
    have their batch.

    Example:
        >>> import numpy as np
        >>> lockstep(np.ones(1), ranks=1000, load=0.9, prefetch=2, steps=50, seed=0) > 0.95
        True
    """
    rng = np.random.default_rng(seed)
    made = np.zeros(ranks)
    begun: list[float] = []
    now = 0.0
    for step in range(steps):
        # A place for the batch is free when the one `prefetch` before it was taken.
        free = begun[step - prefetch] if step >= prefetch else 0.0
        made = np.maximum(made, free) + load * rng.choice(times, ranks)
        now = max(now, float(made.max()))
        begun.append(now)
        now += 1.0
    return steps / now


def in_step(ranks: Sequence[int], steps: int) -> list[list[object]]:
    """The share of the ideal speed, by ranks, load and prefetch."""
    times = batch_seconds()
    made: list[list[object]] = []
    for load in (0.5, 0.8, 0.95):
        for prefetch in (1, 4, 16):
            shares = [
                100 * lockstep(times, ranks=n, load=load, prefetch=prefetch, steps=steps, seed=n)
                for n in ranks
            ]
            made.append([load, prefetch, *(f"{share:.1f} %" for share in shares)])
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, compute, and tell everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="of the simulated trainings")
    steps = parser.parse_args(argv).steps
    ranks = (1, 10, 100, 1000)
    print(f"One rank of {WORLD:,}, by records\n")
    head = "records | shuffle | plan, ms | a position, ns | state, bytes | resume, ms"
    print(table(head, one_rank()))
    print("\nBinwise orders of 10^12 records\n")
    print(table("bins | an epoch's order, ms | a position, ns", many_bins()))
    print("\nGoing on with another number of ranks\n")
    head = "ranks | redistribute, ms | state, bytes | after one change | after two"
    print(table(head, redistributing()))
    print("\nBalanced steps\n")
    print(table("ranks | samples of a step | a batch, ms of each rank", balancing()))
    print("\nRecords of 1 kB at rest\n")
    head = "records | bins | index of a column, GB | % of the data | manifest, MB"
    with tempfile.TemporaryDirectory() as folder:
        print(table(head, records(Path(folder))))
    print("\nMessages\n")
    head = "workers | messages a batch of 256, in a machine | between machines"
    print(table(head, messages()))
    print("\nRanks in step (simulated)\n")
    head = "load | prefetch | " + " | ".join(f"{n:,} ranks" for n in ranks)
    print(table(head, in_step(ranks, steps)))


if __name__ == "__main__":
    main()
