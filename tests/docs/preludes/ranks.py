"""The dataset of docs/ranks.md."""

import os

import splitpipe as sp

with sp.DatasetWriter("data") as writer:
    writer.write_many({"tokens": 1 + n * n % 100} for n in range(1000))
ds = sp.open_dataset("data")
os.environ |= {"RANK": "1", "WORLD_SIZE": "4"}


def done():
    assert len(list(pipe)) == len(pipe) == 16
