"""Whether what is compiled is used, or its twin in Python.

Responsible for: what the environment variable ``SPLITPIPE_KERNEL`` says of it, for all parts alike:
``python`` takes the twins, ``native`` insists on what is compiled; without it, what is compiled is
used where a compiler was there.
"""

from __future__ import annotations

import os

__all__ = ["WISH"]

WISH = os.environ.get("SPLITPIPE_KERNEL", "")
if WISH not in ("", "native", "python"):
    raise ImportError(f"SPLITPIPE_KERNEL must be 'native' or 'python', not {WISH!r}")
