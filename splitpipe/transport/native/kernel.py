"""What writes and reads trees and takes slots back: C where it was built, else its twin in Python.

Responsible for: the choice, made once, when this is imported, and for nothing else (see
`splitpipe.compiled`). What its functions mean is said in ``twin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.compiled import WISH
from splitpipe.transport.native.twin import MARK, PLACE

__all__ = ["MARK", "NAME", "PLACE", "address", "drain", "read", "write"]

if TYPE_CHECKING or WISH == "python":
    from splitpipe.transport.native.twin import NAME, address, drain, read, write
else:
    try:
        from splitpipe.transport.native._kernel import NAME, address, drain, read, write
    except ImportError:
        if WISH == "native":
            raise
        from splitpipe.transport.native.twin import NAME, address, drain, read, write
