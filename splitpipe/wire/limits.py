"""What a receiver accepts.

Responsible for: `Limits`, and the ones that hold where nobody says others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["DEFAULT", "Buffer", "Limits"]

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Limits:
    """What a receiver accepts, of one value or one message.

    Args:
        frames: how many frames.
        nbytes: bytes of all frames together.
        depth: how many containers may lie inside each other.
        elements: how many values, those inside of others counted too. An array is one.

    Example:
        >>> Limits(nbytes=1 << 20).depth
        64
    """

    frames: int = 1 << 16
    nbytes: int = 1 << 30
    depth: int = 64
    elements: int = 1 << 24


DEFAULT = Limits()
