"""Throughput against workers, record size and dataset size, as pictures: ``-m benchmarks.plots``.

Responsible for: three series that one figure each shows, measured for splitpipe and for a peer in
turn, kept as JSON, and drawn.

    python -m benchmarks.plots                        # measure and draw, ten minutes
    python -m benchmarks.plots --quick --only size    # a look at one of them
    python -m benchmarks.plots --draw                 # draw again what was measured last

Rules:
- what is measured is what the cases measure (`benchmarks.cases`): the same adapters, the same work;
- every point is the median of rounds that the systems take in turn; bars reach from the lowest to
  the highest;
- the pictures say on which machine and under which load they were made.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.data import text_records
from benchmarks.systems import load, missing
from benchmarks.work import ArrayWork

__all__ = ["FIGURES", "draw", "main", "measure"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "plots.json"
IMAGES = ROOT / "docs" / "images"
WORK_S = 0.002
BATCH = 256

Measured = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        title: what it shows.
        across: the name of its horizontal axis, whose values are `points`.
        up: the name of the vertical one.
        points: with `quick`, every other one of them.
        systems: ours first.
        rate: what is measured: (system, point, seconds, folder) -> a rate.
    """

    title: str
    across: str
    up: str
    points: tuple[int, ...]
    systems: tuple[str, ...]
    rate: Callable[[str, int, float, Path], float]


@dataclass(frozen=True)
class Busy:
    """A function that takes `seconds` of its processor."""

    seconds: float

    def __call__(self, number: int) -> int:
        stop = time.thread_time() + self.seconds
        while time.thread_time() < stop:
            pass
        return number


def by_workers(system: str, workers: int, seconds: float, _folder: Path) -> float:
    """Items a second of a map that costs `WORK_S` of a processor each."""
    count = max(100, int(seconds * workers / WORK_S))
    warm = 20 * workers
    run = load(system, "pipeline").map(Busy(WORK_S), count + warm, workers=workers)
    return _rate(run, warm, count, lambda item, _number: item)


