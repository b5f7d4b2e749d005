"""Batches by themselves: in several threads, and of rows straight into one array.

Rules: as for the storage cases, everything is compared once with what was written, and what the
timed loops get is counted, or looked at in the first and the last row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.base import (
    Case,
    Context,
    Metric,
    Metrics,
    StorageReader,
    StorageSystem,
    Unsupported,
    WrongResult,
)
from benchmarks.cases.storage import BATCH, written
from benchmarks.data import text_records, token_records

__all__ = ["CASES"]

ROWS = 64
TOKENS = 2048


def in_threads(system: StorageSystem, context: Context) -> Iterator[Metrics]:
    """Batches of short records through one open dataset, a thread for each "worker"."""
    count = context.pick(full=1_000_000, quick=100_000, tiny=500)
    records = text_records(count, context.seed)
    directory = context.directory / "data"
    written(system, records, directory)
    reader = system.open(directory)
    records.check_all(reader.sequential())
    some = np.random.default_rng([context.seed, 8]).permutation(count)[:20_000].tolist()
    if [records.number(record) for record in reader.get_batch(some)] != some:
        raise WrongResult("records came in another order than they were asked for")
    yield {"records": count, "bytes": records.nbytes}
    orders = [
        np.random.default_rng([context.seed, thread]).permutation(count).tolist()
        for thread in range(context.workers)
    ]
    try:
        while True:
            seconds = _side_by_side(reader, orders, records.nbytes)
            yield {"batch_rec_s": count * context.workers / seconds}
    finally:
        reader.close()


def _side_by_side(reader: StorageReader, orders: list[list[int]], nbytes: int) -> float:
    """Seconds until every thread has read all records in its own order."""
    totals = [0] * len(orders)

    def read(number: int) -> None:
        order, total = orders[number], 0
        for start in range(0, len(order), BATCH):
            total += sum(map(len, reader.get_batch(order[start : start + BATCH])))
        totals[number] = total

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(orders))]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    if totals != [nbytes] * len(orders):
        raise WrongResult(f"{totals} bytes came, not {nbytes} in each thread")
    return seconds


def row_batches(system: Any, context: Context) -> Iterator[Metrics]:
    """Batches of 64 rows of 2048 uint16 into one array, each row once, in random order."""
    if not hasattr(system, "open_rows"):
        raise Unsupported("it has no rows of one length")
    count = context.pick(full=200_000, quick=20_000, tiny=640)
    records = token_records(count, context.seed, tokens=TOKENS)
    table = np.frombuffer(b"".join(records), np.uint16).reshape(count, TOKENS)
    directory = context.directory / "data"
    directory.mkdir(parents=True)
    system.write_rows(directory, table)
    reader = system.open_rows(directory)
    out = np.empty((ROWS, TOKENS), np.uint16)
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))[::-1].copy()
        if not np.array_equal(reader.rows(rows, out[: len(rows)]), table[rows]):
            raise WrongResult(f"the batch of rows {start} and following differs")
    stamps = table[:, :4].copy().view(np.uint64).ravel()
    del table
    yield {"records": count, "bytes": count * TOKENS * 2}
    rng = np.random.default_rng([context.seed, 9])
    try:
        while True:
            order = rng.permutation(count)[: count // ROWS * ROWS]
            yield {"rows_s": len(order) / _gather(reader, order, out, stamps)}
    finally:
        reader.close()


def _gather(reader: Any, order: Any, out: Any, stamps: Any) -> float:
    begin = time.perf_counter()
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        batch = reader.rows(rows, out)
        if batch[-1, :4].view(np.uint64)[0] != stamps[rows[-1]]:
            raise WrongResult(f"row {rows[-1]} is another one")
    return time.perf_counter() - begin


CASES = (
    Case(
        "w1_threads",
        "W1: batches of 256 in one thread and in two (@2), through one open dataset",
        "storage",
        in_threads,
        (Metric("batch_rec_s", "rec/s"),),
        "splitpipe",
        ("splitpipe", "splitpipe@2"),
        ("lmdb", "lmdb@2", "arrow", "arrow@2"),
    ),
    Case(
        "w3_rows",
        "W3: batches of 64 rows of 2048 uint16 into one array",
        "storage",
        row_batches,
        (Metric("rows_s", "rows/s"),),
        "memmap",
        ("splitpipe", "memmap"),
    ),
)
