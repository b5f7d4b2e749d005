"""The proof that what was copied was there.

Responsible for: `Token`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from splitpipe.cache.marks import FIXED, fence
from splitpipe.cache.ranges import Blocks

__all__ = ["Part", "Token"]

Part = tuple[npt.NDArray[np.uint64], Blocks, npt.NDArray[np.uint64]]
"""The marks of an object, the blocks that were wanted, and the marks that these had."""


class Token:
    """What `CachedFile.ensure` saw: compare it after copying.

    Args:
        evictions: the live count of the cache.
        seen: what it was before the marks were looked at.
        parts: what was seen.
    """

    __slots__ = ("_evictions", "_seen", "parts")

    def __init__(self, evictions: memoryview, seen: int, parts: Sequence[Part]) -> None:
        self._evictions = evictions
        self._seen = seen
        self.parts = parts

    def still_valid(self) -> bool:
        """Whether all that was wanted has been there from `ensure` until now.

        Whatever was copied meanwhile is right then. It may become false at any time.
        """
        fence()
        if self._evictions[0] == self._seen:
            return True
        return all(
            not ((marks.take(blocks) ^ before) & FIXED).any()
            for marks, blocks, before in self.parts
        )
