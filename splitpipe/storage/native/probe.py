"""Whether a byte of a file is in memory: one system call that refuses to wait.

Responsible for: `would_wait`. It costs about a microsecond, and answers no where the system or the
file system cannot tell.
"""

from __future__ import annotations

import os

__all__ = ["would_wait"]

_NOWAIT = getattr(os, "RWF_NOWAIT", None)


def would_wait(descriptor: int, offset: int) -> bool:
    """Whether reading the byte at ``offset`` would have to wait for the disk; False if unknown."""
    if _NOWAIT is None:
        return False
    try:
        os.preadv(descriptor, [bytearray(1)], offset, _NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        # The file system cannot tell.
        return False
    return False
