"""Questions to keys and metadata of 1,000,000 records, page cache warm.

Rules: half of the metadata is declared, and so typed and indexed, the rest is reached as JSON;
SQLite is asked the same through ``sqlite3`` in a file that our writer wrote; before the first
figure the rows that come are compared with those that must; every round asks with other parameters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.base import Case, Context, Indices, Metric, Metrics, WrongResult

__all__ = ["CASES", "LENGTHS", "Answers", "CatalogSystem", "write"]

LENGTHS = 10_000
QUESTIONS = 20

INDEXED = "length BETWEEN ? AND ?"
JSON = "json_extract(meta, '$.score') < ?"


class Answers(Protocol):
    """An open catalog."""

    def where(self, clause: str, parameters: Sequence[Any]) -> Any:
        """The records that fit, with a length."""
        ...

    def rows(self, found: Any) -> Indices:
        """Their numbers, in any order."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class CatalogSystem(Protocol):
    """Opens the catalog of a dataset that `write` wrote."""

    def open(self, directory: Path) -> Answers:
        """Open it."""
        ...


def _metadata(count: int, seed: int) -> tuple[Indices, Any]:
    rng = np.random.default_rng([seed, 11])
    return rng.integers(0, LENGTHS, count), rng.integers(0, 1_000_000, count) / 1_000_000


def write(directory: Path, lengths: Indices, scores: Any) -> None:
    """Records of one number with a key, a declared length and a score that is not declared."""
    import splitpipe as sp

    with sp.DatasetWriter(directory, {"n": "int64"}, metadata={"length": "int64"}) as writer:
        for start in range(0, len(lengths), 50_000):
            pairs = zip(lengths[start:][:50_000].tolist(), scores[start:][:50_000].tolist())
            metas = [{"length": length, "score": score} for length, score in pairs]
            numbers = range(start, start + len(metas))
            writer.write_many(
                ({"n": number} for number in numbers),
                keys=[f"record-{number:07d}" for number in numbers],
                metas=metas,
            )


def _parameters(rng: np.random.Generator, share: float) -> list[Any]:
    width = max(1, int(LENGTHS * share))
    low = int(rng.integers(0, LENGTHS - width + 1))
    return [low, low + width - 1]


def _check(answers: Answers, lengths: Indices, scores: Any) -> None:
    for clause, parameters, fits in (
        (INDEXED, [500, 509], (lengths >= 500) & (lengths <= 509)),
        (JSON, [0.001], scores < 0.001),
    ):
        rows = answers.rows(answers.where(clause, parameters))
        if not np.array_equal(np.sort(rows), np.flatnonzero(fits)):
            raise WrongResult(f"{len(rows)} records came for {clause}, {fits.sum()} fit")


def ask(system: CatalogSystem, context: Context) -> Iterator[Metrics]:
    """One in a thousand and one in ten by an index, one in a thousand by JSON."""
    count = context.pick(full=1_000_000, quick=100_000, tiny=2_000)
    lengths, scores = _metadata(count, context.seed)
    per_length = np.bincount(lengths, minlength=LENGTHS)
    directory = context.directory / "data"
    begin = time.perf_counter()
    write(directory, lengths, scores)
    write_s = time.perf_counter() - begin
    answers = system.open(directory)
    rng = np.random.default_rng([context.seed, 12])

    def indexed(answers: Answers, share: float, times: int) -> float:
        """Milliseconds of the question that takes the middle place."""
        spent = []
        for _ in range(times):
            low, high = parameters = _parameters(rng, share)
            begin = time.perf_counter()
            found = answers.where(INDEXED, parameters)
            spent.append(time.perf_counter() - begin)
            if len(found) != per_length[low : high + 1].sum():
                raise WrongResult(f"{len(found)} records came for lengths {low} to {high}")
        return float(np.median(spent)) * 1e3

    def json(answers: Answers, times: int) -> float:
        """The same, of a question that reads every record's metadata."""
        spent = []
        for _ in range(times):
            limit = float(rng.integers(500, 1500)) / 1e6
            begin = time.perf_counter()
            found = answers.where(JSON, [limit])
            spent.append(time.perf_counter() - begin)
            if len(found) != (scores < limit).sum():
                raise WrongResult(f"{len(found)} records came for scores below {limit}")
        return float(np.median(spent)) * 1e3

    def first() -> float:
        begin = time.perf_counter()
        fresh = system.open(directory)
        fresh.where(INDEXED, [0, 9])
        seconds = time.perf_counter() - begin
        fresh.close()
        return seconds * 1e3

    try:
        _check(answers, lengths, scores)
        yield {"records": count, "write_s": write_s}
        while True:
            yield {
                "indexed_ms": indexed(answers, 0.001, QUESTIONS),
                "tenth_ms": indexed(answers, 0.1, 3),
                "json_ms": json(answers, 3),
                "open_and_ask_ms": first(),
            }
    finally:
        answers.close()


CASES = (
    Case(
        "where",
        "Questions to 1,000,000 records: 1/1000 and 1/10 by an index, 1/1000 by json_extract",
        "catalog",
        ask,
        (
            Metric("indexed_ms", "ms", False),
            Metric("tenth_ms", "ms", False),
            Metric("json_ms", "ms", False),
            Metric("open_and_ask_ms", "ms", False),
        ),
        "sqlite",
        ("splitpipe", "sqlite"),
    ),
)
