"""The same CPU-bound batches, made by each for itself or followed.

    python -m benchmarks.serving.work separate FOLDER BATCHES ROUNDS
    python -m benchmarks.serving.work follow URL ITERATION

Says "ready", waits for a line, reads everything, and prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import splitpipe as sp
from benchmarks.serving.data import MODULES

__all__ = ["main"]


def separate(folder: str, batches: str, rounds: str) -> Iterator[Any]:
    names: dict[str, Any] = {}
    exec(MODULES, names)  # the very function that the server has
    preprocess = names["preprocess"]
    dataset = sp.open_dataset(folder)
    pipe = sp.Pipeline(dataset).batch(32).take(int(batches))
    with pipe.map(lambda batch: preprocess(batch, rounds=int(rounds))).loader(
        executor="inline"
    ) as loader:
        yield from loader


def follow(url: str, iteration: str) -> Iterator[Any]:
    with sp.connect(url).follow(iteration) as loader:
        yield from loader


def main(kind: str, *arguments: str) -> None:
    batches = {"separate": separate, "follow": follow}[kind](*arguments)
    # What both need is loaded before the clock runs: a training does that once.
    assert sp.Pipeline is not None
    assert sp.connect is not None
    import_module("splitpipe.client.loader")
    print("ready", flush=True)
    sys.stdin.readline()
    began_s = time.monotonic()
    count = sum(1 for _ in batches)
    print(json.dumps({"batches": count, "seconds": time.monotonic() - began_s}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
