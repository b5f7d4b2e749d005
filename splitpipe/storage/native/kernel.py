"""Which kernel reads: the one in C where it was built, else its twin in Python.

Responsible for: the choice, made once, when this is imported, and for nothing else. The
environment variable ``SPLITPIPE_KERNEL`` overrules it: ``python`` takes the twin, ``native``
insists on the one in C.
"""

from __future__ import annotations

import os

from splitpipe.storage.native.twin import COLD, NAME, Column, crc32c

__all__ = ["COLD", "NAME", "Column", "crc32c"]

_WISH = os.environ.get("SPLITPIPE_KERNEL", "")
if _WISH not in ("", "native", "python"):
    raise ImportError(f"SPLITPIPE_KERNEL must be 'native' or 'python', not {_WISH!r}")
