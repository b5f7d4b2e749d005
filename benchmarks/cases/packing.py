"""Sequences of unequal length: put side by side in packs, or batched with others like them.

Rules: before the first figure every sequence is looked for in what came: each once, whole. Padding
is told as tokens of padding for each token that is none, so that twice as much is twice the figure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from benchmarks.base import Case, Context, Metric, Metrics, Run, WrongResult
from benchmarks.cases.throughput import Closing
from benchmarks.sequences import CAPACITY, Lengths, Sequences

__all__ = ["CASES", "PackingSystem"]

WINDOW = 1024
SIZE = 32


class PackingSystem(Protocol):
    """Plans packs, and makes packs and batches."""

    def plan(self, lengths: Lengths, capacity: int) -> Lengths:
        """The number of the pack for each sequence; all are planned together."""
        ...

    def packs(self, sequences: Sequences, count: int, *, window: int, workers: int) -> Run:
        """Dicts of ``tokens``, ``segment_ids`` and ``lengths``."""
        ...

    def batches(self, sequences: Sequences, count: int, *, size: int, workers: int) -> Run:
        """Arrays of `size` padded rows."""
        ...


def _planned(system: PackingSystem, lengths: Lengths, window: int) -> tuple[float, int]:
    """Seconds, and how many packs there are."""
    begin = time.perf_counter()
    plans = [
        system.plan(lengths[start : start + window], CAPACITY)
        for start in range(0, len(lengths), window)
    ]
    seconds = time.perf_counter() - begin
    packs = 0
    for number, plan in enumerate(plans):
        some = lengths[number * window : (number + 1) * window]
        loads = np.bincount(plan, some)
        if len(plan) != len(some) or loads.max() > CAPACITY:
            raise WrongResult(f"window {number} is not planned as it must be")
        packs += len(loads)
    return seconds, packs


def _rows_of_packs(packs: Run) -> Iterator[Any]:
    for pack in packs:
        tokens, segments = pack["tokens"], pack["segment_ids"]
        if len(tokens) != CAPACITY or (tokens[segments == 0] != 0).any():
            raise WrongResult("a pack has something where its padding is")
        at = 0
        for number, length in enumerate(np.asarray(pack["lengths"]).tolist(), 1):
            if (segments[at : at + length] != number).any():
                raise WrongResult(f"segment {number} of a pack is not where it lies")
            yield tokens[at : at + length]
            at += length


def pack(system: PackingSystem, context: Context) -> Iterator[Metrics]:
    """Plans for many sequences, and packs of some."""
    few = Sequences("chats", context.pick(full=50_000, quick=20_000, tiny=1_500), context.seed)
    count = len(few.lengths)
    with Closing(system.packs(few, count, window=WINDOW, workers=context.workers)) as run:
        few.check(_rows_of_packs(run))
    many = Sequences("chats", context.pick(full=1 << 19, quick=1 << 17, tiny=3_000), context.seed)
    lengths = many.lengths
    yield {"sequences": len(lengths), "mean_length": float(lengths.mean())}
    total = int(lengths.sum())
    while True:
        seconds, packs = _planned(system, lengths, WINDOW)
        whole_s, fewest = _planned(system, lengths, len(lengths))
        begin = tokens = 0.0
        # The clock runs from the first pack on: starting is no part of a rate.
        with Closing(system.packs(few, count, window=WINDOW, workers=context.workers)) as run:
            for number, one in enumerate(run):
                if number == 0:
                    begin = time.perf_counter()
                else:
                    tokens += int(np.asarray(one["lengths"]).sum())
            wall = time.perf_counter() - begin
        yield {
            "plan_s": len(lengths) / seconds,
            "whole_s": len(lengths) / whole_s,
            "padding": packs * CAPACITY / total - 1,
            "whole_padding": fewest * CAPACITY / total - 1,
            "sequences_s": tokens / float(few.lengths.mean()) / wall,
        }


def _rows_of_batches(batches: Run) -> Iterator[Any]:
    for batch in batches:
        for row in np.asarray(batch):
            length = int(np.count_nonzero(row))
            yield row[:length]


def bucket(system: PackingSystem, context: Context) -> Iterator[Metrics]:
    """Padded batches of lines and of functions."""
    kinds = {
        "lines": Sequences("lines", context.pick(full=60_000, quick=20_000, tiny=1_500), 1),
        "functions": Sequences("functions", context.pick(full=8_000, quick=3_000, tiny=300), 1),
    }
    for sequences in kinds.values():
        count = len(sequences.lengths)
        with Closing(system.batches(sequences, count, size=SIZE, workers=context.workers)) as run:
            sequences.check(_rows_of_batches(run))
    yield {name: len(sequences.lengths) for name, sequences in kinds.items()}
    while True:
        figures = {}
        for name, sequences in kinds.items():
            lengths = sequences.lengths
            cells = rows = 0
            wall = 0.0
            with Closing(
                system.batches(sequences, len(lengths), size=SIZE, workers=context.workers)
            ) as run:
                begin = 0.0
                for batch in run:
                    begin = begin or time.perf_counter()
                    cells += batch.size
                    rows += len(batch)
                wall = time.perf_counter() - begin
            if rows != len(lengths):
                raise WrongResult(f"{rows} {name} came, not {len(lengths)}")
            figures[f"{name}_padding"] = cells / int(lengths.sum()) - 1
            figures[f"{name}_s"] = len(lengths) / wall
        yield figures


CASES = (
    Case(
        "pack",
        "Packs of 2048 tokens from sequences of 300 on average, planned 1024 at a time",
        "packing",
        pack,
        (
            Metric("plan_s", "sequences/s planned"),
            Metric("whole_s", "sequences/s, one window"),
            Metric("padding", "padding/token", False),
            Metric("whole_padding", "padding/token, one window", False),
            Metric("sequences_s", "sequences/s packed"),
        ),
        "plain",
        ("splitpipe", "inline", "plain"),
        rounds=5,
    ),
    Case(
        "bucket",
        "Padded batches of 32 lines, and of 32 functions, of Python's library; by length or not",
        "packing",
        bucket,
        (
            Metric("lines_padding", "padding/byte", False),
            Metric("lines_s", "lines/s"),
            Metric("functions_padding", "padding/byte", False),
            Metric("functions_s", "functions/s"),
        ),
        "plain",
        ("splitpipe", "inline", "plain"),
        rounds=5,
    ),
)
