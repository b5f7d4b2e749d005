"""Numbers as places in a drawing.

Responsible for: histograms and stacked bars as rectangles for SVG, with the words beside them.

Rules: pure functions; a value that is no finite number is drawn as nothing, never as an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Bar", "Histogram", "Part", "histogram", "shares"]

_GAP = 0.08


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle of a histogram, in a drawing that is 100 high and one wide for every bucket."""

    x: str
    y: str
    width: str
    height: str
    title: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """What a page shows of one."""

    bars: tuple[Bar, ...]
    low: str
    high: str
    about: str
    label: str


@dataclass(frozen=True, slots=True)
class Part:
    """One rectangle of a stacked bar, in a drawing that is 100 wide."""

    kind: str
    x: str
    width: str


def number(value: float) -> str:
    """A number of an axis.

    Example:
        >>> number(3), number(0.123456), number(1234567.0), number(1e12)
        ('3', '0.1235', '1,234,567', '1e+12')
    """
    if abs(value) < 1e9 and float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}"


def histogram(counts: Sequence[int], edges: Sequence[float], *, about: str = "") -> Histogram:
    """Counts of neighbouring buckets as bars.

    Args:
        counts: Of each bucket.
        edges: Where buckets begin and end: one more than there are counts.
        about: What is counted, where that is not the value itself.

    Example:
        >>> drawn = histogram([1, 4, 0], [0.0, 1.0, 2.0, 3.0])
        >>> [bar.height for bar in drawn.bars], drawn.low, drawn.high
        (['25', '100', '0'], '0', '3')
    """
    most = max((count for count in counts), default=0) or 1
    bars = []
    for at, size in enumerate(counts):
        # What is there at all can be seen, however tall its neighbours are.
        height = max(100 * size / most, 1.5) if size else 0
        bars.append(
            Bar(
                x=_short(at + _GAP / 2),
                y=_short(100 - height),
                width=_short(1 - _GAP),
                height=_short(height),
                title=f"{number(edges[at])} to {number(edges[at + 1])}: {size:,}",
            )
        )
    label = (
        f"Histogram from {number(edges[0])} to {number(edges[-1])}, "
        f"{len(counts)} buckets, the largest with {most:,}"
    )
    return Histogram(tuple(bars), number(edges[0]), number(edges[-1]), about, label)


def shares(values: Mapping[str, float | None]) -> tuple[Part, ...]:
    """Shares of a whole as a stacked bar.

    Args:
        values: Shares between 0 and 1 by the kind they are drawn as. What is beyond 1 is cut.

    Example:
        >>> [(part.kind, part.x, part.width) for part in shares({"busy": 0.5, "wait-in": 0.25})]
        [('busy', '0', '50'), ('wait-in', '50', '25')]
    """
    parts, at = [], 0.0
    for kind, value in values.items():
        width = min(_finite(value), 1 - at)
        if width > 0:
            parts.append(Part(kind, _short(100 * at), _short(100 * width)))
            at += width
    return tuple(parts)


def _finite(value: Any) -> float:
    usable = isinstance(value, int | float) and math.isfinite(value)
    return max(0.0, float(value)) if usable else 0.0


def _short(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
