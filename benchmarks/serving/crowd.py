"""Clients that are only there: idle ones that took a batch, slow ones that take one a second.

    python -m benchmarks.serving.crowd URL ITERATION IDLE SLOW

Says "ready" when all of them have a batch, and ends when its input does.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import splitpipe as sp
from splitpipe.client import RemoteLoader

__all__ = ["main"]


def main(url: str, iteration: str, idle: int, slow: int) -> None:
    client = sp.connect(url)

    def come(name: str) -> RemoteLoader:
        loader = client.follow(iteration, client=name, prefetch=1)
        next(loader)
        return loader

    names = [f"idle-{number}" for number in range(idle)] + [f"slow-{n}" for n in range(slow)]
    with ThreadPoolExecutor(8) as threads:
        loaders = list(threads.map(come, names))
    print("ready", flush=True)
    over = threading.Event()
    stopper = threading.Thread(target=lambda: (sys.stdin.read(), over.set()))
    stopper.start()
    while slow and not over.wait(1.0):
        for loader in loaders[idle:]:
            next(loader)
    stopper.join()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda loader: loader.close(timeout_s=1.0), loaders))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
