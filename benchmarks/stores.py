"""What stores give over a network that is not to be trusted: ``python -m benchmarks.stores``.

Responsible for: ranged reads by one process from a file server and from an S3 server on loopback,
behind a proxy that holds up every request, with no faults and with faults of all kinds in turn;
every byte is compared. Goodput is the bytes that were asked for, each once, over the time it took.

    python -m benchmarks.stores --rate 0.3 --latency-ms 20 --rounds 3
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from splitpipe.stores import RetryingStore, RetryPolicy, RetryStatistics, open_store
from splitpipe.testing.faults import FaultProxy, chaos
from tests.servers import FileServer, S3Server

__all__ = ["main"]

OBJECT_NBYTES = 64 << 20


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stores",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rate", type=float, default=0.3, help="of requests that are faulty")
    add("--latency-ms", type=float, default=20.0, help="added to every request")
    add("--nbytes", type=int, default=256 << 10, help="of a read")
    add("--reads", type=int, default=2000)
    add("--threads", type=int, default=16)
    add("--rounds", type=int, default=3)
    add("--server", choices=("files", "s3"), default="files")
    return parser.parse_args(argv)


def _round(
    url: str, options: dict[str, Any] | None, data: bytes, told: argparse.Namespace
) -> tuple[float, RetryStatistics]:
    """MB/s of one store that was just opened, all of it right, and what it did."""
    # Many attempts: at a third, one read in a million would fail ten times.
    store = open_store(url, storage_options=options, retry=RetryPolicy(attempts=16))
    assert isinstance(store, RetryingStore)
    tag = store.stat("object").tag
    rng = random.Random(1)
    places = [rng.randrange(len(data) - told.nbytes) for _ in range(told.reads)]

    def read(start: int) -> bool:
        stop = start + told.nbytes
        return store.read("object", start, stop, tag=tag) == data[start:stop]

    begun = time.perf_counter()
    with ThreadPoolExecutor(told.threads) as pool:
        right = sum(pool.map(read, places))
    took_s = time.perf_counter() - begun
    store.close()
    if right != told.reads:
        raise SystemExit(f"{told.reads - right} of {told.reads} reads gave wrong bytes")
    return told.reads * told.nbytes / took_s / 1e6, store.statistics()


def _hedges(did: RetryStatistics) -> str:
    return f"{did.hedges} of {did.requests}, {did.hedges_won} of them first"


def main(argv: Sequence[str] | None = None) -> None:
    told = _arguments(argv)
    data = random.Random(0).randbytes(OBJECT_NBYTES)
    with tempfile.TemporaryDirectory() as folder:
        if told.server == "files":
            (Path(folder) / "object").write_bytes(data)
            server: FileServer | S3Server = FileServer(Path(folder))
        else:
            server = S3Server()
            server.create_bucket("bench")
            server.put("bench/object", data)
        with server, FaultProxy(server.url, latency_s=told.latency_ms / 1e3) as proxy:
            options = server.options_at(proxy.url) if isinstance(server, S3Server) else None
            url = "s3://bench" if options else proxy.url
            clean, faulty = [], []
            for number in range(told.rounds):
                proxy.inject()
                rate, well = _round(url, options, data, told)
                clean.append(rate)
                proxy.forget()
                proxy.inject(*chaos(told.rate), seed=number)
                rate, badly = _round(url, options, data, told)
                faulty.append(rate)
                seen = proxy.statistics()
                share = sum(seen.faults.values()) / sum(seen.statuses.values())
                print(
                    f"round {number}: {clean[-1]:.0f} MB/s without faults, {faulty[-1]:.0f} MB/s"
                    f" with {sum(seen.faults.values())} faults ({share:.0%} of responses);"
                    f" second requests {_hedges(well)} and {_hedges(badly)}"
                )
    one, other = statistics.median(clean), statistics.median(faulty)
    print(f"goodput {other:.0f} of {one:.0f} MB/s: {other / one:.0%}; every byte was right")


if __name__ == "__main__":
    main()
