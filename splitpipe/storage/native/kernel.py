"""Which kernel reads: the one in C where it was built, else its twin in Python.

Responsible for: the choice, made once, when this is imported, and for nothing else (see
`splitpipe.compiled`). What `Column` and `crc32c` mean is said in ``twin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.compiled import WISH

__all__ = ["BY_RUNS", "COLD", "NAME", "Column", "crc32c", "permuted"]

if TYPE_CHECKING or WISH == "python":
    from splitpipe.storage.native.twin import BY_RUNS, COLD, NAME, Column, crc32c, permuted
else:
    try:
        from splitpipe.storage.native._kernel import BY_RUNS, COLD, NAME, Column, crc32c, permuted
    except ImportError:
        if WISH == "native":
            raise
        from splitpipe.storage.native.twin import BY_RUNS, COLD, NAME, Column, crc32c, permuted
