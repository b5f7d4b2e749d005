"""`zip`: one item of every input, together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Join
from splitpipe.pipeline.stages.checks import choice, settle

__all__ = ["Zip"]

_END = object()


@dataclass(frozen=True)
class Zip(Join):
    """One item of every input, as a tuple, or as a dict where the inputs have `names`.

    Inputs of different lengths are an error that names the one that ended, since items that belong
    together can hardly be meant to be thrown away; ``uneven="shortest"`` says that they are. What
    other inputs gave before the end was seen is counted as dropped then.
    """

    names: tuple[str, ...] | None = None
    uneven: str = "raise"

    def __post_init__(self) -> None:
        choice("uneven", self.uneven, ("raise", "shortest"))
        if self.names is not None:
            names = tuple(self.names)
            if len(set(names)) < len(names):
                raise GraphError(f"the names of zipped inputs must differ: {names}")
            settle(self, names=names)

    @property
    def label(self) -> str:
        return "zip"

    def length(self, lengths: Sequence[int]) -> int | None:
        return min(lengths, default=0)

    def needs(self, output: int) -> int:
        return output

    def least(self, output: int) -> int:
        return output

    def apply_all(self, inputs: Sequence[Iterator[Any]], context: Context) -> Iterator[Any]:
        if self.names is not None and len(self.names) != len(inputs):
            raise GraphError(f"zip has {len(self.names)} names for {len(inputs)} inputs")
        done = context.start.first
        while inputs:
            row = []
            for items in inputs:
                row.append(next(items, _END))
                if row[-1] is _END:
                    self._end(inputs, row, done, context)
                    return
            done += 1
            yield tuple(row) if self.names is None else dict(zip(self.names, row, strict=True))

    def _end(
        self, inputs: Sequence[Iterator[Any]], row: list[Any], done: int, context: Context
    ) -> None:
        """The last of `row` is the first end that was seen."""
        first = len(row) - 1
        if self.uneven == "shortest":
            context.dropped += first
            return
        longer = 0 if first else None
        if longer is None:
            for number, items in enumerate(inputs[1:], 1):
                if next(items, _END) is not _END:
                    longer = number
                    break
        if longer is not None:
            raise ValueError(
                f"zip: {self._name(first)} ended after {done} items, {self._name(longer)} goes on; "
                "make them equally long, or say uneven='shortest'"
            )

    def _name(self, number: int) -> str:
        return f"input {number}" if self.names is None else f"input {self.names[number]!r}"
