"""What stands in the place of a record that cannot be read.

Responsible for: `Unreadable`. By itself: every worker looks for it, and few read records.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Unreadable"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What records that read ahead give in the place of one that cannot be read.

    Those have a method ``outcomes(order, start, stop)``: as ``Records.iterate``, but it goes on.

    Attributes:
        row: of the record.
        error: what reading it raised.
    """

    row: int
    error: Exception
