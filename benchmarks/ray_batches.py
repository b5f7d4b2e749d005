"""Batches of 1 MB: our loaders against ``ray.data``, the same records and the same map.

    python -m benchmarks.ray_batches --batches 400 --rounds 3 --dir /somewhere

Rules:
- everybody reads the same records in the same order, maps them with the same function by the batch
  with the same number of workers, and every batch is looked at: its numbers and its sum have to be
  right;
- three figures: batches a second of a whole epoch, its start included; seconds to the first batch;
  and CPU time a batch, of the whole machine, since Ray's processes come and go: nothing else may
  run on it. Batches a second *behind* the first would say nothing: Ray has made most of an epoch
  before it gives one;
- systems take turns within a round; a round before the first warms up what stays (Ray's workers,
  our fork server, the page cache) and is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import splitpipe as sp
from benchmarks.base import WrongResult

__all__ = ["main"]

SIDE = 64
RECORDS = 64
"""Records of 16 kB in a batch: 1 MB."""
WORKERS = 2

Batches = Iterator[dict[str, Any]]


def inverted(batch: dict[str, Any]) -> dict[str, Any]:
    """The map: one pass over the batch, so that moving it is what costs."""
    return {"n": batch["n"], "x": 255 - batch["x"]}


def write(path: Path, batches: int) -> None:
    """The records: each holds its number, and four pages of it."""
    schema = {"n": "int64", "x": sp.ndarray("uint8", (SIDE, SIDE, 4))}
    with sp.DatasetWriter(path, schema) as writer:
        for n in range(batches * RECORDS):
            writer.write({"n": n, "x": np.full((SIDE, SIDE, 4), n % 251, np.uint8)})


def ours(path: Path, **options: Any) -> Callable[[], Any]:
    """Our loader, with an executor."""

    @contextmanager
    def batches() -> Iterator[Batches]:
        pipe = sp.Pipeline(sp.open_dataset(path)).batch(RECORDS)
        with pipe.map(inverted, workers=WORKERS).loader(**options) as loader:
            yield loader

    return batches


def rays(source: Callable[[], Any]) -> Callable[[], Any]:
    """Ray Data over a source."""

    @contextmanager
    def batches() -> Iterator[Batches]:
        mapped = source().map_batches(inverted, batch_size=RECORDS)
        yield iter(mapped.iter_batches(batch_size=RECORDS, prefetch_batches=4))

    return batches


def cpu_s() -> float:
    """CPU time of this machine so far: processes of Ray come and go, and belong to nobody here."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def epoch(batches: Callable[[], Any], count: int) -> tuple[float, float, float]:
    """One epoch: batches a second, seconds to the first one, milliseconds of CPU a batch."""
    seen = np.zeros(count * RECORDS, dtype=np.int64)
    spent = cpu_s()
    first = began = time.perf_counter()
    given = 0
    with batches() as stream:
        for batch in stream:
            first = time.perf_counter() if not given else first
            n, x = np.asarray(batch["n"]), np.asarray(batch["x"])
            if x.shape != (len(n), SIDE, SIDE, 4) or int(x[:, -1, -1, -1].sum()) != int(
                (255 - n % 251).sum()
            ):
                raise WrongResult(f"batch {given} has other values than were made")
            seen[n] += 1
            given += 1
        ended = time.perf_counter()
    if not (seen == 1).all():
        raise WrongResult("records are missing, or came twice")
    return given / (ended - began), first - began, 1e3 * (cpu_s() - spent) / given


def systems(path: Path, parquet: Path) -> dict[str, Callable[[], Any]]:
    """Who takes part, by name."""
    import ray

    found = {
        "splitpipe, process": ours(path, executor="process"),
        "ray.data, our dataset": rays(lambda: sp.open_dataset(path).to_ray()),
        "ray.data, Parquet": rays(lambda: ray.data.read_parquet(str(parquet))),
    }
    try:
        with sp.Pipeline(range(2)).map(abs, workers=1).loader(executor="ray") as loader:
            list(loader)
    except sp.GraphError:
        return found
    return {**found, "splitpipe, ray": ours(path, executor="ray")}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[tuple[float, ...]]]:
    """All rounds of everybody."""
    import ray

    path, parquet = folder / "records", folder / "parquet"
    write(path, arguments.batches)
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        object_store_memory=arguments.store_bytes,
        log_to_driver=False,
        _temp_dir=str(folder / "ray"),
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        sp.open_dataset(path).to_ray().write_parquet(str(parquet))
        taking = {
            name: batches
            for name, batches in systems(path, parquet).items()
            if not arguments.only or any(word in name for word in arguments.only)
        }
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in taking}
        for number in range(arguments.rounds + 1):
            for name, batches in taking.items():
                figures = epoch(batches, arguments.batches)
                if number:
                    found[name].append(figures)
                    print(f"round {number}: {name}:", *(f"{one:.3g}" for one in figures))
    finally:
        ray.shutdown()
    return found


def told(found: dict[str, list[tuple[float, ...]]]) -> str:
    """A table: medians, and how many times the best figures of ray.data they are."""
    lines = [
        "| system | batches/s | x | first batch, s | CPU, ms a batch | x |",
        "|---|---|---|---|---|---|",
    ]
    medians = {
        name: [statistics.median(one[at] for one in rounds) for at in range(3)]
        for name, rounds in found.items()
    }
    rays = [figures for name, figures in medians.items() if name.startswith("ray.data")]
    fastest, least = max(one[0] for one in rays), min(one[2] for one in rays)
    for name, (rate, first, cost) in medians.items():
        lines.append(
            f"| {name} | {rate:.0f} | {rate / fastest:.2f} | {first:.2f} | {cost:.2f} "
            f"| {least / cost:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the records are put for the time")
    parser.add_argument("--store-bytes", type=int, default=512 << 20, help="Ray's object store")
    parser.add_argument("--only", nargs="*", help="parts of the names of those that take part")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir, ignore_cleanup_errors=True) as folder:
        found = measure(arguments, Path(folder))
    print(told(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
