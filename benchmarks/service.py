"""What the data service gives, beside what it has to: ``python -m benchmarks.service``.

Responsible for: one server on loopback for each part, clients in processes of their own where there
are several, and a table with every figure, its bar, and whether that was reached.

    python -m benchmarks.service --rounds 3 --lavender-python /path/to/its/python

Parts (``--only`` takes some, with commas between):

    rows     rows of two small columns in batches of 32: the service, the same pipeline in this
             process, and lavender-data
    images   batches of 4.8 MB over ipc and over tcp
    follow   four clients that follow one CPU-bound iteration, and four loaders that each make it
    crowd    a fast client alone, and beside 200 idle and 20 slow ones

Rules:
- what is compared takes turns, round by round; the medians are compared, and the worst and best are
  printed beside them;
- every batch is counted and its samples with it; a round in which one is missing gives no figure;
- what was not reached is printed as such.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import splitpipe as sp
from benchmarks.serving import data
from tests.server.serving import Served, serving

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 600.0
BATCH = 32


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=int, default=400_000)
    add("--images", type=int, default=320, help="in the dataset")
    add("--image-batches", type=int, default=400, help="that are read a round")
    add("--batches", type=int, default=600, help="of the CPU-bound iteration")
    add("--work", type=int, default=60_000, help="rounds of hashing for each of them")
    add("--idle", type=int, default=200)
    add("--slow", type=int, default=20)
    add("--rounds", type=int, default=3)
    add("--only", default="rows,images,follow,crowd", help="with commas between")
    add("--lavender-python", type=Path, help="the Python of an environment that has it")
    add("--lavender-seconds", type=float, default=10.0)
    add("--json", type=Path, help="write the figures of every round here")
    return parser.parse_args(argv)


class Figures:
    """What was measured, by name, and what it has to be."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self.bars: list[tuple[str, float, str]] = []

    def add(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)
        print(f"  {name}: {value:,.4g}", file=sys.stderr, flush=True)

    def median(self, name: str) -> float:
        return statistics.median(self.found[name])

    def bar(self, words: str, value: float, least: float) -> None:
        self.bars.append((words, value / least, f"{value:,.4g} of {least:,.4g}"))

    def table(self) -> str:
        lines = ["| what | median | least | most |", "|---|---|---|---|"]
        for name, values in self.found.items():
            figures = (statistics.median(values), min(values), max(values))
            lines.append(f"| {name} | " + " | ".join(f"{one:,.4g}" for one in figures) + " |")
        lines += ["", "| bar | reached | ratio | |", "|---|---|---|---|"]
        for words, ratio, text in self.bars:
            word = "yes" if ratio >= 1 else "NO"
            lines.append(f"| {words} | {text} | {ratio:.2f} | {word} |")
        return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run all of it; returns the exit status."""
    arguments = _arguments(argv)
    parts: dict[str, Callable[[Path, argparse.Namespace, Figures], None]] = {
        "rows": _rows,
        "images": _images,
        "follow": _follow,
        "crowd": _crowd,
    }
    figures = Figures()
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory(prefix="splitpipe-service-") as folder:
            print(name, file=sys.stderr)
            parts[name](Path(folder), arguments, figures)
    print(figures.table())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures.found, indent=1))
    return int(any(ratio < 1 for _, ratio, _ in figures.bars))


@contextlib.contextmanager
def _served(folder: Path, dataset: str) -> Iterator[tuple[Served, Any]]:
    """A server that has one dataset, whose bins lie in ``folder/dataset``."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "work.py").write_text(data.MODULES)
    options = ("--allow-root", str(folder), "--modules", str(modules))
    with serving(folder / "root", *options) as server:
        client = sp.connect(server.url)
        client.datasets.create(dataset)
        client.datasets.column_sets.add(dataset, "main", str(folder / dataset), format="bins")
        yield server, client


def _read(loader: Any, batches: int | None = None) -> tuple[int, float]:
    """Read batches of a loader behind its first; how many samples, in how many seconds."""
    first = next(iter(loader))
    del first
    began_s = time.monotonic()
    samples = 0
    for number, batch in enumerate(loader, 1):
        samples += len(next(iter(batch.values())))
        if number == batches:
            break
    return samples, time.monotonic() - began_s


def _rows(folder: Path, arguments: argparse.Namespace, figures: Figures) -> None:
    rows = arguments.rows
    data.write_rows(folder / "rows", rows)
    dataset = sp.open_dataset(folder / "rows")
    with _served(folder, "rows") as (_, client):
        for _ in range(arguments.rounds):
            with sp.Pipeline(dataset).batch(BATCH).loader(executor="inline") as local:
                samples, seconds = _read(local)
            assert samples == rows - BATCH
            figures.add("rows, in process, samples/s", samples / seconds)
            for transport in ("zmq", "http"):
                with client.iterate("rows", batch_size=BATCH, transport=transport) as loader:
                    samples, seconds = _read(loader)
                assert samples == rows - BATCH
                figures.add(f"rows, service over {transport}, samples/s", samples / seconds)
    own = figures.median("rows, service over zmq, samples/s")
    inside = figures.median("rows, in process, samples/s")
    figures.bar("rows: half of what is given in process", own, inside / 2)
    if arguments.lavender_python is not None:
        data.write_rows_as_csv(folder / "data", min(rows, 20_000))
        for number in range(arguments.rounds):
            figures.add("rows, lavender-data, samples/s", _lavender(folder, number, arguments))
        theirs = figures.median("rows, lavender-data, samples/s")
        figures.bar("rows: 500 times lavender-data", own, 500 * theirs)


