"""What a runner found: lines for people, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Report", "spread"]


@dataclass(slots=True)
class Report:
    """What was seen.

    Attributes:
        lines: in words, in order.
        faults: what must not be; none of them: passed.
    """

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong."""
        return not self.faults

    def require(self, holds: bool, fault: str) -> None:
        """Note `fault` unless it `holds`."""
        if not holds:
            self.faults.append(fault)


def spread(seconds: Sequence[float]) -> str:
    """Durations in words.

    >>> spread([0.002, 0.001, 0.003])
    'median 2.0 ms, p99 3.0 ms, most 3.0 ms (n=3)'
    >>> spread([])
    'none seen'
    """
    if not seconds:
        return "none seen"
    ordered = sorted(seconds)
    middle = ordered[len(ordered) // 2]
    late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return (
        f"median {1e3 * middle:.1f} ms, p99 {1e3 * late:.1f} ms, most {1e3 * ordered[-1]:.1f} ms "
        f"(n={len(ordered)})"
    )
