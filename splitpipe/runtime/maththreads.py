"""How many threads numeric libraries may have in a worker.

Responsible for: `limit_threads`. BLAS and OpenMP start as many threads as there are CPUs, in every
process: n workers on n CPUs get n * n of them, which wait for one another.

Rules:
- whoever has set one of the variables himself has decided; nothing is touched;
- libraries that are loaded later read the variables; those that are loaded already are told
  (threadpoolctl knows how). Where it is not installed only the former holds, and `explain` says so;
- the limit holds in worker processes alone: threads share their libraries with the training loop.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, MutableMapping
from functools import cache

__all__ = ["VARIABLES", "can_tell", "decided", "limit_threads"]

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def decided(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the variable with which the user has said how many threads there may be."""
    return next((name for name in VARIABLES if environment.get(name)), None)


@cache
def can_tell() -> bool:
    """Whether libraries that are loaded already can be told."""
    return importlib.util.find_spec("threadpoolctl") is not None


def limit_threads(count: int, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Let numeric libraries of this process have `count` threads; return whether that was ours to
    say.
    """
    if decided(environment) is not None:
        return False
    for name in VARIABLES:
        environment[name] = str(count)
    if can_tell():
        importlib.import_module("threadpoolctl").threadpool_limits(count)
    return True
