"""What the tests of containers share: opening by format, damaging, and surviving it.

A damaged source may still be readable (most of these formats have no checksums); what it must never
do is raise anything but a SplitpipeError, or allocate what its numbers promise.
"""

from __future__ import annotations

import os
import pickle
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.errors import SplitpipeError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.storage.base import Records, records_of
from tests.formats.reading import everything, same

# A longer run: SPLITPIPE_FUZZ=100 pytest tests/formats
FACTOR = int(os.environ.get("SPLITPIPE_FUZZ", "1"))
LARGE_NBYTES = 48 << 20


def open_as(form: Format, path: Any, index_dir: Path | None = None, **options: Any) -> Records:
    """A source opened with one format."""
    folder = None if index_dir is None else str(index_dir)
    return form.open(Source.at(path), Indexing(folder, workers=1), **options)


def all_of(form: Format, path: Any, **options: Any) -> list[Any]:
    """All records, read in several ways, and by a copy that was pickled."""
    assert form.recognises(Source.at(path))
    records = open_as(form, path, **options)
    found = everything(records)
    again = pickle.loads(pickle.dumps(records))
    assert same(everything(again), found)
    for each in (again, records, records):
        each.close()
    return found


def survives(read: Callable[[], Any]) -> Any:
    """What `read` gives, or ``None`` if it ends in a SplitpipeError; nothing else is allowed."""
    tracemalloc.start()
    try:
        return read()
    except SplitpipeError:
        return None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < LARGE_NBYTES


def read_plainly(form: Format, path: Any, **options: Any) -> list[Any]:
    """All records, in one batch."""
    records = open_as(form, path, **options)
    try:
        rows = np.arange(min(len(records), 1000), dtype=np.int64)
        return records_of(records.schema, records.read(rows, tuple(records.schema)))
    finally:
        records.close()


def truncations(file: Path, step: int = 1) -> Iterator[int]:
    """Cut a file to every size below its own, and put it back at the end.

    With a larger ``step``, to every so-manieth size, and to each of the last sixteen.
    """
    whole = file.read_bytes()
    last = max(0, len(whole) - 16)
    try:
        for size in (*range(0, last, step), *range(last, len(whole))):
            file.write_bytes(whole[:size])
            yield size
    finally:
        file.write_bytes(whole)


def mutations(file: Path, count: int, seed: int, *, stop: int | None = None) -> Iterator[int]:
    """Change a file in ``count`` ways, and put it back at the end.

    Bits are flipped, bytes, words and long numbers put in, stretches cut out or doubled.
    """
    whole = file.read_bytes()
    chance = random.Random(seed)
    try:
        for number in range(count * FACTOR):
            data = bytearray(whole)
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                _mutate(data, chance, len(data) if stop is None else min(stop, len(data)))
            file.write_bytes(data)
            yield number
    finally:
        file.write_bytes(whole)


def _mutate(data: bytearray, chance: random.Random, stop: int) -> None:
    at = chance.randrange(max(1, stop))
    what = chance.randrange(5)
    if what == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif what == 1:
        data[at : at + 1] = bytes([chance.randrange(256)])
    elif what == 2:
        size = chance.choice((2, 4, 8))
        value = chance.choice((0, 1, 1 << (8 * size - 1), (1 << 8 * size) - 1, 1 << (4 * size)))
        data[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
    elif what == 3:
        del data[at : at + chance.randrange(1, 64)]
    else:
        data[at:at] = data[at : at + chance.randrange(1, 64)]
