"""What stages tell of themselves so that an epoch can be resumed: counts, numbers, generators.

Responsible for: `Ticks`, which counts items at next to no cost; `Draws`, blocks of random numbers
that can be gone on with; and numbers of items as short texts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, repeat
from operator import length_hint
from typing import Any, TypeVar

import numpy as np

__all__ = ["Draws", "Ticks", "numbers_of", "numbers_text"]

T = TypeVar("T")

_MANY = 1 << 62


class Ticks:
    """How many items have passed. It is counted in C: some ten nanoseconds an item.

    Args:
        first: what to begin with.

    Example:
        >>> ticks = Ticks()
        >>> items = ticks.over(iter("abc"))
        >>> next(items), next(items), ticks.count
        ('a', 'b', 2)
    """

    __slots__ = ("_first", "_left")

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self._left = repeat(True, _MANY)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield `items`, and count them; of several iterators it counts the sum."""
        return compress(items, self._left)

    @property
    def count(self) -> int:
        """How many there were."""
        return self._first + _MANY - length_hint(self._left)


class Draws:
    """Random numbers that are drawn in blocks, and used from a block's end to its beginning.

    Args:
        rng: they come from.
        draw: returns a block.

    Example:
        >>> def draws():
        ...     return Draws(np.random.Generator(np.random.Philox(3)), lambda rng: rng.random(4))
        >>> one, other = draws(), draws()
        >>> used = one.more().tolist()
        >>> other.restore(one.tell())
        >>> bool((other.left == used).all())
        True
    """

    def __init__(
        self, rng: np.random.Generator, draw: Callable[[np.random.Generator], Any]
    ) -> None:
        self._rng = rng
        self._draw = draw
        self._before = _state(rng)
        self._drawn = False  # a block, since `_before`
        self.left: Any = []
        """What was not used of the block."""

    def more(self) -> Any:
        """Return a new block; what is taken from its end counts as used."""
        self.note()
        self.left, self._drawn = self._draw(self._rng), True
        return self.left

    def note(self) -> None:
        """The generator is about to be used for something else."""
        self._before = _state(self._rng)
        self.left, self._drawn = [], False

    def tell(self) -> dict[str, Any]:
        """Return what `restore` needs, in values of JSON."""
        if self._drawn and not len(self.left):
            # The block is used up: who goes on draws the one behind it.
            self.note()
        return {"rng": _text(self._before), "left": len(self.left)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `tell` was called."""
        _restore(self._rng, state["rng"])
        self.note()
        if state["left"]:
            self.left, self._drawn = self._draw(self._rng)[: state["left"]], True


def _state(rng: np.random.Generator) -> Any:
    return rng.bit_generator.state


def _text(state: Any) -> str:
    """The state of a Philox generator without its key, which follows from its place."""
    words = [*state["state"]["counter"].tolist(), *state["buffer"].tolist()]
    words += [state["buffer_pos"], state["has_uint32"], state["uinteger"]]
    return " ".join(format(word, "x") for word in words)


def _restore(rng: np.random.Generator, text: str) -> None:
    words = [int(word, 16) for word in text.split()]
    state: Any = rng.bit_generator.state
    state["state"]["counter"] = np.array(words[:4], np.uint64)
    state["buffer"] = np.array(words[4:8], np.uint64)
    state["buffer_pos"], state["has_uint32"], state["uinteger"] = words[8:]
    rng.bit_generator.state = state


def numbers_text(numbers: Sequence[int]) -> str:
    """Return whole numbers that lie close together as a short text, in their order.

    Example:
        >>> numbers_of(numbers_text([1005, 1000, 1002]))
        [1005, 1000, 1002]
    """
    if not numbers:
        return "0 1 "
    import base64  # 2 ms of a worker's start, and few stages tell numbers

    every = np.array(numbers, np.uint64)
    first = int(every.min())
    apart = every - np.uint64(first)
    kind = np.min_scalar_type(int(apart.max()))
    # Bytes of one weight side by side: those of the upper one are nearly all alike.
    rows = apart.astype(kind.newbyteorder("<")).view(np.uint8).reshape(len(apart), kind.itemsize)
    packed = base64.b64encode(zlib.compress(rows.T.tobytes(), 1)).decode()
    return f"{first} {kind.itemsize} {packed}"


def numbers_of(text: str) -> list[int]:
    """The inverse of `numbers_text`."""
    first, width, packed = text.split(" ")
    if not packed:
        return []
    import base64

    rows = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    words = np.ascontiguousarray(rows.reshape(int(width), -1).T).view(f"<u{width}")
    made: list[int] = (words.ravel().astype(np.uint64) + np.uint64(int(first))).tolist()
    return made
