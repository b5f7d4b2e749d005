"""How many samples of an epoch are a stream's.

Responsible for: `apportioned`, which shares a number out by weights, and `rounded`.

Rules:
- exact: floats are taken as the fractions that they are; nothing depends on how sums round.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

__all__ = ["apportioned", "rounded"]


def apportioned(total: int, weights: Sequence[int | float]) -> tuple[int, ...]:
    """Share `total` out by weights: each gets its quota rounded down or up, together exactly all.

    The method of largest remainders (Hamilton's): what rounding down leaves goes to the largest
    fractions, of equal ones to the first.

    Args:
        total: what is shared out, at least 0.
        weights: finite, not negative, not all 0.

    Example:
        >>> apportioned(10, [1, 1, 1]), apportioned(7, [0.5, 0.25, 0.25])
        ((4, 3, 3), (3, 2, 2))
    """
    exact = [Fraction(weight) for weight in weights]
    together = sum(exact)
    quotas = [total * weight / together for weight in exact]
    made = [int(quota) for quota in quotas]
    remainders = [quota - share for quota, share in zip(quotas, made, strict=True)]
    order = sorted(range(len(made)), key=lambda one: (-remainders[one], one))
    for one in order[: total - sum(made)]:
        made[one] += 1
    return tuple(made)


def rounded(factor: float, count: int) -> int:
    """Return `factor` times `count`, rounded to the nearest whole number, halves up.

    Example:
        >>> rounded(0.7, 10), rounded(2.5, 3)
        (7, 8)
    """
    return int(Fraction(factor) * count + Fraction(1, 2))
