"""Streaming a dataset from an S3 server, side by side: ``python -m benchmarks.streaming``.

Responsible for: one S3 server on loopback, a proxy that holds every request up for some
milliseconds, the same records in the layout of each system, and a process for each system and
round, with an empty cache, that reads two epochs, shuffled, with two workers, as batches of arrays.

    python -m benchmarks.streaming --records 4000 --latency-ms 20 --rounds 3

Rules:
- systems take turns, each round in a new process and a new folder;
- every record must come exactly once an epoch, by its number; else there is no figure;
- peers get two layouts, of shards of their usual size and of small ones, and are judged by the
  better of the two; `limit` is the same bytes by bare ranged requests, eight at a time, kept
  nowhere;
- what went over the wire is counted by the proxy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.streams import layouts
from splitpipe.testing.faults import FaultProxy
from tests.servers import S3Server

__all__ = ["main"]

BUCKET = "bench"
METRICS = ("first_s", "epoch1_per_s", "epoch2_per_s", "requests", "mb")
TIMEOUT_S = 300.0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--records", type=int, default=4000)
    add("--nbytes", type=int, default=100 << 10, help="of a record")
    add("--latency-ms", type=float, default=20.0, help="added to every request")
    add("--rounds", type=int, default=3)
    add("--systems", default=",".join(layouts.SYSTEMS), help="with commas between")
    add("--json", type=Path, help="write the figures of every round here")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run all of it; returns the exit status."""
    arguments = _arguments(argv)
    names = arguments.systems.split(",")
    latency_s = arguments.latency_ms / 1e3
    with (
        tempfile.TemporaryDirectory(prefix="splitpipe-streaming-") as name,
        S3Server() as server,
        FaultProxy(server.url, latency_s=latency_s) as proxy,
    ):
        server.create_bucket(BUCKET)
        folder = Path(name)
        for layout in dict.fromkeys(layouts.SYSTEMS[one].layout for one in names):
            _upload(server, folder, layout, arguments.records, arguments.nbytes)
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in names}
        for number in range(arguments.rounds):
            for one in names:
                proxy.forget()
                figures = _child(one, folder / f"{one}-{number}", server, proxy.url, arguments)
                seen = proxy.statistics()
                figures["requests"] = sum(seen.requests.values())
                figures["mb"] = seen.nbytes_down / 1e6
                found[one].append(figures)
                print(f"  round {number}, {one}: {figures}", file=sys.stderr)
    print(_table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1))
    return int(any("failed" in figures for rounds in found.values() for figures in rounds))


def _upload(server: S3Server, folder: Path, layout: str, records: int, nbytes: int) -> None:
    local = folder / layout
    subprocess.run(
        [sys.executable, "-m", "benchmarks.streams.layouts", layout, local, f"{records}:{nbytes}"],
        check=True,
        timeout=TIMEOUT_S,
    )
    for path in sorted(local.rglob("*")):
        if path.is_file():
            server.put(f"{BUCKET}/{layout}/{path.relative_to(local)}", path.read_bytes())
    shutil.rmtree(local)


def _child(
    name: str, local: Path, server: S3Server, url: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Read two epochs in a process of its own; what it measured, or why it did not."""
    job = {
        "system": name,
        "url": f"s3://{BUCKET}/{layouts.SYSTEMS[name].layout}",
        "local": str(local),
        "options": server.options_at(url),
        "records": arguments.records,
        "nbytes": arguments.nbytes,
    }
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "S3_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL": url,
    }
    command = [sys.executable, "-m", "benchmarks.streams.reading", json.dumps(job)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {TIMEOUT_S:.0f} s"}
    finally:
        shutil.rmtree(local, ignore_errors=True)
    if done.returncode:
        return {"failed": done.stderr.strip()[-2000:]}
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def _table(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| system | first sample, s | first epoch, samples/s | second epoch, samples/s | requests "
        "| MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        good = [figures for figures in rounds if "failed" not in figures]
        if not good:
            lines.append(f"| {name} | failed: {rounds[0]['failed'].splitlines()[-1:]} | | | | |")
            continue
        cells = []
        for metric in METRICS:
            values = [figures[metric] for figures in good if figures.get(metric) is not None]
            form = ".3f" if metric == "first_s" else ",.0f"
            text = format(statistics.median(values), form) if values else "-"
            if len(values) > 1 and np.ptp(values):
                text += f" ({min(values):{form}}-{max(values):{form}})"
            cells.append(text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
