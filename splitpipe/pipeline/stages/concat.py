"""`concat`: one input after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.pipeline.stages.base import Context, Join

__all__ = ["Concat"]


@dataclass(frozen=True)
class Concat(Join):
    """All items of the first input, then those of the second, and so on."""

    @property
    def label(self) -> str:
        return "concat"

    def length(self, lengths: Sequence[int]) -> int | None:
        return sum(lengths)

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        for items in inputs:
            yield from items
