"""A `DataLoader` with two workers against our loader with two, in one script.

Run as ``python -m benchmarks.torchswap [--rounds 5] [--quick]``. Both read the same items of the
same `Dataset`, make batches of the same size and hand tensors to the same loop over epochs; rounds
are interleaved, and what is compared is the median of rounds. What is swapped is the loader that
people write, ``DataLoader(dataset, batch, shuffle=True, num_workers=2)``, which starts its workers
for each epoch; the same with ``persistent_workers=True`` stands beside it. The cases:

- digits: scikit-learn's digits, tiny items: what it costs to bring an item at all;
- text: samples of 2,048 tokens, stored: light work, middling batches;
- image: 3 x 224 x 224 float32, stored: batches of 19 MB, whose transport is all there is;
- computing: an item takes a millisecond of work: nobody can be faster than two CPUs.

For each it also stops ours in the middle, goes on from its state, and compares what comes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import splitpipe as sp
from splitpipe.integrations.torch import EpochLoader, MapDataset

WORKERS = 2


@dataclass(frozen=True)
class Swap:
    """One case: what is read, by items, and how many make a batch."""

    name: str
    records: Any
    work: Callable[[Any], Any]
    batch: int
    epochs: int
    bar: float


def as_it_is(record: Any) -> Any:
    """No work."""
    return record


def computing(record: Any) -> Any:
    """About a millisecond of work that keeps the interpreter."""
    total = 0
    for number in range(20_000):
        total += number & 7
    return {**record, "total": total}


def theirs(swap: Swap, *, persistent: bool = False) -> DataLoader:
    """A `DataLoader`."""
    dataset = MapDataset(swap.records, swap.work)
    return DataLoader(
        dataset, swap.batch, shuffle=True, num_workers=WORKERS, persistent_workers=persistent
    )


def ours(swap: Swap) -> EpochLoader:
    """Our loader."""
    pipe = sp.Pipeline(swap.records, shuffle="global", seed=0)
    if swap.work is not as_it_is:
        pipe = pipe.map(swap.work)
    return EpochLoader(pipe.batch(swap.batch, workers=WORKERS))


def rate(loader: Iterable[Any], epochs: int) -> float:
    """Batches a second, from the first one on: starting is another figure."""
    count, begun, seen = 0, 0.0, 0
    for _ in range(epochs):
        for batch in loader:
            begun = begun or time.perf_counter()
            seen += int(batch["label"][0])  # the loop looks at what it is given
            count += 1
            del batch
    return (count - 1) / (time.perf_counter() - begun)


def resumes(swap: Swap) -> bool:
    """Whether what comes behind a state is what would have come."""
    with ours(swap) as loader:
        batches = iter(loader)
        for _ in range(3):
            next(batches)
        state = loader.state_dict()
        expected = [batch["label"].tolist() for batch in batches]
    with ours(swap) as loader:
        loader.load_state_dict(state)
        return [batch["label"].tolist() for batch in loader] == expected


def stored(folder: Path, name: str, count: int, make: Callable[[int], Any]) -> Any:
    """Write and open a dataset of `count` arrays that `make` gives, with labels."""
    schema = {"x": sp.ndarray(make(0).dtype.name, make(0).shape), "label": "int64"}
    with sp.DatasetWriter(folder / name, schema) as writer:
        writer.write_many({"x": make(number), "label": number} for number in range(count))
    return sp.open_dataset(folder / name)


def cases(folder: Path, *, quick: bool) -> list[Swap]:
    """Return all cases over data in `folder`."""
    from sklearn.datasets import load_digits

    part = 4 if quick else 1
    pixels, _ = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    picture = rng.random((3, 224, 224), np.float32)
    tokens = rng.integers(0, 50_000, 2048, np.int64)
    digit = pixels.astype(np.float32)
    digits = stored(folder, "digits", 1797, lambda n: digit[n])
    text = stored(folder, "text", 16_384, lambda n: tokens + n)
    images = stored(folder, "image", 768, lambda n: picture)
    return [
        Swap("digits", digits, as_it_is, 16, 40 // part, 3.0),
        Swap("text", text, as_it_is, 32, 8 // part, 3.0),
        Swap("image", images, as_it_is, 32, 8 // part, 3.0),
        Swap("computing", digits, computing, 16, 4 // part, 1.0),
    ]


def main() -> int:
    """Print a table; the exit code says whether every bar is met."""
    parser = argparse.ArgumentParser(description="A DataLoader against our loader.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="less data")
    asked = parser.parse_args()
    print(f"torch {torch.__version__}; {WORKERS} workers each; {asked.rounds} rounds")
    print("| case | DataLoader | persistent | ours, batches/s | ratio | bar | resume exact |")
    print("|---|---|---|---|---|---|---|")
    met = True
    with tempfile.TemporaryDirectory() as folder:
        for swap in cases(Path(folder), quick=asked.quick):
            found: list[tuple[float, float, float]] = []
            for _ in range(asked.rounds):
                plain = rate(theirs(swap), swap.epochs)
                kept = rate(theirs(swap, persistent=True), swap.epochs)
                with ours(swap) as loader:
                    found.append((plain, kept, rate(loader, swap.epochs)))
            plain, kept, us = np.median(found, axis=0)
            ratio = float(np.median([mine / other for other, _, mine in found]))
            exact = resumes(swap)
            met = met and exact and ratio >= swap.bar
            figures = f"{swap.name} | {plain:.1f} | {kept:.1f} | {us:.1f}"
            print(f"| {figures} | {ratio:.2f} | {swap.bar:g} | {exact} |", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
