"""How even steps come out, and what planning them costs: the table of ``docs/ranks.md``.

Run as ``python -m benchmarks.balance``. It reads nothing and starts nothing: costs are drawn from
lognormal distributions, and taken from the sizes of the Python files that are installed here, a
real distribution with a long tail. Times are CPU time, the best of three.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.pipeline.balancing import STEPS, balance_plan
from splitpipe.pipeline.partition import METHODS, imbalance

RANKS = 8
SIZE = 16
WINDOWS = (1, 4, 16)
ROUNDS = 3


def distributions() -> dict[str, Any]:
    """Return costs by name: about 32,768 of each."""
    rng = np.random.default_rng(0)
    made = {
        f"lognormal, sigma {sigma:g}": rng.lognormal(6, sigma, 32768).astype(np.int64)
        for sigma in (0.5, 1.0, 1.5, 2.0)
    }
    files = sorted(Path(np.__file__).parents[1].rglob("*.py"))
    sizes = np.array([file.stat().st_size for file in files], np.int64)
    rng.shuffle(sizes)
    made["sizes of files"] = sizes
    return made


def measured(costs: Any, window: int, steps: str, method: str) -> tuple[float, float, float]:
    """Return the mean and the largest imbalance of steps, and microseconds a sample."""
    span = window * RANKS * SIZE
    found: list[Any] = []
    best = float("inf")
    for _ in range(ROUNDS):
        found.clear()
        begun = time.process_time()
        for first in range(0, len(costs) - span + 1, span):
            part = costs[first : first + span]
            plan = balance_plan(part, RANKS, size=SIZE, steps=steps, method=method)
            found.append((part, plan))
        best = min(best, time.process_time() - begun)
    uneven = np.concatenate(
        [np.ones(0)] + [imbalance(part[plan].sum(axis=2)) for part, plan in found]
    )
    return float(uneven.mean()), float(uneven.max()), 1e6 * best / (len(found) * span)


def main() -> int:
    """Print the table."""
    print("| costs | plain | window | steps | method | mean | largest | µs a sample |")
    print("|---|---|---|---|---|---|---|---|")
    for name, costs in distributions().items():
        full = len(costs) // (RANKS * SIZE) * RANKS * SIZE
        plain = imbalance(costs[:full].reshape(-1, SIZE, RANKS).sum(axis=1)).mean()
        for window in WINDOWS:
            for steps in STEPS if window > 1 else STEPS[:1]:
                for method in METHODS:
                    mean, worst, spent = measured(costs, window, steps, method)
                    print(
                        f"| {name} | {plain:.2f} | {window} | {steps} | {method} | {mean:.3f} | "
                        f"{worst:.2f} | {spent:.2f} |"
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