def _lavender(folder: Path, number: int, arguments: argparse.Namespace) -> float:
    own = folder / f"lavender-{number}"
    own.mkdir()
    (own / "data").symlink_to(folder / "data")
    script = ROOT / "benchmarks" / "serving" / "lavender.py"
    command = [arguments.lavender_python, script, own, str(BATCH), str(arguments.lavender_seconds)]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    if done.returncode:
        raise RuntimeError(f"lavender-data did not run:\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["samples"] / told["seconds"])


def _images(folder: Path, arguments: argparse.Namespace, figures: Figures) -> None:
    data.write_images(folder / "images", arguments.images)
    nbytes = 224 * 224 * 3
    epochs = -(-(arguments.image_batches + 1) * BATCH // arguments.images)
    with _served(folder, "images") as (_, client):
        for _ in range(arguments.rounds):
            for way in ("ipc", "tcp", "http"):
                transport = "http" if way == "http" else "zmq"
                with (
                    _only(way),
                    client.iterate(
                        "images", batch_size=BATCH, epochs=epochs, transport=transport
                    ) as loader,
                ):
                    samples, seconds = _read(loader, arguments.image_batches)
                assert samples == arguments.image_batches * BATCH
                figures.add(f"images over {way}, GB/s", samples * nbytes / seconds / 1e9)
    for way in ("ipc", "tcp"):
        figures.bar(f"images over {way}: 1 GB/s", figures.median(f"images over {way}, GB/s"), 1.0)


@contextlib.contextmanager
def _only(way: str) -> Iterator[None]:
    """Let clients of this process find this kind of endpoint alone."""
    from splitpipe.client.feed import links

    reachable = links.reachable
    links.reachable = lambda endpoint: endpoint.startswith(way) and reachable(endpoint)
    try:
        yield
    finally:
        links.reachable = reachable


def _follow(folder: Path, arguments: argparse.Namespace, figures: Figures) -> None:
    batches, work = arguments.batches, arguments.work
    data.write_rows(folder / "rows", batches * BATCH)
    with _served(folder, "rows") as (server, client):
        for _ in range(arguments.rounds):
            told = [str(folder / "rows"), str(batches), str(work)]
            figures.add("four separate loaders, batches/s", _four("separate", told, batches))
            for workers in (0, 2):
                spec = {
                    "dataset": "rows",
                    "batch_size": BATCH,
                    "mode": "follow",
                    "workers": workers,
                    "preprocessors": [{"name": "preprocess", "params": {"rounds": work}}],
                }
                made = client.iterations.create(spec)
                name = f"four that follow, {workers} workers, batches/s"
                figures.add(name, _four("follow", [server.url, made["id"]], batches))
                client.iterations.delete(made["id"])
    own = max(
        figures.median(f"four that follow, {workers} workers, batches/s") for workers in (0, 2)
    )
    figures.bar(
        "follow: 3.5 times four separate loaders",
        own,
        3.5 * figures.median("four separate loaders, batches/s"),
    )


def _four(kind: str, told: Sequence[str], batches: int) -> float:
    """Let four processes read at once; how many batches a second that is together."""
    command = [sys.executable, "-m", "benchmarks.serving.work", kind, *told]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            )
            for _ in range(4)
        ]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        began_s = time.monotonic()
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("go\n")
            reader.stdin.flush()
        for reader in readers:
            assert reader.stdout is not None
            assert json.loads(reader.stdout.readline())["batches"] == batches
        seconds = time.monotonic() - began_s
    return 4 * batches / seconds


def _crowd(folder: Path, arguments: argparse.Namespace, figures: Figures) -> None:
    rows = arguments.rows
    data.write_rows(folder / "rows", rows)
    spec = {"dataset": "rows", "batch_size": BATCH, "mode": "follow", "lease_s": 300}
    with _served(folder, "rows") as (server, client):
        for _ in range(arguments.rounds):
            made = client.iterations.create(spec)
            figures.add("a fast one alone, samples/s", _fast(client, made["id"], rows))
            client.iterations.delete(made["id"])
            # Another one: what the first has made already would be there.
            made = client.iterations.create(spec)
            with _crowded(server.url, made["id"], arguments):
                figures.add("a fast one in the crowd, samples/s", _fast(client, made["id"], rows))
            client.iterations.delete(made["id"])
    figures.bar(
        f"crowd: 95 % beside {arguments.idle} idle and {arguments.slow} slow clients",
        figures.median("a fast one in the crowd, samples/s"),
        0.95 * figures.median("a fast one alone, samples/s"),
    )


def _fast(client: Any, iteration: str, rows: int) -> float:
    with client.follow(iteration) as loader:
        samples, seconds = _read(loader)
    assert samples == rows - BATCH
    return samples / seconds


@contextlib.contextmanager
def _crowded(url: str, iteration: str, arguments: argparse.Namespace) -> Iterator[None]:
    told = [url, iteration, str(arguments.idle), str(arguments.slow)]
    command = [sys.executable, "-m", "benchmarks.serving.crowd", *told]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdin is not None
        assert crowd.stdout.readline() == "ready\n"
        yield
        crowd.stdin.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
