"""What all decoders have in common.

Responsible for: turning what a library raises into an error of ours, and sizes as a user says them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from splitpipe.errors import CorruptRecord, FormatError

__all__ = ["MOST_NBYTES", "decoding", "size_of"]

MOST_NBYTES: Final = 1 << 30
"""Bytes that one value may have when it is decoded, unless more are asked for."""


@contextmanager
def decoding(what: str, data: bytes) -> Iterator[None]:
    """Turn what a library raises into an error that says what was decoded."""
    try:
        yield
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # these libraries raise what they like
        text = (
            f"{len(data)} bytes cannot be decoded as {what}: {str(error) or type(error).__name__}"
        )
        raise CorruptRecord(text) from error


def size_of(size: Any) -> tuple[int, int] | None:
    """A height and a width, as a user says them."""
    if size is None:
        return None
    both = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(both) != 2 or any(type(side) is not int or side < 1 for side in both):
        raise FormatError(f"size= is a height and a width, not {size!r}")
    return both[0], both[1]
