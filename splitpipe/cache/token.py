"""The proof that what was copied was there.

Responsible for: `Token`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from splitpipe.cache.marks import DURABLE, FIXED, fence
from splitpipe.cache.ranges import Blocks

__all__ = ["OneToken", "Part", "Token"]

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


class OneToken(Token):
    """A `Token` for one block, which is made faster.

    Args:
        evictions: see `Token`.
        seen: see `Token`.
        marks: of the object.
        words: the same marks, as a view whose items are quick to get.
        block: that was wanted.
        mark: that it had.
    """

    __slots__ = ("_block", "_mark", "_marks", "_words")

    def __init__(
        self,
        evictions: memoryview,
        seen: int,
        *,
        marks: npt.NDArray[np.uint64],
        words: memoryview,
        block: int,
        mark: int,
    ) -> None:
        self._evictions = evictions
        self._seen = seen
        self._marks = marks
        self._words = words
        self._block = block
        self._mark = mark

    @property
    def parts(self) -> tuple[Part, ...]:  # type: ignore[override]  # made when asked for
        """See `Token`."""
        mark = np.array([self._mark], np.uint64)
        return ((self._marks, np.array([self._block]), mark),)

    def still_valid(self) -> bool:
        """See `Token.still_valid`."""
        fence()
        if self._evictions[0] == self._seen:
            return True
        return (self._words[self._block] | DURABLE) == (self._mark | DURABLE)
