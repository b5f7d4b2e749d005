"""Randomness that belongs to a place in the stream, not to a worker.

Responsible for: `generator`, a numpy Generator for (seed, stage, epoch, place), and for finding out
whether a function asks for one.

Rules:
- the same (seed, stage, epoch, number, part) gives the same numbers in every process, on every
  machine and for any number of workers; two different ones never share a number's block;
- process-wide generators are never touched.

Method: Philox 4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), a
block cipher over a counter: the key is a hash of seed and stage, the upper words of the counter are
the place. No state has to be carried from one item to the next.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["WHOLE_EPOCH", "generator", "wants_rng"]

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


@lru_cache(256)
def _key(seed: int, stage: str) -> Any:
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
