"""Randomness that belongs to a place in the stream, not to a worker.

Responsible for: `generator`, a numpy Generator for (seed, stage, epoch, place), `Generators`, which
gives those of many places quickly, and for finding out whether a function asks for one.

Rules:
- the same (seed, stage, epoch, number, part) gives the same numbers in every process, on every
  machine and for any number of workers; two different ones never share a number's block;
- process-wide generators are never touched.

Method: Philox 4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), a
block cipher over a counter: the key is a hash of seed and stage, the upper words of the counter are
the place. No state has to be carried from one item to the next.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from sys import getrefcount
from typing import Any

import numpy as np

__all__ = ["WHOLE_EPOCH", "Generators", "generator", "wants_rng"]

WHOLE_EPOCH = 2**64 - 1
"""The number of a generator that serves a whole epoch instead of one item."""


def generator(
    seed: int, stage: str, epoch: int, number: int = WHOLE_EPOCH, part: int = 0
) -> np.random.Generator:
    """Return the generator of one place.

    Args:
        seed: of the pipeline.
        stage: its name.
        epoch: which pass over the source.
        number: of the item.
        part: which of the items with that number.

    Example:
        >>> first, second = (generator(1, "crop", 0, 7).integers(100, size=3) for _ in range(2))
        >>> bool((first == second).all())
        True
    """
    counter = np.array([0, part, number, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(seed, stage), counter=counter))


class Generators:
    """The generators of all items of a stage in one epoch, each as `generator` gives it.

    Making one costs ten times what moving one to another place does. So the same object is handed
    out again where nobody kept it, or its bit generator: that is counted, not trusted.

    Args:
        seed: of the pipeline.
        stage: its name.
        epoch: which pass over the source.

    Example:
        >>> generators = Generators(1, "crop", 0)
        >>> kept = generators.at(7)
        >>> _ = generators.at(8).random()
        >>> bool(kept.random() == generator(1, "crop", 0, 7).random())
        True
    """

    __slots__ = ("_bits", "_epoch", "_key", "_made", "_own", "_state")

    def __init__(self, seed: int, stage: str, epoch: int) -> None:
        self._key = _key(seed, stage)
        self._epoch = epoch
        self._state: Any = {
            "bit_generator": "Philox",
            "state": {"key": self._key.tolist(), "counter": []},
            "buffer": [0, 0, 0, 0],
            "buffer_pos": 4,  # nothing of it is left: the first number begins with a block
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._make()

    def at(self, number: int, part: int = 0) -> np.random.Generator:
        """Return the generator of an item, at its beginning."""
        if (getrefcount(self._made), getrefcount(self._bits)) != self._own:
            self._make()  # somebody still draws from the last one
        self._state["state"]["counter"] = [0, part, number, self._epoch]
        self._bits.state = self._state
        return self._made

    def _make(self) -> None:
        self._bits = np.random.Philox(key=self._key)
        self._made = np.random.Generator(self._bits)
        self._own = getrefcount(self._made), getrefcount(self._bits)


@lru_cache(256)
def _key(seed: int, stage: str) -> Any:
    import hashlib  # 3 ms of a worker's start, and few stages draw

    digest = hashlib.blake2b(f"{seed}\0{stage}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, "<u8")


def wants_rng(function: Callable[..., Any]) -> bool:
    """Whether `function` has a parameter called ``rng`` that can be given by name."""
    try:
        parameter = inspect.signature(function).parameters.get("rng")
    except (TypeError, ValueError):
        return False  # a builtin without a signature
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter is not None and parameter.kind in kinds
