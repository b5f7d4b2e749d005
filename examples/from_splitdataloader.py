"""From split-data-loader: its folders read where they lie, its habits in our words.

The original package writes a folder; nothing is converted. ``loader[i]``, ``len(loader)`` and
``iterate_binwise`` become a dataset, an order, and a pipeline whose stages run in other processes.

Run it: ``python examples/from_splitdataloader.py`` (``pip install splitdataloader`` first)
"""

from __future__ import annotations

import json
import os
import tempfile

import splitdataloader

import splitpipe as sp


def decode(record: bytes) -> int:
    """The number in a record."""
    return int(json.loads(record)["number"])


def main() -> None:
    """Write with the original, read with both, then train on batches."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data")
        records = [json.dumps({"number": n}).encode() for n in range(1000)]
        splitdataloader.write_split_data(path, records, splits=16, shuffle=True)

        # Was: loader = SplitDataLoader(path); len(loader); loader[7]
        theirs = splitdataloader.SplitDataLoader(path)
        ds = sp.open_dataset(path)
        print(f"{len(ds)} records, the same: {ds[:] == [theirs[i] for i in range(len(theirs))]}")

        # Was: for record in loader.iterate_binwise(shuffle=True): ...
        # Now with a seed, an epoch and any number of workers: the same items in the same order.
        pipe = sp.Pipeline(ds, shuffle="binwise", seed=0).map(decode, workers=2).batch(100)
        with pipe.loader() as loader:
            sums = [int(batch.sum()) for batch in loader]
        print(f"{len(sums)} batches, sum {sum(sums)} of {sum(range(1000))}")
        print(f"first batches differ from each other: {len(set(sums)) > 1}")


if __name__ == "__main__":
    main()
