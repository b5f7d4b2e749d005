"""The smallest form: one generator in one other process, and an iterator in front of it.

Shows the three things one wants from it: the next item is made while this one is used; an exception
in the generator arrives here, at its place among the items; each iteration is a run of its own.

Run it: ``python examples/mpqitr.py``
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import splitpipe as sp

WORK_S = 0.02
ITEMS = 30


def slow_squares(n: int) -> Iterator[int]:
    """A generator whose items take their time."""
    for i in range(n):
        time.sleep(WORK_S)
        yield i * i


def countdown(n: int) -> Iterator[float]:
    """A generator that fails at its last item."""
    while True:
        yield 1 / n
        n -= 1


def use(items: Iterator[int]) -> tuple[int, float]:
    """Spend as long on each item as it took to make; return the sum and the seconds."""
    started = time.perf_counter()
    total = 0
    for item in items:
        time.sleep(WORK_S)
        total += item
    return total, time.perf_counter() - started


def main() -> None:
    """Compare with and without; then an exception; then two runs at once."""
    total, here = use(slow_squares(ITEMS))
    print(f"in this process:     sum {total} in {here:.2f} s")
    elsewhere = sp.MpQItr(slow_squares, ITEMS)
    total_too, there = use(iter(elsewhere))
    print(f"in another process:  sum {total_too} in {there:.2f} s (making and using overlap)")
    assert total == total_too

    try:
        for item in sp.MpQItr(countdown, 3):
            print(f"received {item:.2f}")
    except ZeroDivisionError as error:
        print(f"then {type(error).__name__}: {error}")

    squares = sp.MpQItr(slow_squares, 3)
    pairs = [(a, b) for a in squares for b in squares]
    print(f"nested iteration gives full, independent runs: {pairs}")
    assert pairs == [(a, b) for a in (0, 1, 4) for b in (0, 1, 4)]


# The other process imports this file again: without this line, it would start all over.
if __name__ == "__main__":
    main()
