"""Actors of Ray against processes: the table of ``docs/ray.md``.

Run as ``python -m benchmarks.onray [ROUNDS]``. It starts a cluster of two nodes on this machine.
Two cases: a map that only computes, and batches of 1 MB that cost next to nothing, so that only
their way is measured. Each is read by processes, by actors that share this machine's memory, and by
actors that are taken for those of another machine, in turn in every round; time counts from the
first items on, starting is told apart. Streams are compared.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

import numpy as np

import splitpipe as sp
from tests.clusters import NODE, ray_cluster

WORKERS = 2
WAYS = {"process": "", "actors, shared memory": "near", "actors, network": "direct"}


def computed(number: int) -> int:
    """Some milliseconds of work that holds the interpreter."""
    total = number
    for n in range(60_000):
        total = (total * 31 + n) & 0xFFFFFFFF
    return total


def filled(number: int) -> Any:
    """Return a row of 16 kB."""
    return np.full(16 << 10, number & 0xFF, np.uint8)


CASES = {
    "a map that computes": (sp.Pipeline(range(600)).map(computed, workers=WORKERS), 100),
    "batches of 1 MB": (sp.Pipeline(range(64 * 300)).map(filled, workers=WORKERS).batch(64), 60),
}


def measured(pipe: sp.Pipeline, way: str, warm: int) -> tuple[float, float, int]:
    """Return seconds up to the first item, items a second behind the first `warm`, and a digest."""
    os.environ["SPLITPIPE_RAY_JOIN"] = WAYS[way]
    begun, digest, count = time.perf_counter(), 0, 0
    with pipe.loader(executor="process" if way == "process" else "ray") as loader:
        for item in loader:
            if not count:
                first = time.perf_counter() - begun
            count += 1
            if count == warm:
                since = time.perf_counter()
            digest = (digest * 31 + int(np.asarray(item).reshape(-1)[0])) & 0xFFFFFFFF
            del item
        return first, (count - warm) / (time.perf_counter() - since), digest


def main(rounds: int = 3) -> int:
    """Print the table."""
    print("| case | workers are | items/s | against processes | first item |")
    print("|---|---|---|---|---|")
    # Ray lets its workers give way to all others (15): no comparison on a busy machine.
    with ray_cluster(WORKERS // 2, environ={"RAY_worker_niceness": "0"}) as cluster:
        cluster.add_node(num_cpus=WORKERS // 2, **NODE)
        for case, (pipe, warm) in CASES.items():
            found: dict[str, list[tuple[float, float, int]]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way in WAYS:
                    found[way].append(measured(pipe, way, warm))
            if len({digest for many in found.values() for *_, digest in many}) != 1:
                raise AssertionError("the streams differ")
            base = [rate for _, rate, _ in found["process"]]
            for way, many in found.items():
                rates = [rate for _, rate, _ in many]
                ratio = statistics.median(a / b for a, b in zip(rates, base, strict=True))
                first = statistics.median(one[0] for one in many)
                rate = statistics.median(rates)
                print(f"| {case} | {way} | {rate:,.0f} | {ratio:.2f} | {first:.1f} s |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
