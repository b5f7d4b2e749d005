"""Batches that are filled item by item, until they cost enough.

Responsible for: `Filling`, the items of one batch and what they cost; `Limits`, how much that may
be; and `length_of`, how the length of an item is found. `batch_by_cost` and `bucket` are made of
them.

Rules:
- a batch that is padded costs its number of items times the longest of them, one that is not the
  sum of their lengths;
- what an item costs by itself may be more than a batch may cost: that is an error, or the item is a
  batch by itself, as the user said; it is never left out in silence;
- every batch is measured: the ``tokens`` its items have, and how many it has ``padded`` to the
  longest. See `padding_waste`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.batch import Collate, new_rows
from splitpipe.pipeline.stages.checks import choice, number, settle, whole
from splitpipe.pipeline.stages.padding import Pad

__all__ = ["MEASURES", "Filling", "Length", "Limits", "check_length", "length_of", "with_lengths"]

MEASURES = ("tokens", "padded")

Length = Callable[[Any], float] | str | None
"""How long an item is: what a function says, the ``len()`` of a column, or that of the item."""


def check_length(length: Length) -> None:
    """Refuse what is no way to find a length.

    Raises:
        GraphError: it is neither a function, nor a name, nor None.
    """
    if length is not None and not isinstance(length, str) and not callable(length):
        raise GraphError(f"length must be a function, or the name of a column, not {length!r}")


def length_of(length: Length) -> Callable[[Any], float]:
    """Return a function of an item."""
    if length is None:
        return len
    if isinstance(length, str):
        column = itemgetter(length)
        return lambda item: len(column(item))
    return length


def with_lengths(items: Iterable[Any], length: Length) -> Iterator[tuple[Any, float]]:
    """Yield each item and its length.

    Raises:
        ValueError: a length is no finite number of at least 0.
    """
    of = length_of(length)
    for item in items:
        made = of(item)
        try:
            fine = 0 <= made < math.inf
        except TypeError:
            fine = False
        if not fine:
            raise ValueError(f"the length of an item must be a number of at least 0, not {made!r}")
        yield item, made
        del item


@dataclass(frozen=True)
class Limits:
    """What a batch may be at most.

    Args:
        size: items; None for any number.
        tokens: what it may cost; None for anything.
        padded: whether it costs what it takes with its padding, or the sum of its lengths.
        oversized: what becomes of an item that costs more by itself: ``"raise"`` or ``"alone"``.
    """

    size: int | None = None
    tokens: float | None = None
    padded: bool = True
    oversized: str = "raise"

    def __post_init__(self) -> None:
        choice("oversized", self.oversized, ("raise", "alone"))
        if self.size is not None:
            settle(self, size=whole("size", self.size, least=1))
        if self.tokens is not None:
            settle(self, tokens=number("max_tokens", self.tokens, least=0.0, above=True))
        if self.size is None and self.tokens is None:
            raise GraphError("a batch needs an end: say its size, max_tokens, or both")


class Filling:
    """A batch in the making.

    Args:
        limits: of the batch.
        measured: where it is counted.
        collate: as for `Batch`.
        pad: how rows of different lengths become one array.
    """

    __slots__ = ("_collate", "_items", "_limits", "_longest", "_measured", "_pad", "_total")

    def __init__(
        self,
        limits: Limits,
        measured: dict[str, float],
        collate: Collate | None,
        pad: Pad | Mapping[str, Pad] | None,
    ) -> None:
        self._limits = limits
        self._measured = measured
        self._collate = collate
        self._pad = pad
        self._items: list[Any] = []
        self._longest = self._total = 0.0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether no item fits any more, however short it is."""
        limits, count = self._limits, len(self._items)
        if limits.size is not None and count >= limits.size:
            return True
        if limits.tokens is None or not count:
            return False
        if limits.padded:
            return (count + 1) * self._longest > limits.tokens
        return self._total >= limits.tokens

    def has_room(self, length: float) -> bool:
        """Whether an item of this length may be added; always, where there is none yet.

        Raises:
            ValueError: no batch may cost what it costs by itself.
        """
        limits, count = self._limits, len(self._items)
        if limits.tokens is None:
            return True
        if length > limits.tokens and limits.oversized == "raise":
            raise ValueError(
                f"an item of length {length} does not fit into a batch of at most "
                f"{limits.tokens:g} tokens; cut or filter it before, allow more, or say "
                "oversized='alone'"
            )
        if not count:
            return True
        cost = (count + 1) * max(self._longest, length) if limits.padded else self._total + length
        return cost <= limits.tokens

    def add(self, item: Any, length: float) -> None:
        """Append `item`."""
        self._items.append(item)
        self._total += length
        self._longest = max(self._longest, length)

    def finish(self) -> Any:
        """Return the batch, and begin the next one."""
        items, self._items = self._items, []
        self._measured["tokens"] += self._total
        self._measured["padded"] += len(items) * self._longest
        self._longest = self._total = 0.0
        if self._collate is not None:
            return self._collate(items)
        rows = new_rows(len(items), None, self._pad)
        for item in items:
            rows.add(item)
        return rows.finish()
