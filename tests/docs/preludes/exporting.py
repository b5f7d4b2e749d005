"""A dataset whose records have keys and metadata."""

import tarfile
from pathlib import Path

import splitpipe as sp

with sp.DatasetWriter("ds") as writer:
    for n in range(20):
        writer.write({"text": f"line {n}"}, key=f"line-{n}", meta={"n": n})


def done():
    (shard,) = Path("shards").glob("*.tar")
    with tarfile.open(shard) as archive:
        assert "line-7.meta.json" in archive.getnames()
