"""Which kernel reads: the one in C where it was built, else its twin in Python.

Responsible for: the choice, made once, when this is imported, and for nothing else. The
environment variable ``SPLITPIPE_KERNEL`` overrules it: ``python`` takes the twin, ``native``
insists on the one in C. What `Column` and `crc32c` mean is said in ``twin``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__all__ = ["BY_RUNS", "COLD", "NAME", "Column", "crc32c", "permuted"]

_WISH = os.environ.get("SPLITPIPE_KERNEL", "")
if _WISH not in ("", "native", "python"):
    raise ImportError(f"SPLITPIPE_KERNEL must be 'native' or 'python', not {_WISH!r}")

if TYPE_CHECKING or _WISH == "python":
    from splitpipe.storage.native.twin import BY_RUNS, COLD, NAME, Column, crc32c, permuted
else:
    try:
        from splitpipe.storage.native._kernel import BY_RUNS, COLD, NAME, Column, crc32c, permuted
    except ImportError:
        if _WISH == "native":
            raise
        from splitpipe.storage.native.twin import BY_RUNS, COLD, NAME, Column, crc32c, permuted