def by_size(system: str, nbytes: int, seconds: float, _folder: Path) -> float:
    """Gigabytes a second of batches of `nbytes` bytes that one worker makes by copying them."""
    work = ArrayWork((max(1, nbytes // 65536), min(nbytes, 65536) // 2), "uint16", by_rows=False)
    count = max(50, min(20_000, int(seconds * 2e9 / nbytes)))
    run = load(system, "pipeline").batches(work, count + 40, workers=1)
    return _rate(run, 40, count, work.touch) * nbytes / 1e9


def by_records(system: str, records: int, seconds: float, folder: Path) -> float:
    """Records a second of batches of random records of 100 to 300 bytes."""
    storage, path = load(system, "storage"), folder / f"{system}-{records}"
    if not path.exists():
        path.mkdir()
        storage.write(path, text_records(records, seed=0))
    reader = storage.open(path)
    try:
        rng, seen = np.random.default_rng(0), 0
        reader.get_batch(rng.integers(0, records, BATCH))
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            seen += len(reader.get_batch(rng.integers(0, records, BATCH)))
        return seen / (time.perf_counter() - began)
    finally:
        reader.close()


def _rate(run: Any, warm: int, count: int, touch: Callable[[Any, int], Any]) -> float:
    """Items a second of `count` items behind the first `warm`, which start everything."""
    try:
        items = iter(run)
        for number in range(warm):
            touch(next(items), number)
        began = time.perf_counter()
        seen = sum(1 for n, item in enumerate(islice(items, count), warm) if touch(item, n) or True)
        took = time.perf_counter() - began
    finally:
        run.close()
    assert seen == count, f"{seen} of {count} items came"
    return count / took


FIGURES = {
    "workers": Figure(
        f"A map of {WORK_S * 1e3:.0f} ms of processor time an item",
        "workers",
        "items/s",
        (1, 2, 3, 4),
        ("splitpipe", "torch"),
        by_workers,
    ),
    "size": Figure(
        "Batches through a process boundary, one worker",
        "bytes of a batch",
        "GB/s",
        tuple(1 << power for power in range(12, 25, 2)),
        ("splitpipe", "torch"),
        by_size,
    ),
    "records": Figure(
        f"Batches of {BATCH} random records of 100 to 300 bytes",
        "records in the dataset",
        "records/s",
        (1_000, 10_000, 100_000, 1_000_000),
        ("splitpipe", "lmdb"),
        by_records,
    ),
}


def measure(names: Sequence[str], *, rounds: int, seconds: float, quick: bool) -> dict[str, Any]:
    """The figures of these names: system -> point -> the rates of all rounds."""
    found: dict[str, Any] = {}
    for name in names:
        figure = FIGURES[name]
        systems = [system for system in figure.systems if not missing(system)]
        rates: Measured = {system: {} for system in systems}
        with tempfile.TemporaryDirectory() as folder:
            for _round, point, system in _turns(figure, systems, rounds, quick=quick):
                rate = figure.rate(system, point, seconds, Path(folder))
                rates[system].setdefault(str(point), []).append(rate)
                print(f"{name}: {system}, {point}: {rate:,.4g} {figure.up}", flush=True)
        found[name] = rates
    return found


def _turns(
    figure: Figure, systems: Sequence[str], rounds: int, *, quick: bool
) -> Iterator[tuple[int, int, str]]:
    for number in range(rounds):
        for point in figure.points[:: 2 if quick else 1]:
            for system in systems:
                yield number, point, system


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured; the files."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise SystemExit(
            "drawing needs matplotlib: pip install 'splitpipe[docs]', then --draw draws what was "
            "measured"
        ) from error

    folder.mkdir(parents=True, exist_ok=True)
    about, paths = results["about"], []
    for name, rates in results["figures"].items():
        figure = FIGURES[name]
        canvas = Canvas(figsize=(7, 4), layout="constrained")
        axes = canvas.add_subplot()
        for system, marker in zip(rates, "os^", strict=False):
            points = [int(point) for point in rates[system]]
            middle = [statistics.median(each) for each in rates[system].values()]
            low = [m - min(each) for m, each in zip(middle, rates[system].values(), strict=True)]
            high = [max(each) - m for m, each in zip(middle, rates[system].values(), strict=True)]
            axes.errorbar(points, middle, (low, high), marker=marker, capsize=3, label=system)
        if name == "workers":
            axes.set_xticks(figure.points)
        else:
            axes.set_xscale("log", base=2 if name == "size" else 10)
        axes.set(title=figure.title, xlabel=figure.across, ylabel=figure.up)
        if name == "size":
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
        canvas.text(0.99, 0.005, about, ha="right", va="bottom", fontsize=6, color="gray")
        path = folder / f"throughput-{name}.svg"
        canvas.set_canvas(FigureCanvasSVG(canvas))
        canvas.savefig(path, metadata={"Date": None})
        paths.append(path)
    return paths


def _about() -> str:
    told = machine.describe(Path(tempfile.gettempdir()))
    load_before = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{told['cores']} cores of {told['cpu']}, {told['started'][:10]}, load {load_before}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("--only", action="append", choices=FIGURES, help="one figure; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a point in a round")
    parser.add_argument("--quick", action="store_true", help="fewer points, two short rounds")
    parser.add_argument("--draw", action="store_true", help="draw what was measured last")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    told = parser.parse_args(arguments)
    earlier = json.loads(told.results.read_text()) if told.results.exists() else {}
    if not told.draw:
        rounds, seconds = (2, 0.2) if told.quick else (told.rounds, told.seconds)
        about, names = _about(), told.only or list(FIGURES)
        found = measure(names, rounds=rounds, seconds=seconds, quick=told.quick)
        earlier = {"about": about, "figures": {**earlier.get("figures", {}), **found}}
        told.results.parent.mkdir(parents=True, exist_ok=True)
        told.results.write_text(json.dumps(earlier, indent=1))
    for path in draw(earlier, told.images):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
