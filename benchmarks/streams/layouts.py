"""The same records in the layout of each system: ``python -m benchmarks.streams.layouts``.

Responsible for: `SYSTEMS`, what takes part; `records`, what is stored; a writer for each layout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["SYSTEMS", "System", "records"]

LARGE, SMALL = 64 << 20, 8 << 20


@dataclass(frozen=True, slots=True)
class System:
    """What takes part.

    Attributes:
        layout: of its data in the bucket.
        reader: function of ``reading`` that reads it.
    """

    layout: str
    reader: str


SYSTEMS = {
    "limit": System("splitpipe", "limit"),
    "splitpipe": System("splitpipe", "splitpipe"),
    "mosaicml": System("mds-64", "mosaicml"),
    "mosaicml-8MB": System("mds-8", "mosaicml"),
    "litdata": System("lit-64", "litdata"),
    "litdata-8MB": System("lit-8", "litdata"),
}


def records(count: int, nbytes: int) -> Iterator[bytes]:
    """Records that nothing compresses; the first eight bytes of each are its number."""
    block = np.random.default_rng(0).bytes(nbytes)
    for number in range(count):
        yield number.to_bytes(8, "little") + block[8:]


def _splitpipe(folder: Path, items: Iterator[bytes], nbytes: int) -> None:
    import splitpipe as sp

    with sp.DatasetWriter(folder) as writer:
        writer.write_many(items)


def _mds(folder: Path, items: Iterator[bytes], nbytes: int) -> None:
    from streaming import MDSWriter

    columns = {"data": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=nbytes) as writer:
        for item in items:
            writer.write({"data": item})


def _lit(folder: Path, items: Iterator[bytes], nbytes: int) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes=nbytes)
    for index, item in enumerate(items):
        cache[index] = item
    cache.done()
    cache.merge()


_WRITERS: dict[str, tuple[Callable[[Path, Iterator[bytes], int], None], int]] = {
    "splitpipe": (_splitpipe, 0),
    "mds-64": (_mds, LARGE),
    "mds-8": (_mds, SMALL),
    "lit-64": (_lit, LARGE),
    "lit-8": (_lit, SMALL),
}


if __name__ == "__main__":
    _layout, _folder, _size = sys.argv[1:]
    _count, _nbytes = map(int, _size.split(":"))
    _write, _limit = _WRITERS[_layout]
    Path(_folder).mkdir(parents=True)
    _write(Path(_folder), records(_count, _nbytes), _limit)
