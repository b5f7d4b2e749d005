"""Sequences of unequal length for packs and buckets, and how the consumer proves each of them.

Rules: a sequence holds its own number plus one in every place, so that padding (0), a cut, and a
sequence in another's place are seen; lengths are seeded, or those of Python's own library, in an
order that is mixed by the seed, as a training run would have it.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.base import WrongResult

__all__ = ["CAPACITY", "Sequences"]

CAPACITY = 2048
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sequences:
    """The sequences of a kind: ``chats``, ``lines`` or ``functions``; a call makes one.

    ``chats`` has lengths as tokenized instructions and answers have them: log-normal, half of them
    below 200, none above `CAPACITY`. The others are in bytes.
    """

    kind: str
    most: int
    seed: int

    @property
    def lengths(self) -> Lengths:
        """Of all sequences, in order."""
        return _lengths(self.kind, self.most, self.seed)

    def __call__(self, number: int) -> npt.NDArray[np.int32]:
        return np.full(self.lengths[number], number + 1, np.int32)

    def check(self, rows: Iterator[npt.NDArray[np.int32]]) -> None:
        """Every sequence is among `rows` exactly once, whole; rows have no padding any more."""
        seen = np.zeros(len(self.lengths), bool)
        for row in rows:
            number = int(row[0]) - 1
            if number < 0 or seen[number] or not (row == row[0]).all():
                raise WrongResult(f"a sequence is another's, or came twice: {row[:8].tolist()}")
            if len(row) != self.lengths[number]:
                raise WrongResult(f"sequence {number} came with a length of {len(row)}")
            seen[number] = True
        if not seen.all():
            raise WrongResult(f"{int((~seen).sum())} of {len(seen)} sequences did not come")


@lru_cache(maxsize=4)
def _lengths(kind: str, most: int, seed: int) -> Lengths:
    rng = np.random.default_rng([seed, 21])
    if kind == "chats":
        return np.clip(rng.lognormal(np.log(200), 1.0, most).astype(np.int64), 1, CAPACITY)
    found = _lines(most) if kind == "lines" else _functions(most)
    return rng.permutation(np.array(found, np.int64))


def _sources() -> Iterator[str]:
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield file.read_text("utf-8", "replace")


def _lines(most: int) -> list[int]:
    """Of lines that are not empty."""
    found: list[int] = []
    for text in _sources():
        found += [len(line) for line in map(str.strip, text.splitlines()) if line]
        if len(found) >= most:
            break
    return found[:most]


def _functions(most: int) -> list[int]:
    """Of functions and methods, from ``def`` to their ends."""
    found: list[int] = []
    for text in _sources():
        lines = text.splitlines(keepends=True)
        ends = np.cumsum([0, *map(len, lines)]).tolist()
        found += [
            ends[int(node.end_lineno or node.lineno)] - ends[node.lineno - 1]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        if len(found) >= most:
            break
    return found[:most]
